"""The job that answers many queries over the shards of a snapshot."""
