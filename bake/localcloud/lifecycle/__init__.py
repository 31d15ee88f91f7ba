"""A local cloud from its start to its end: what it is made of, its process, its state, what it leaves."""
