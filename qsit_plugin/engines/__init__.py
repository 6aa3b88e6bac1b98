"""What runs the model: images in, level logits and text out."""
