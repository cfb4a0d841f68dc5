"""The commands of `tandem`, one a file."""
