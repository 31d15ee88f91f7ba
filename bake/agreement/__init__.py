"""What the user agreed to (R-AGREE): its facts, its file, how it is shown and recorded."""
