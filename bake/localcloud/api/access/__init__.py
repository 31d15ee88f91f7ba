"""Who may call the local cloud, and what: keys, signatures, allowed services, roles' policies, Host names."""
