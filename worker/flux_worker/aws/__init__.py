"""boto3 clients, and what AWS's errors mean."""
