"""Read the model's files into the device's memory by many large reads at once, from one or more sources."""
