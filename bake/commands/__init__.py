"""What the commands do, once `bake/cli.py` understood the command line; loaded when they are called."""
