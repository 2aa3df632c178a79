"""What the worker does for each kind of job: fetch, call `ml` or `imaging`, store."""
