"""``qsit bench``: scores held against datasets that people have rated."""
