"""Inference engines: images in, level logits and text out."""
