"""Synthetic data: clean photos made worse in known ways, and questions and answers about it."""
