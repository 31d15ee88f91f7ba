"""Bakes verified AMIs that boot a FLUX.1-dev worker."""
