"""Ask AWS, the Hub and Git what a plan needs to know. Nothing is judged here: `bake.planning` does that."""
