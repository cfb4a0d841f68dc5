"""Offline work: what a batch job computes, and the libraries under it."""
