"""``qsit bench``: scores compared with human ratings."""
