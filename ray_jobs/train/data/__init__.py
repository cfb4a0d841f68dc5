"""Data for fine-tuning: read, validate, clean, compare, split, measure. A library; it knows no Ray."""
