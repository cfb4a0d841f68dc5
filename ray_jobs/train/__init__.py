"""The job that fine-tunes models: data preparation, methods, checkpoints, publishing."""
