"""The local Hugging Face Hub and the small model that it serves."""
