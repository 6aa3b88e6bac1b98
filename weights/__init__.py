"""Where checkpoints come from: catalogue, download, conversion, golden values. Knows files, not models."""

from __future__ import annotations

from qsit_plugin.errors import WeightsError
from qsit_plugin.weights.catalogue import ENTRIES, Entry, Status, resolve, status

__all__ = ["ENTRIES", "Entry", "Status", "WeightsError", "resolve", "status"]
