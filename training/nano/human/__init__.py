"""A teacher from human ratings, and the tower that imitates it."""
