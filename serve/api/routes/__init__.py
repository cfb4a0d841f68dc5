"""The calls of the API, a file for each; all they do is turn requests into work and results into replies."""
