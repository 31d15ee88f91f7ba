"""What surrounds the worker: systemd, EC2's interruptions, logs, metrics and status."""
