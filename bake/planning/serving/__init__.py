"""What serving a queue costs: a job's requests, an image, an idle worker, and what stands without one."""
