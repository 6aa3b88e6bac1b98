"""Throw-away virtual environments and built wheels, offline: nothing is downloaded and no build is isolated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
NOT_SOURCE = ("build", "dist", "runs", "venv", ".venv", ".git", "*.egg-info", "__pycache__", ".*_cache", "node_modules")


def copy_checkout(folder: Path) -> Path:
    """The source tree without what building and testing leave in it: setuptools builds inside the tree it is given."""
    return Path(shutil.copytree(CHECKOUT, folder, ignore=shutil.ignore_patterns(*NOT_SOURCE)))


def run(*command: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command without the caller's PYTHONPATH and switch; its output as text."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "QSIT_NO_PYIQA_HOOK")}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=inherited | variables, capture_output=True, text=True, encoding="utf-8")


def pip(*arguments: object, cwd: Path, python: Path | None = None) -> None:
    target = ["--python", python] if python else []
    done = run(sys.executable, "-m", "pip", "--disable-pip-version-check", *target, *arguments, cwd=cwd)
    assert done.returncode == 0, f"pip {arguments} failed:\n{done.stdout}\n{done.stderr}"


def build_wheel(source: Path, folder: Path) -> Path:
    """A wheel of a source tree or an sdist."""
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, source, cwd=folder.parent)
    (wheel,) = folder.glob("*.whl")
    return wheel


def build_sdist(source: Path, folder: Path) -> Path:
    code = "import sys; sys.path.insert(0, 'build_backend'); import qsit_build; qsit_build.build_sdist(sys.argv[1])"
    done = run(sys.executable, "-c", code, folder, cwd=source)
    assert done.returncode == 0, done.stderr
    (sdist,) = folder.glob("*.tar.gz")
    return sdist


@dataclass(frozen=True)
class Environment:
    """A virtual environment; ``linked`` ones also see the packages of the running interpreter (torch, pyiqa …)."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, *, linked: bool) -> Environment:
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        environment = cls(folder)
        # Path lines only: the .pth files of the running environment are not read, so no hook comes from there.
        paths = [path for path in sys.path if linked and path.endswith("-packages")]
        (environment.site_packages / "zz_running.pth").write_text("\n".join(["# test", *paths]), encoding="utf-8")
        return environment

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def site_packages(self) -> Path:
        if os.name == "nt":
            return self.folder / "Lib" / "site-packages"
        return next((self.folder / "lib").glob("python3*")) / "site-packages"

    def install(self, *arguments: object) -> Environment:
        pip(
            "install", "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed", *arguments,
            cwd=self.folder, python=self.python,
        )  # fmt: skip
        return self

    def uninstall(self) -> None:
        pip("uninstall", "--yes", "qsit-plugin", cwd=self.folder, python=self.python)

    def names(self) -> set[str]:
        """What lies in site-packages, byte code aside."""
        return {path.name for path in self.site_packages.iterdir()} - {"__pycache__"}

    def execute(self, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python code in a folder that holds nothing of ours."""
        return run(self.python, "-c", code, cwd=self.folder, **variables)
