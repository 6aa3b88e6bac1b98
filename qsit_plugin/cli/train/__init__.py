"""``qsit train``: data, balance, fine-tuning and evaluation."""
