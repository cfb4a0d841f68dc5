"""Fine-tuning on Ray Train: data preparation, methods, checkpoints, resume, models in the store."""
