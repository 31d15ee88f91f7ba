"""The model: its files, whether it fits, the backends that draw, int8 and compiled forms."""
