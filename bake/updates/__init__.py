"""Security updates of a distribution: what a bake leaves alone, and what came out after an image."""
