"""Q-SiT: look at an image once, then score its quality and explain it.

    import qsit_plugin as qsit

    model = qsit.load("qsit-nano")
    model.score("photo.jpg").value      # in [0, 1]
    model.explain("photo.jpg").text

The names below, but for the errors, are loaded when they are first used: importing this package loads neither torch nor
transformers.
"""

import os as _os

from .errors import (
    ContextError,
    ForkedError,
    ImageError,
    LimitError,
    NonFiniteError,
    ProfileError,
    QSiTError,
    WeightsError,
)
from .pyiqa_hook import register  # arms the hook, unless the interpreter's start has done it

TYPE_CHECKING = False  # type checkers take this name for true; importing typing would cost ten times the rest

_HOMES = {
    "load": "loading",
    "QSiT": "model",
    "Look": "look",
    "Answer": "engines.generation",
    "Score": "scores",
    "Comparison": "scores",
    "ScoreProfile": "protocol",
    "__version__": "version",
}
"""Public name -> the module that defines it."""

__all__ = [
    "Answer", "Comparison", "ContextError", "ForkedError", "ImageError", "LimitError", "Look", "NonFiniteError",
    "ProfileError", "QSiT", "QSiTError", "Score", "ScoreProfile", "WeightsError", "__version__", "load", "register",
]  # fmt: skip

if TYPE_CHECKING:
    from .engines.generation import Answer
    from .loading import load
    from .look import Look
    from .model import QSiT
    from .protocol import ScoreProfile
    from .scores import Comparison, Score
    from .version import __version__


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_root = _os.path.dirname(_os.path.dirname(_os.path.realpath(__file__)))
_marks = ("pyproject.toml", _os.path.join("nodes", "__init__.py"))
_in_source_tree = all(_os.path.isfile(_os.path.join(_root, mark)) for mark in _marks)
if _in_source_tree:
    # A source tree that was not installed (a clone in ComfyUI's custom_nodes/): nodes, training and weights lie beside
    # this folder and are found as qsit_plugin.nodes and so on, as in an installed package.
    __path__.append(_root)
