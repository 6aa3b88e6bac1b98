"""What a model is worth on rows that it is not trained on: after a run, and during one."""

from .measure import Figures, validate

__all__ = ["Figures", "validate"]
