"""What a job may contain: its fields, JSON Schema, message envelopes and S3 keys."""
