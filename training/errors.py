"""The error of a run that cannot begin. Imports no other library, so that every command can catch it."""

from __future__ import annotations

from qsit_plugin.errors import QSiTError


class ConfigError(QSiTError, ValueError):
    """A run that cannot begin; the message says what to do."""
