"""The AWS endpoint: moto's services in front of real machines, access control, and faults on request."""
