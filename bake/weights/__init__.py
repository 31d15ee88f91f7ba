"""The model's weights: what is known of them, what the Hub has, their lock, their mirror."""
