"""What AWS shows late: new resources, changes of state and released quotas; by default, from a seed.

https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
"""
