"""AWS's endpoint: moto's services in front of real machines, who may call, and faults on request."""
