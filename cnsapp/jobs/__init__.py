"""The durable queue, the worker process, and what keeps them alive."""
