"""What a fine-tuning run is told: one YAML file, read into one dataclass. Needs pyyaml only."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from .settings_file import ConfigError, check_names, parse_overrides, read_yaml

__all__ = ["ConfigError", "RunConfig", "read_config"]

METHODS = ("lora", "full")
PARTS = ("language", "projector", "vision")
RESULTS = ("adapter", "merged")
LEVEL_LOSSES = ("hard", "soft", "soft+rank")
NORMALIZATIONS = ("token", "sample", "task")
SCHEDULES = ("cosine", "linear", "constant")
PRECISIONS = ("auto", "float32", "bf16")
DTYPES = ("float32", "bfloat16", "float16")
DEVICES = ("auto", "cpu")
BALANCES = ("feedback",)
LEARNING_RATES = {"lora": 1e-4, "full": 1e-5}
VISION_SHARE = 0.2
"""The vision tower's learning rate as a share of the others', where none is given: 2e-6 of 1e-5, as in
LLaVA-OneVision's own fine-tuning script."""


EXAMPLE = "base: qsit-nano"


@dataclass(frozen=True)
class RunConfig:
    """A fine-tuning run. Relative paths in a YAML file are relative to that file. Raises ConfigError for a bad value.

    None stands for the default that is named below.
    """

    base: str
    """The checkpoint to start from: qsit-nano, qsit-mini, qsit, a folder, or a Hub id."""
    data: str
    """Rows (.jsonl of ``qsit train convert``, .json of LLaVA's form), or a mixture of such files (.yaml)."""
    images: str
    """The folder that the rows' image paths are relative to."""
    output: str
    """A folder for the result, the checkpoints on the way and the records of the run."""
    profile: str | None = None
    """How ratings are asked and read: a profile's name or file; the checkpoint's own by default. The result has it."""
    scope: str | None = None
    """What the scores mean, "human ratings" for example; as the profile says by default."""

    method: str = "lora"
    parts: tuple[str, ...] | None = None
    """What is trained. By default language for lora, everything for full. With lora the projector is trained as it is,
    without low rank."""
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.05
    result: str | None = None
    """adapter (the default for lora) or merged: a whole checkpoint (the only one for full)."""
    result_dtype: str | None = None
    """Of a merged result's weights; as the base checkpoint's config.json says by default."""

    level_loss: str = "soft"
    """hard: the level word as it stands in the row. soft: its ``level_probs``. soft+rank: and the order of rated images
    of one source in a batch of all devices; refused where no batch has two. Batches that gradient_accumulation adds up
    are not compared."""
    level_weight: float = 1.0
    """How much the level token counts against every other token of an answer."""
    rank_weight: float = 1.0
    normalize: str = "sample"
    """What counts the same: every token, every sample, or the two tasks (score and interpret)."""

    epochs: int = 1
    max_steps: int | None = None
    """Ends the run after so many steps, whatever the epochs."""
    rows_per_epoch: int | None = None
    """All rows by default."""
    shares: dict[str, float] | None = None
    """Share of each source (file name without ending) in every epoch; by their numbers of rows by default."""
    batch_size: int = 1
    """Images at once on each device."""
    gradient_accumulation: int = 1
    learning_rate: float | None = None
    """1e-4 for lora, 1e-5 for full."""
    vision_learning_rate: float | None = None
    """A fifth of learning_rate."""
    projector_learning_rate: float | None = None
    """As learning_rate."""
    weight_decay: float = 0.0
    warmup: float = 0.03
    """Share of the steps over which the learning rate rises to its value."""
    schedule: str = "cosine"
    max_grad_norm: float = 1.0

    precision: str = "auto"
    """bf16: computes in bfloat16; what is trained stays in float32, what is frozen is kept in bfloat16. auto: bf16 on
    CUDA, else float32."""
    gradient_checkpointing: bool = True
    """Computes activations again on the way back instead of keeping them: a third slower, far less memory."""
    memory_probe: bool = True
    """Tries the longest batch before the first step."""
    max_tokens: int | None = None
    """A longer row stops the run; the model's longest position by default."""
    device: str = "auto"
    workers: int = 2
    """Processes that open and cut images, on each device."""
    verify_images: bool = False
    """Decodes every image once before the first step, so that a damaged one stops the run there."""
    skip_damaged: bool = False
    """Trains on another row of the same source in place of one whose image is missing or damaged, and says so."""

    validation: str | None = None
    """Rows or a mixture, as ``data``, on which the model is measured on the way; their images are below ``images``."""
    validate_every: int | None = None
    """Steps; at the end of each epoch by default. The last step is always validated."""
    validate_rows: int = 200
    """How many of the rows on the way, always the same ones; after the last step all."""
    balance: str | None = None
    """feedback: after each epoch the share of ratings moves towards the task whose validation loss is too high."""
    balance_lambda: float | None = None
    """The score loss divided by the interpret loss that is aimed at: the light model's at its best mixture."""
    balance_step: float = 0.05
    """By how much the share of ratings moves at most from one epoch to the next."""
    balance_bounds: tuple[float, float] = (0.05, 0.95)
    """Which it never leaves."""
    scoring_sources: tuple[str, ...] | None = None
    """The sources whose share is that of ratings; by default those whose rows are all ratings."""

    seed: int = 0
    save_every: int = 500
    """Steps from one checkpoint to the next."""
    keep_checkpoints: int = 2
    log_every: int = 10
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _typed(field.name, getattr(self, field.name)))
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ConfigError(f"{name} is {value!r}: give one of {', '.join(allowed)}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name} is {value}: it must be {_range_text(low, high)}")
        for name in ("learning_rate", "level_weight", "lora_alpha", "max_grad_norm", "balance_step"):
            if getattr(self, name) == 0:
                raise ConfigError(f"{name} is 0: it must be above 0")
        self._check_parts()
        if self.method == "full" and self.result == "adapter":
            raise ConfigError("result is 'adapter', but full fine-tuning has none: take the line out, or method: lora")
        if self.result == "adapter" and self.result_dtype is not None:
            raise ConfigError("result_dtype is that of a merged result: take it out, or give result: merged")
        self._check_validation()

    def _check_validation(self) -> None:
        if self.validation is None and self.balance is not None:
            raise ConfigError(
                "balance: feedback needs validation, a file of rows (ratings and conversations) on which the losses of "
                "the two tasks are compared"
            )
        if self.validation is None and self.validate_every is not None:
            raise ConfigError("validate_every needs validation, a file of rows: give it, or take validate_every out")
        if self.balance is None:
            given = [name for name in ("balance_lambda", "scoring_sources") if getattr(self, name) is not None]
            if given:
                raise ConfigError(f"{given[0]} is that of balance: feedback: add this, or take {given[0]} out")
        elif not self.balance_lambda:
            raise ConfigError(
                "balance: feedback needs balance_lambda above 0: score loss divided by interpret loss of the light "
                "model at its best mixture (qsit train evaluate gives both)"
            )
        low, high = self.balance_bounds
        if not 0 < low < high < 1:
            raise ConfigError(f"balance_bounds is [{low:g}, {high:g}]: give two shares, 0 < low < high < 1")

    def _check_parts(self) -> None:
        if self.parts is None:
            return
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not self.parts or len(set(self.parts)) < len(self.parts):
            raise ConfigError(f"parts is {list(self.parts)}: give one or more of {', '.join(PARTS)}, each once")

    @property
    def trained_parts(self) -> tuple[str, ...]:
        return self.parts or (("language",) if self.method == "lora" else PARTS)

    @property
    def merged(self) -> bool:
        """Whether the result is a whole checkpoint."""
        return self.method == "full" or self.result == "merged"

    def rates(self) -> dict[str, float]:
        """The learning rate of each part."""
        rate = LEARNING_RATES[self.method] if self.learning_rate is None else self.learning_rate
        vision, projector = self.vision_learning_rate, self.projector_learning_rate
        return {
            "language": rate,
            "projector": rate if projector is None else projector,
            "vision": VISION_SHARE * rate if vision is None else vision,
        }

    def to_dict(self) -> dict[str, Any]:
        """YAML-ready; what ``read_config`` reads."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


_CHOICES = {
    "method": METHODS,
    "result": RESULTS,
    "result_dtype": DTYPES,
    "level_loss": LEVEL_LOSSES,
    "normalize": NORMALIZATIONS,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "device": DEVICES,
    "balance": BALANCES,
}
_ANY = float("inf")
_RANGES: dict[str, tuple[float, float]] = {
    "lora_rank": (1, 4096),
    "lora_alpha": (0, 1e6),
    "lora_dropout": (0, 0.9),
    "level_weight": (0, 1e6),
    "rank_weight": (0, 1e6),
    "epochs": (1, 1_000_000),
    "max_steps": (1, _ANY),
    "rows_per_epoch": (1, _ANY),
    "batch_size": (1, 65536),
    "gradient_accumulation": (1, 65536),
    "learning_rate": (0, 1),
    "vision_learning_rate": (0, 1),
    "projector_learning_rate": (0, 1),
    "weight_decay": (0, 1),
    "warmup": (0, 1),
    "max_grad_norm": (0, 1e6),
    "max_tokens": (1, _ANY),
    "workers": (0, 1024),
    "validate_every": (1, _ANY),
    "validate_rows": (2, _ANY),
    "balance_lambda": (0, 1e6),
    "balance_step": (0, 1),
    "seed": (0, 2**32 - 1),
    "save_every": (1, _ANY),
    "keep_checkpoints": (1, _ANY),
    "log_every": (1, _ANY),
}


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The run that a YAML file describes.

    ``overrides``: ``"learning_rate=1e-5"``, each over the file's own line; values are written as in YAML.

    Raises ConfigError for a missing or malformed file, an unknown or missing key, a value of the wrong kind or out of
    range; ModuleNotFoundError where pyyaml is missing.
    """
    path = Path(path)
    content = read_yaml(path, EXAMPLE, "no such config file; qsit train configs FOLDER writes examples")
    content.update(parse_overrides(overrides, "learning_rate=1e-5"))
    check_names(path, content, RunConfig, EXAMPLE)
    try:
        return _below(RunConfig(**content), path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _below(config: RunConfig, folder: Path) -> RunConfig:
    """Paths relative to the file made relative to the current folder; names of checkpoints and profiles stay."""
    names = ("data", "images", "output", *(("validation",) if config.validation else ()))
    paths: dict[str, Any] = {name: str(folder / getattr(config, name)) for name in names}
    if (folder / config.base).is_dir():
        paths["base"] = str(folder / config.base)
    if config.profile is not None and (folder / config.profile).exists():
        paths["profile"] = str(folder / config.profile)
    return replace(config, **paths)


_HINTS: dict[str, Any] = {}


def _typed(name: str, value: Any) -> Any:
    """The value in its field's type. ``1e-5`` is a text to YAML, so texts that are numbers are taken as numbers."""
    if not _HINTS:
        _HINTS.update(typing.get_type_hints(RunConfig))
    hint = _HINTS[name]
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return None
    kind = next(kind for kind in kinds if kind is not type(None))
    origin = typing.get_origin(kind) or kind
    try:
        if origin is float and not isinstance(value, bool):
            return float(value)
        if origin is int and isinstance(value, int | float | str) and not isinstance(value, bool):
            number = float(value)
            if number == int(number):
                return int(number)
        if origin is bool and isinstance(value, bool):
            return value
        if origin is str and isinstance(value, str) and value:
            return value
        if origin is tuple and isinstance(value, list | tuple):
            numbers = float in typing.get_args(kind)
            if numbers and len(value) == 2 and not any(isinstance(item, bool) for item in value):
                return tuple(float(item) for item in value)
            if not numbers and all(isinstance(item, str) for item in value):
                return tuple(value)
        if origin is dict and isinstance(value, dict):
            return {str(key): float(share) for key, share in value.items()}
    except (TypeError, ValueError, OverflowError):
        pass
    words = _PAIR if origin is tuple and float in typing.get_args(kind) else _WORDS[origin]
    raise ConfigError(f"{name} is {value!r}: it must be {words}")


_PAIR = "two numbers, as in [0.05, 0.95]"


_WORDS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a text",
    tuple: "a list of texts, as in [language, projector]",
    dict: "names with numbers, as in {koniq: 0.3, q_instruct: 0.7}",
}


def _range_text(low: float, high: float) -> str:
    return f"at least {low:g}" if high == _ANY else f"from {low:g} to {high:g}"
