"""The local cloud's network: the bridge, its packet rules, and the HTTP servers that listen on it."""
