"""The model's weights: known sizes, the Hub's files, their lock and their mirror."""
