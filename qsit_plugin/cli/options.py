"""The options that several sub-commands share, and the opening of the model they choose."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from qsit_plugin.images.errors import MAX_PIXELS
from qsit_plugin.paused_collector import paused_collector

from .failures import WRONG_USAGE, ending, note, stop

if TYPE_CHECKING:
    from qsit_plugin.model import QSiT

DEFAULT_MODEL = "qsit-nano"
_of_model = functools.partial(typer.Option, rich_help_panel="Model")

Paths = Annotated[list[str], typer.Argument(metavar="PATH", help="Files, folders and patterns such as '*.jpg'.")]
Recursive = Annotated[bool, typer.Option(help="Also look into the folders inside a folder.")]
Revision = Annotated[str | None, _of_model(help="Branch, tag or commit of a Hub repository.")]
Profile = Annotated[
    str | None, _of_model(help="Prompt and level words of a score: official, training, or the path of a qsit.json.")
]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Length limit of an answer.")]
Temperature = Annotated[float | None, typer.Option(min=0.001, help="Sample the answer; without it decoding is greedy.")]
Seed = Annotated[int, typer.Option(min=-(2**63), max=2**64 - 1, help="Random seed of the sampling.")]
RowFormat = Annotated[
    str | None, typer.Option("--format", "-f", help="table, csv or jsonl; by default as --out ends, else table.")
]
TextFormat = Annotated[str | None, typer.Option("--format", "-f", help="text or jsonl; by default as --out ends.")]
Out = Annotated[str | None, typer.Option("--out", "-o", metavar="FILE", help="Write here instead of to stdout.")]
Holdout = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Hold this share of the training split out as the split validation, by scene."),
]


@dataclass(frozen=True)
class Choice:
    """Which model, and how it shall run: the arguments of ``qsit_plugin.load``, each with its option."""

    model: Annotated[
        str,
        _of_model(
            "--model",
            "-m",
            help="qsit-nano (built in, offline), qsit-mini, qsit, a checkpoint folder, or a Hub id owner/name.",
        ),
    ] = DEFAULT_MODEL
    engine: Annotated[
        str, _of_model(help="auto, torch, or onnx: ONNX Runtime on the CPU, with graphs made by qsit weights export.")
    ] = "auto"
    device: Annotated[str, _of_model(help="auto, cpu, cuda, cuda:1, mps ...")] = "auto"
    dtype: Annotated[str, _of_model(help="auto, float32, float16 or bfloat16.")] = "auto"
    revision: Revision = None
    adapter: Annotated[str | None, _of_model(help="Folder of a peft adapter.")] = None
    profile: Profile = None
    exif_rotation: Annotated[
        bool, typer.Option("--exif-rotation", help="Turn photos as their EXIF orientation says.")
    ] = False
    max_tiles: Annotated[
        int | None,
        _of_model(
            min=1, help="Look at no more tiles than this beside the base view: faster, other scores, which say so."
        ),
    ] = None
    max_image_tokens: Annotated[
        int | None, _of_model(min=1, help="No more tokens an image than this: faster, other scores, which say so.")
    ] = None
    max_pixels: Annotated[
        int,
        typer.Option(
            "--max-pixels", min=1, help="Refuse images with more pixels (width x height) before decoding them."
        ),
    ] = MAX_PIXELS

    def load(self, *, check_golden: bool = True) -> QSiT:
        """Load the model. Raises WeightsError, ProfileError, or ModuleNotFoundError for a library that is missing.

        ``check_golden=False`` is for commands that compare golden scores themselves. Ends with status 2 for a limit
        that the checkpoint cannot keep.
        """
        import qsit_plugin
        from qsit_plugin.engines.installed import require_torch
        from qsit_plugin.limits import LimitError

        with paused_collector():
            import qsit_plugin.loading

            if self._is_for_torch():
                require_torch()
                import qsit_plugin.checkpoint.opening  # noqa: F401  # torch and transformers

        settings = asdict(self)
        with ending(WRONG_USAGE, LimitError):
            return qsit_plugin.load(settings.pop("model"), check_golden=check_golden, **settings)

    def check(self) -> None:
        """End with status 2 for an engine, device or dtype that does not exist here, or that do not go together.

        Raises ModuleNotFoundError where what they need is not installed.
        """
        from qsit_plugin.engines.choice import check_engine
        from qsit_plugin.engines.installed import require_torch

        with ending(WRONG_USAGE, ValueError):
            check_engine(self.engine, self.device, self.dtype, self.adapter)
            if self.device in ("auto", "cpu") and self.dtype in ("auto", "float32"):
                return  # always there; torch need not be imported to know
            require_torch(f"device {self.device!r} with dtype {self.dtype!r}")
            from qsit_plugin.engines.devices import resolve_device, resolve_dtype

            resolve_dtype(self.dtype, resolve_device(self.device))

    def _is_for_torch(self) -> bool:
        """Whether torch will be needed, as far as can be told without opening the checkpoint."""
        from qsit_plugin.checkpoint.onnx_record import has_graphs
        from qsit_plugin.engines.installed import has_onnx, has_torch
        from qsit_plugin.weights.catalogue import NANO

        folder = NANO if self.model == DEFAULT_MODEL else Path(self.model)
        suited = self.engine == "onnx" or (self.engine == "auto" and has_graphs(folder) and has_onnx())
        return not suited and has_torch()  # without it, load says what to install

    def open(self, *, check_golden: bool = True) -> QSiT:
        """Load the model and say on stderr what produces the numbers. Ends with status 2 when it cannot be loaded."""
        try:
            self.check()
            model = self.load(check_golden=check_golden)
        except ModuleNotFoundError as error:
            cured = "pip install" in str(error)
            stop(str(error) if cured else f"{error.name} is not installed: pip install {error.name}", WRONG_USAGE)
        note(headline(model))
        for line in self.about_limits(model):
            note(line)
        return model

    def about_limits(self, model: QSiT) -> list[str]:
        """That limits move the scores, or limit nothing here; no line without limits."""
        from qsit_plugin.limits import limits_of

        words = limits_of(model.engine.tiling)
        if words:
            return [f"{' and '.join(words)}: faster, but scores differ from the released ones and cannot be calibrated"]
        if self.max_tiles is not None or self.max_image_tokens is not None:
            return [f"no image reaches these limits with {model.name}: scores are the released ones"]
        return []


def chooses_model(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these options of ``Choice`` (without names all); its first parameter holds them."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature, hints = inspect.signature(command, eval_str=True), get_type_hints(Choice, include_extras=True)
        _, *own = signature.parameters.values()
        offered = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=getattr(Choice, name), annotation=hints[name]
            )
            for name in names or hints
        ]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            command(Choice(**{option.name: given.pop(option.name) for option in offered}), **given)

        run.__signature__ = signature.replace(parameters=[*own, *offered])  # type: ignore[attr-defined]  # typer reads it
        return run

    return decorate


def headline(model: QSiT) -> str:
    """Which model, device and dtype produce the numbers, what they mean, and where better ones come from."""
    running = f"{model.name} on {model.device}, {str(model.dtype).removeprefix('torch.')}"
    running += "" if model.engine.name == "torch" else f" ({model.engine.name})"
    if model.profile.kind == "ratings":
        return f"{running}: calibrated on {model.scope}"
    if model.profile.kind == "distortions":
        return f"{running}: knows {model.scope} only; for human-calibrated scores: --model qsit-mini"
    if model.profile.kind == "mixed":
        return f"{running}: scores follow {model.scope}; not for generated images: take --model qsit-mini"
    return f"{running}: scope {model.scope}"
