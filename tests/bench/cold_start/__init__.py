"""The disk that starts are measured on, and one start as a process."""
