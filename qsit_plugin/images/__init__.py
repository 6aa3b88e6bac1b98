"""Any input becomes an RGB picture, or an ImageError that says why not."""
