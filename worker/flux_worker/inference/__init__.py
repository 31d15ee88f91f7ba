"""The model: its files, its memory, the backends, int8 and compiled forms."""
