"""The queue, a job's lease and claim, its result, and the delivery to S3 and EventBridge."""
