"""Python packages and the pinned Python as instances install them: an index on the bridge."""
