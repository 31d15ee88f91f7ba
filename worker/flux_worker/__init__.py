"""The FLUX worker: jobs from SQS, images by FLUX.1-dev, results to S3 and EventBridge."""

__version__ = "0.1.0"
