"""Online work: what `ray_jobs` computes in bulk, answered one request at a time."""
