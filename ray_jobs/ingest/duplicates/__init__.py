"""Documents of equal or nearly equal content, over the whole corpus: only one of them is embedded."""
