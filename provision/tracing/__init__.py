"""Record on the builder which bytes a start of the worker reads, and in which order.

The image ships the result, so that a boot can read ahead of the worker: `python -m tracing --help`. It needs
the standard library alone.
"""
