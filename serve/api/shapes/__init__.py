"""Requests and replies as JSON shows them, one file a call; the schema at /openapi.json is made from these."""
