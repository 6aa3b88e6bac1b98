"""Very many images: the scorer that hosts hold, the store that resumes, its sources and its exports."""

from .scorer import Scorer

__all__ = ["Scorer"]
