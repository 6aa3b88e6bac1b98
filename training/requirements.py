"""What fine-tuning needs beside the library: said in one line before anything else is done; and what there is."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence

from packaging.version import Version

from .errors import ConfigError

OLDEST_TRANSFORMERS = "5.18"
INSTALL = 'pip install "qsit-plugin[train]"'


def require_training(trackers: Sequence[str] = ()) -> None:
    """Raise ConfigError where transformers is too old to train, or a package is missing, one of ``report_to`` too."""
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"fine-tuning needs {' and '.join(missing)}: run {INSTALL}")
    found = importlib.metadata.version("transformers")
    if Version(found) < Version(OLDEST_TRANSFORMERS):
        raise ConfigError(
            f"fine-tuning needs transformers {OLDEST_TRANSFORMERS} or later, this is {found} (scoring works with it): "
            f"run {INSTALL}"
        )
    missing = [name for name in ("peft", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"fine-tuning needs {' and '.join(missing)}: run {INSTALL}")
    if trackers:
        from accelerate.tracking import get_available_trackers

        installed = [str(name) for name in get_available_trackers()]
        for name in trackers:
            if name not in installed:
                raise ConfigError(f"report_to: {name} is not installed: pip install {name}, or take it out")


def versions(*names: str) -> dict[str, str]:
    """Of this package and of others by their names, for a record."""
    from qsit_plugin import __version__

    return {"qsit-plugin": __version__, **{name: importlib.metadata.version(name) for name in names}}
