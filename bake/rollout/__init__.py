"""Roll a channel's AMI out over an Auto Scaling group, by an instance refresh to literal versions."""
