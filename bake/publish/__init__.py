"""Make a finished AMI known: launch templates, SSM parameters, copies, and what the AMI itself enforces."""
