"""What a document is and how it gets in: sources, readers, chunks. A library: it knows no Ray."""
