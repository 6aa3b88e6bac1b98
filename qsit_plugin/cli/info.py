"""``qsit info``: the self-check. Versions, devices, the checkpoint's own checks, the golden score, the pyiqa hook."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

import typer

from qsit_plugin import pyiqa_hook
from qsit_plugin.engines.installed import has_torch, require_engine, version_problem
from qsit_plugin.errors import WeightsError
from qsit_plugin.protocol import ProfileError, profile_name

from . import options
from .failures import SOME_FAILED, report

if TYPE_CHECKING:
    from qsit_plugin.model import QSiT

NEEDED = ("safetensors", "tokenizers", "pillow", "numpy", "huggingface_hub", "jinja2")
OPTIONAL = ("onnxruntime", "torch", "transformers", "pyiqa", "peft")


@dataclass(frozen=True)
class Finding:
    """One line of the self-check. ``problem`` says what is broken and how to fix it; None is all good."""

    name: str
    value: str
    problem: str | None = None


@options.chooses_model(
    "model", "engine", "device", "dtype", "revision", "adapter", "profile", "max_tiles", "max_image_tokens"
)
def info(choice: options.Choice) -> None:
    """Check this installation: versions, devices, checkpoint, golden score, pyiqa hook.

    The exit status is 1 when something is broken.
    """
    broken = []
    choice.check()
    for part in (versions(), hook(), devices(), checkpoint(choice)):
        for finding in part:
            typer.echo(f"{finding.name:<16}{finding.value}")
            if finding.problem is not None:
                broken.append(finding)
    for finding in broken:
        report(f"{finding.name}: {finding.problem}")
    typer.echo(f"{'self-check':<16}{'broken: ' + ', '.join(f.name for f in broken) if broken else 'all good'}")
    if broken:
        raise typer.Exit(SOME_FAILED)


def versions() -> Iterator[Finding]:
    """Of this package, Python and the libraries; read from their metadata, so that a broken one is still listed."""
    from qsit_plugin import __version__

    yield Finding("qsit-plugin", f"{__version__} in {os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}")
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    for name in (*NEEDED, *OPTIONAL):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing = None if name in OPTIONAL else f"not installed: pip install {name}"
            yield Finding(name, "not installed" + (" (optional)" if name in OPTIONAL else ""), missing)
        else:
            yield Finding(name, version, version_problem(name, version))


def hook() -> Iterator[Finding]:
    """Whether ``import pyiqa`` alone knows the qsit metrics."""
    if os.environ.get(pyiqa_hook.SWITCH, "") not in ("", "0"):
        yield Finding("pyiqa hook", f"off ({pyiqa_hook.SWITCH} is set)")
    elif "qsit_pyiqa_hook" in sys.modules:
        yield Finding("pyiqa hook", "on: a plain `import pyiqa` knows qsit, qsit-mini and qsit-nano")
    else:
        yield Finding("pyiqa hook", "on after `import qsit_plugin` (no start-up file: not installed with pip)")


def devices() -> Iterator[Finding]:
    """What the engines can compute on."""
    try:
        require_engine("auto")
        if not has_torch():
            from qsit_plugin.engines.onnx_session import cpu_threads

            yield Finding("cpu", f"threads: {cpu_threads()}")
            return
        import torch
    except ImportError as error:
        yield Finding("devices", "unknown", str(error))
        return
    yield Finding("cpu", f"threads: {torch.get_num_threads()}")
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        yield Finding(f"cuda:{index}", f"{about.name}, {about.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        yield Finding("mps", "available")


def checkpoint(choice: options.Choice) -> Iterator[Finding]:
    """Load the model, which runs every load-time check, and compare its golden scores."""
    try:
        model = choice.load(check_golden=False)
    except (WeightsError, ProfileError, ImportError) as error:
        yield Finding("model", choice.model, str(error))
        return
    yield Finding("model", f"{model.name} in {model.folder}")
    yield Finding("fingerprint", f"{model.fingerprint} (of the weights)")
    yield Finding("runs on", f"{model.device}, {str(model.dtype).removeprefix('torch.')}, engine {model.engine.name}")
    yield Finding(
        "profile", f"{profile_name(model.profile, choice.profile)}, scope {model.scope} ({model.profile.kind})"
    )
    yield grids(model)
    for line in choice.about_limits(model):
        yield Finding("limits", line)
    yield from golden_scores(model)


def grids(model: QSiT) -> Finding:
    """How large an image can become: what ``--max-tiles`` and ``--max-image-tokens`` choose from."""
    from qsit_plugin.limits import most_tokens, tiles_of

    tiling = model.engine.tiling
    tiles = [tiles_of(tiling, point) for point in tiling.grid_points]
    tokens = max(most_tokens(tiling, point) for point in tiling.grid_points)
    tokens = tokens if tiling.token_limit is None else min(tokens, tiling.token_limit)
    sizes = f"{min(tiles)} to {max(tiles)} tiles of {tiling.tile} pixels"
    return Finding("image grids", f"{len(tiles)}, of {sizes} and a base view, up to {tokens} tokens")


def golden_scores(model: QSiT) -> Iterator[Finding]:
    """The stored scores of known pictures against what this machine computes."""
    from qsit_plugin.checkpoint.verdict import verdicts, with_image
    from qsit_plugin.images.reading import ImageError
    from qsit_plugin.limits import limits_of
    from qsit_plugin.weights.golden import goldens

    if limits_of(model.engine.tiling):
        yield Finding("golden score", "not compared: it holds without limits")
        return
    try:
        known = goldens(model.folder, model.name)
        pairs = with_image(known, None)
        found = list(verdicts(model, pairs))
    except (WeightsError, ImageError) as error:
        yield Finding("golden score", "cannot be compared", str(error))
        return
    if not known:
        yield Finding("golden score", "none stored with this checkpoint: nothing to compare")
    elif not pairs:
        yield Finding("golden score", f"needs its picture: qsit weights verify {model.name} --image FILE")
    for verdict in found:
        problem = None if verdict.word == "pass" else f"{verdict.word}: see qsit weights verify {model.name}"
        yield Finding(
            "golden score", f"{verdict.word}: {verdict.score:.4f} here, {verdict.golden.score:.4f} stored", problem
        )
