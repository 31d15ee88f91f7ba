"""Programs that run on the machine, not here: each reads JSON from stdin and prints facts as JSON."""
