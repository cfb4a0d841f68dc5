"""The job that turns a corpus into a published snapshot of an index."""
