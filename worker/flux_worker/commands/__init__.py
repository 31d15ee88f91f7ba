"""The commands of `flux-worker`, one module each, and what they share: options and output."""
