"""A YAML file, read with one error for whatever is wrong in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_yaml(path: Path) -> Any:
    """The content of a file.

    Raises ValueError with the path and the cause for text that is not YAML or not UTF-8, for values that YAML's types
    do not allow (the date 2026-13-01) and for endless nesting; OSError for a file that is not there or is a folder;
    ModuleNotFoundError, with the command, without pyyaml.
    """
    try:
        import yaml
    except ModuleNotFoundError:
        raise ModuleNotFoundError('pyyaml is not installed: pip install "qsit-plugin[train]"', name="yaml") from None
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
