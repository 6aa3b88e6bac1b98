"""The error of a wrong input in a workflow: one sentence with what was given and the cure."""

from __future__ import annotations

from qsit_plugin.errors import QSiTError


class InputError(QSiTError, ValueError):
    """Inputs of a node that cannot be used together, or a value that makes no sense."""
