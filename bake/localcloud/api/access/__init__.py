"""Access control of the API: keys, signatures, supported services, roles' policies, Host names."""
