"""The sharded index: write, publish, open and search a snapshot; knows no Ray.

layout, manifest     where everything is, and the commit
factory, template    which FAISS index, trained once for all shards
shard                vectors, rows and postings of one shard: dense, rows, postings, lexical, analysis
filters              expressions on metadata
search, merge        statistics, candidates, one ranking from many shards (fusion: one from several rankings)
snapshot             all of a snapshot in one process
verify               whether a snapshot is what its manifest says
"""
