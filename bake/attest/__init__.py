"""What an AMI's snapshot holds, as one digest that is signed: read, state, sign, verify."""
