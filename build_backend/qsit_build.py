"""The build backend: setuptools, plus two small files at the root of every wheel, normal and editable.

``qsit_plugin.pth`` is read when the interpreter starts; its only line imports ``qsit_pyiqa_hook``, a copy of
``qsit_plugin/pyiqa_hook.py``. It is a copy so that a start never depends on anything else: an editable install whose
checkout was moved, or a package that was deleted by hand, must not print an error at each start of Python. Both files
are in the wheel's RECORD, so pip removes them again.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

HOOK = Path(__file__).resolve().parents[1] / "qsit_plugin" / "pyiqa_hook.py"


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    name = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    return _with_start_up_files(Path(wheel_directory) / name)


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    return _with_start_up_files(Path(wheel_directory) / name)


def _with_start_up_files(wheel: Path) -> str:
    """Rewrite a wheel with the two files and their lines in RECORD; returns the wheel's file name."""
    extra = {"qsit_plugin.pth": b"import qsit_pyiqa_hook\n", "qsit_pyiqa_hook.py": HOOK.read_bytes()}
    plain = wheel.with_suffix(".plain")
    wheel.replace(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                content = "".join(_record_line(*item) for item in extra.items()).encode() + content
            target.writestr(entry, content)
        for name, content in extra.items():
            target.writestr(name, content)
    plain.unlink()
    return wheel.name


def _record_line(name: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}\n"
