"""What is in the account of all bakes: the inventory, and the removal of what expired runs left."""
