"""The configuration of a fine-tuning run: one YAML file, read into one dataclass. Needs pydantic and pyyaml only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from .settings_file import (
    BeforeValidator,
    ConfigError,
    Count,
    EachOnce,
    Field,
    Flag,
    Number,
    Share,
    Text,
    Whole,
    read_file,
    settings,
    to_jsonable_python,
)

__all__ = ["ConfigError", "RunConfig", "read_config"]

Part = Literal["language", "projector", "vision"]
Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab"]
"""Those of accelerate.tracking."""
PARTS: tuple[Part, ...] = get_args(Part)
LEARNING_RATES = {"lora": 1e-4, "full": 1e-5}
LORA = {"lora_rank": 16, "lora_alpha": 32.0, "lora_dropout": 0.05}
VISION_SHARE = 0.2
"""The vision tower's learning rate as a share of the others', where none is given: 2e-6 of 1e-5, as in
LLaVA-OneVision's own fine-tuning script."""

Parts = Annotated[
    tuple[Part, ...], Field(min_length=1, description=f"give one or more of {', '.join(PARTS)}, each once"), EachOnce
]
Trackers = Annotated[
    tuple[Tracker, ...], Field(description=f"give some of {', '.join(get_args(Tracker))}, each once"), EachOnce
]
Positive = Annotated[Number, Field(gt=0, le=1e6)]
Billion = Annotated[Count, Field(le=1_000_000_000)]
Many = Annotated[Count, Field(le=65536)]
Sources = Annotated[tuple[Text, ...], Field(description="it must be a list of texts, as in [koniq, spaq]")]
Shares = Annotated[
    dict[Annotated[str, BeforeValidator(str)], Number],
    Field(description="it must be names with numbers, as in {koniq: 0.3, q_instruct: 0.7}"),
]
Bounds = Annotated[tuple[Number, Number], Field(description="it must be two numbers, as in [0.05, 0.95]")]


@settings
class RunConfig:
    """A fine-tuning run. Relative paths in a YAML file are relative to that file. Raises ConfigError for a bad value.

    None stands for the default that is named below.
    """

    example: ClassVar[str] = "base: qsit-nano"

    base: Text
    """The checkpoint to start from: qsit-nano, qsit-mini, qsit, a folder, or a Hub id."""
    data: Text
    """Rows (.jsonl of ``qsit train convert``, .json of LLaVA's form), or a mixture of such files (.yaml)."""
    images: Text
    """The folder that the rows' image paths are relative to."""
    output: Text
    """A folder for the result, the checkpoints and the records of the run."""
    profile: Text | None = None
    """How ratings are asked and read: a profile's name or file; the checkpoint's own by default. The result has it."""
    scope: Text | None = None
    """What the scores mean, "human ratings" for example; as the profile says by default."""
    scope_kind: Literal["ratings", "distortions", "mixed", "other"] | None = None
    """The same for programs. By default as scope says: ratings for "human ratings", distortions for "synthetic
    distortions", other for any other text; without scope as the profile says."""

    method: Literal["lora", "full"] = "lora"
    parts: Parts | None = None
    """What is trained. By default language for lora, everything for full. With lora the projector is trained as it is,
    without low rank."""
    adapter: Text | None = None
    """Folder of an adapter that lora goes on from, instead of a new one. Its parts, rank, alpha and dropout hold."""
    lora_rank: Annotated[Count, Field(le=4096)] | None = None
    """16. With ``adapter`` these three stay None where they are not given."""
    lora_alpha: Positive | None = None
    """32."""
    lora_dropout: Annotated[Share, Field(le=0.9)] | None = None
    """0.05."""
    load_in_4bit: Flag = False
    """QLoRA: keeps the language model's frozen matrices in 4-bit NormalFloat, by bitsandbytes. For adapters of lora."""
    result: Literal["adapter", "merged"] | None = None
    """adapter (the default for lora) or merged: a whole checkpoint (the only one for full)."""
    result_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Of a merged result's weights; as the base checkpoint's config.json says by default."""

    level_loss: Literal["hard", "soft", "soft+rank"] = "soft"
    """hard: the level word as it stands in the row. soft: its ``level_probs``. soft+rank: and the order of rated images
    of one source in a batch of all devices; refused where no batch has two. Batches that gradient_accumulation adds up
    are not compared."""
    level_weight: Positive = 1.0
    """How much the level token counts against every other token of an answer."""
    rank_weight: Annotated[Number, Field(ge=0, le=1e6)] = 1.0
    normalize: Literal["token", "sample", "task"] = "sample"
    """What counts the same: every token, every sample, or the two tasks (score and interpret)."""

    epochs: Annotated[Count, Field(le=1_000_000)] = 1
    max_steps: Billion | None = None
    """Ends the run after so many steps, whatever the epochs."""
    rows_per_epoch: Billion | None = None
    """All rows by default."""
    shares: Shares | None = None
    """Share of each source (file name without ending) in every epoch; by their numbers of rows by default."""
    batch_size: Many = 1
    """Images at once on each device."""
    gradient_accumulation: Many = 1
    learning_rate: Annotated[Number, Field(gt=0, le=1)] | None = None
    """1e-4 for lora, 1e-5 for full."""
    vision_learning_rate: Share | None = None
    """A fifth of learning_rate."""
    projector_learning_rate: Share | None = None
    """As learning_rate."""
    weight_decay: Share = 0.0
    warmup: Share = 0.03
    """Share of the steps over which the learning rate rises to its value."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    max_grad_norm: Positive = 1.0

    precision: Literal["auto", "float32", "bf16"] = "auto"
    """bf16: computes in bfloat16; what is trained stays in float32, what is frozen is kept in bfloat16. auto: bf16 on
    CUDA, else float32."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    """How attention is computed; transformers' choice by default, sdpa. flash_attention_2 needs flash-attn, CUDA."""
    gradient_checkpointing: Flag = True
    """Computes activations again in the backward pass instead of keeping them: a third slower, far less memory."""
    memory_probe: Flag = True
    """Tries the longest batch before the first step."""
    max_tokens: Count | None = None
    """A longer row stops the run; the model's longest position by default."""
    device: Literal["auto", "cpu"] = "auto"
    workers: Annotated[Whole, Field(ge=0, le=1024)] = 2
    """Processes that open and cut images, on each device."""
    verify_images: Flag = False
    """Decodes every image before the first step; otherwise only its head is read there."""
    skip_damaged: Flag = False
    """Leaves the rows of a damaged image out and counts them, instead of ending the run."""

    validation: Text | None = None
    """Rows or a mixture, as ``data``, on which the model is measured during training; images are below ``images``."""
    validate_every: Count | None = None
    """Steps; at the end of each epoch by default. The last step is always validated."""
    validate_rows: Annotated[Whole, Field(ge=2)] = 200
    """How many of the rows are measured during training, always the same ones; after the last step all."""
    early_stopping: Count | None = None
    """Ends the run after so many validations in a row without a better one."""
    balance: Literal["feedback"] | None = None
    """feedback: after each epoch the share of ratings moves towards the task whose validation loss is too high."""
    balance_lambda: Positive | None = None
    """The score loss divided by the interpret loss that is aimed at: the light model's at its best mixture."""
    balance_step: Annotated[Number, Field(gt=0, le=1)] = 0.05
    """By how much the share of ratings moves at most from one epoch to the next."""
    balance_bounds: Bounds = (0.05, 0.95)
    """Which it never leaves."""
    scoring_sources: Sources | None = None
    """The sources whose share is that of ratings; by default those whose rows are all ratings."""

    seed: Annotated[Whole, Field(ge=0, le=2**32 - 1)] = 0
    save_every: Count = 500
    """Steps from one checkpoint to the next."""
    keep_checkpoints: Count = 2
    log_every: Count = 10
    report_to: Trackers = ()
    """Trackers that get losses and figures, by accelerate; each needs its package."""
    tensorboard: Flag = False
    """True adds tensorboard to ``report_to``."""

    def __post_init__(self) -> None:
        if self.method == "full" and self.result == "adapter":
            raise ConfigError("result is 'adapter', but full fine-tuning has none: take the line out, or method: lora")
        if self.result == "adapter" and self.result_dtype is not None:
            raise ConfigError("result_dtype is that of a merged result: take it out, or give result: merged")
        if self.tensorboard and "tensorboard" not in self.report_to:
            object.__setattr__(self, "report_to", (*self.report_to, "tensorboard"))
        for name, value in LORA.items():
            if self.adapter is None and getattr(self, name) is None:
                object.__setattr__(self, name, value)
        self._check_lora()
        self._check_attention()
        self._check_validation()

    def _check_lora(self) -> None:
        for name in ("adapter", "load_in_4bit"):
            if getattr(self, name) and self.method == "full":
                raise ConfigError(f"{name} is for method: lora, and this is full: give lora, or take {name} out")
        if self.load_in_4bit and self.merged:
            raise ConfigError(
                "load_in_4bit goes with result: adapter: merging would keep the errors of 4 bits. Take result out, and "
                "open the base in full with the adapter: qsit_plugin.load(base, adapter=...)"
            )

    def _check_attention(self) -> None:
        for name, value in (("device", "cpu"), ("precision", "float32")):
            if self.attn_implementation == "flash_attention_2" and getattr(self, name) == value:
                raise ConfigError(
                    f"flash_attention_2 needs CUDA and bf16, and {name} is {value}: give sdpa, or change it"
                )

    def _check_validation(self) -> None:
        if self.validation is None and self.balance is not None:
            raise ConfigError(
                "balance: feedback needs validation, a file of rows (ratings and conversations) on which the losses of "
                "the two tasks are compared"
            )
        for name in ("validate_every", "early_stopping"):
            if self.validation is None and getattr(self, name) is not None:
                raise ConfigError(f"{name} needs validation, a file of rows: give it, or take {name} out")
        if self.balance is None:
            given = [name for name in ("balance_lambda", "scoring_sources") if getattr(self, name) is not None]
            if given:
                raise ConfigError(f"{given[0]} is that of balance: feedback: add this, or take {given[0]} out")
        elif self.balance_lambda is None:
            raise ConfigError(
                "balance: feedback needs balance_lambda above 0: score loss divided by interpret loss of the light "
                "model at its best mixture (qsit train evaluate gives both)"
            )
        low, high = self.balance_bounds
        if not 0 < low < high < 1:
            raise ConfigError(f"balance_bounds is [{low:g}, {high:g}]: give two shares, 0 < low < high < 1")

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
        return to_jsonable_python(self)


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The run that a YAML file describes.

    ``overrides``: ``"learning_rate=1e-5"``, each over the file's own line; values are written as in YAML.

    Raises ConfigError for a missing or malformed file, an unknown or missing key, a value of the wrong kind or out of
    range; ModuleNotFoundError where pyyaml is missing.
    """
    path, absent = Path(path), "no such config file; qsit train configs FOLDER writes examples"
    return _below(read_file(RunConfig, path, overrides, absent), path.parent)


def _below(config: RunConfig, folder: Path) -> RunConfig:
    """Paths relative to the file made relative to the current folder; names of checkpoints and profiles stay."""
    names = ("data", "images", "output", *(("validation",) if config.validation else ()))
    paths: dict[str, Any] = {name: str(folder / getattr(config, name)) for name in names}
    paths |= {
        name: str(folder / value)
        for name in ("base", "adapter")
        if (value := getattr(config, name)) and (folder / value).is_dir()
    }
    if config.profile is not None and (folder / config.profile).exists():
        paths["profile"] = str(folder / config.profile)
    return replace(config, **paths)
