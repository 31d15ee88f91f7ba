"""The package index on the bridge, from which instances install Python packages and the pinned Python."""
