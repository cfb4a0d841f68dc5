"""Recipes: every step from public data to a model, as configurations of the commands; see `cluster.recipe`."""
