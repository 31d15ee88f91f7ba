"""One step of the bake, one module, one verb."""
