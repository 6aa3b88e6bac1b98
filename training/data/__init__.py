"""What a model is trained on: rows, where they come from, in which order, and as tensors."""
