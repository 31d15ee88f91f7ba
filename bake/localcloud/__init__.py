"""A small EC2-compatible cloud on the user's own machine, for rehearsals and tests.

The API is moto's; the instances, disks, metadata and network behind it are real.
"""
