"""What a worker may do in AWS: what it needs, what it has, and what must be added to its role."""
