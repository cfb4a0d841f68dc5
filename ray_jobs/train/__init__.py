<<<<<<< ours
"""The job that fine-tunes models: data preparation, methods, checkpoints, publishing."""
=======
"""Fine-tuning on Ray Train: data preparation, methods, checkpoints, resume, models in the store."""
>>>>>>> theirs
