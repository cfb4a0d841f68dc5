"""How good a model is before and after fine-tuning, row by row, on the target and on what must not be forgotten."""
