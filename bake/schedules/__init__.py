"""Definitions that bake on a schedule: a GitHub workflow, a CloudFormation stack, systemd units.

Pure: profiles and what is asked for in, texts out. `bake schedule` writes them.
"""
