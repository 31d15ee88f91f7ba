"""A job's way: what it may ask for, how it is held, where its results go, how it is handed over."""
