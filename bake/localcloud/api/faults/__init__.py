"""Faults on request: AWS calls that fail before or after they reach the application that answers them."""
