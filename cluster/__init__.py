"""Where Tandem runs: the `tandem` command."""
