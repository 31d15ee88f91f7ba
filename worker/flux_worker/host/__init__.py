"""systemd, EC2 interruptions, logs, metrics and status."""
