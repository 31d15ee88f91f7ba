"""The commands: one module each for the options, loaded when the command is called."""
