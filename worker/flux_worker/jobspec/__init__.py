"""What a job may ask for: its fields, its JSON Schema, what it may arrive in, its names in S3."""
