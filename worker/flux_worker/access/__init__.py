"""`flux-worker check --aws`: the permissions that the worker needs, has, and lacks."""
