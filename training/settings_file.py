"""Settings in a YAML file, one a line, and over them NAME=VALUE of the command line. Needs pyyaml only."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from qsit_plugin.errors import QSiTError


class ConfigError(QSiTError, ValueError):
    """A run that cannot begin; the message says what to do."""


def read_yaml(path: Path, example: str, absent: str = "no such file") -> dict[Any, Any]:
    """A YAML file of one setting a line.

    ``example`` of such a line, and ``absent``, what to say of a file that is not there, stand in the messages. Raises
    ConfigError for anything else than such a file; ModuleNotFoundError where pyyaml is missing.
    """
    try:
        import yaml
    except ModuleNotFoundError:
        raise ModuleNotFoundError('pyyaml is not installed: pip install "qsit-plugin[train]"', name="yaml") from None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(f"{path}: {absent}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold one setting a line, as in '{example}'")
    return content


def parse_overrides(overrides: Sequence[str], example: str) -> dict[str, Any]:
    """``NAME=VALUE`` of the command line, values as in YAML. Raises ConfigError for anything else."""
    import yaml

    found = {}
    for override in overrides:
        name, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"{override!r} is no setting: write NAME=VALUE, as in {example}")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(
                f"{override!r}: {value!r} is not valid YAML; write lists as [a, b], shares as {{a: 0.3, b: 0.7}}, and "
                "quotes around the whole setting"
            ) from None
    return found


def check_names(path: Path, content: Mapping[Any, Any], kind: Any, example: str) -> None:
    """Raise ConfigError for a setting that the dataclass ``kind`` does not have, and for one that it needs."""
    known = {field.name: field.default is MISSING for field in fields(kind)}
    for name in content:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            guess = f" (did you mean {close[0]}?)" if close else ""
            raise ConfigError(f"{path}: unknown setting {name!r}{guess}; there are {', '.join(known)}")
    missing = [name for name, required in known.items() if required and content.get(name) is None]
    if missing:
        raise ConfigError(f"{path} lacks {', '.join(missing)}: add them, as in '{example}'")
