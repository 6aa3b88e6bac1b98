"""Opens a checkpoint folder. Everything that would make scores silently wrong is an error here, with its cure.

The checks run on every load; each function says which version of transformers went wrong without it. A healthy
checkpoint loads without a word.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import AutoTokenizer, LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from qsit_plugin.weights.config_limits import check_config, end_ids_problem, refuse_quantized
from qsit_plugin.weights.errors import WeightsError, first_line, refusing, short
from qsit_plugin.weights.fingerprint import UNSAVED, fingerprint
from qsit_plugin.weights.folder import check_folder
from qsit_plugin.weights.headers import stored_tensors
from qsit_plugin.weights.json_file import check_json_files, read_json

from ..chat import stop_ids
from ..engines.installed import check_version
from ..limits import LimitError, limited
from ..protocol import FILE_NAME as PROFILE_NAME
from ..protocol import ScoreProfile, profile_for
from ..template import LONGEST
from ..tiling import Tiling
from . import checks
from .adapter import merge_adapter
from .quantization import quantize

_LOADING = threading.Lock()
"""Held while transformers opens weights: it changes torch's default dtype and initialisers for the whole process, and
of two checkpoints opened at once one was said to miss weights."""

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..engines.torch_engine import TorchEngine


@dataclass
class Checkpoint:
    """An opened checkpoint: everything that is needed to score and to explain."""

    folder: Path
    name: str
    """As the user gave it: a catalogue name, a folder's name, a Hub id."""
    model: LlavaOnevisionForConditionalGeneration
    """In evaluation mode, frozen, on its device, in its dtype."""
    tokenizer: PreTrainedTokenizerBase
    chat_template: str
    tiling: Tiling
    profile: ScoreProfile
    quantization: str | None = None
    """None, or how the language model's weights were reduced; see quantization.py."""
    stored: str = ""
    """Fingerprint of the files that the weights were read from."""

    def __post_init__(self) -> None:
        self._edits = _edits(self.model)

    @property
    def fingerprint(self) -> str:
        """Of the weights: ``stored``, or UNSAVED once they were changed in memory.

        A change is seen where torch counts it (optimizers, ``copy_``, ``load_state_dict``) and where parameters come or
        go (an adapter). Writing through ``weight.data`` in place escapes it.
        """
        return self.stored if _edits(self.model) == self._edits else UNSAVED

    @property
    def image_token(self) -> int:
        """The token in whose place an image's tokens come."""
        return int(self.model.config.image_token_index)

    @property
    def context(self) -> int:
        """Tokens that the language model can read: prompt, image and answer together."""
        return int(self.model.config.text_config.max_position_embeddings)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return stop_ids(self.model, self.tokenizer)

    def engine(self, follow_autocast: bool = False) -> TorchEngine:
        """Runs the model; ``follow_autocast`` as for ``TorchEngine``."""
        from ..engines.torch_engine import TorchEngine

        return TorchEngine(self.model, self.tiling, follow_autocast=follow_autocast)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"stored": self.fingerprint}  # torch counts the changes of a copy from nothing on

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._edits = _edits(self.model)


def open_checkpoint(
    folder: str | Path,
    *,
    name: str | None = None,
    device: torch.device,
    dtype: torch.dtype,
    adapter: str | os.PathLike[str] | None = None,
    profile: ScoreProfile | str | Path | None = None,
    quantization: str | None = None,
    max_tiles: int | None = None,
    max_image_tokens: int | None = None,
    attn_implementation: str | None = "sdpa",
) -> Checkpoint:
    """Open a checkpoint folder, with every load-time check.

    Args:
        adapter: folder of a peft adapter in safetensors, merged into the weights (needs the ``peft`` package). If it
            has a ``qsit.json``, that is the profile: it says how the adapter was trained.
        profile: instead of the folder's own ``qsit.json``; see ``qsit_plugin.protocol.profile_for``.
        quantization: "8bit" or "4bit"; see quantization.py.
        max_tiles, max_image_tokens: limits on what is seen of an image; see limits.py.
        attn_implementation: as transformers takes it: sdpa, eager, flash_attention_2, or None for its own choice.

    Raises:
        LimitError: a limit that this checkpoint's grid cannot keep; raised before the weights are read.
        WeightsError: a file is missing, unsafe or broken, or the model would not be the one that was saved.
        ProfileError: the profile is malformed or does not fit the tokenizer.
    """
    folder = Path(folder)
    check_version("transformers", transformers.__version__)
    check_folder(folder)
    check_json_files(folder)
    content = read_json(folder / "config.json")
    with quiet_transformers():
        with refusing(f"the checkpoint {folder} cannot be opened", LimitError):
            config = read_config(folder, content)
            tokenizer = _open_tokenizer(folder)
            chosen = profile_for(_profile_home(folder, adapter), profile)
            with refusing(f"the tokenizer of {folder} (tokenizer.json, tokenizer_config.json) does not work"):
                checks.check_special_tokens(tokenizer, config)
                chosen.check_tokenizer(tokenizer)
            tiling = limited(_open_tiling(folder, config), max_tiles, max_image_tokens)
            template = find_chat_template(folder, tokenizer)
            checks.check_head(folder, config)
            model = _load(folder, config, dtype, attn_implementation)
            checks.check_rope(content, model)
            if adapter is not None:
                model = merge_adapter(model, adapter)
        if quantization is not None:
            quantize(model, quantization)
    model.eval().requires_grad_(False).to(device)
    checks.check_finite(model, folder)
    stored = fingerprint(folder, adapter)
    name = name or folder.resolve().name
    return Checkpoint(folder, name, model, tokenizer, template, tiling, chosen, quantization, stored)


def _edits(model: torch.nn.Module) -> tuple[int, int]:
    """How many parameters there are, and how often they were changed in place; moving them to a device is no change."""
    versions = [0 if weight.is_inference() else weight._version for weight in model.parameters()]
    return len(versions), sum(versions)


def _profile_home(folder: Path, adapter: str | os.PathLike[str] | None) -> Path:
    return Path(adapter) if adapter is not None and (Path(adapter) / PROFILE_NAME).is_file() else folder


def read_config(folder: Path, content: dict[str, Any] | None = None) -> LlavaOnevisionConfig:
    """The model's config, with sliding windows off and tying as the text model's config says.

    4.45 saved configs without ``sliding_window``, whose default then masked the start of the image away; and the
    published small model says tied in ``text_config`` only, which transformers' versions read differently.
    """
    content = read_json(folder / "config.json") if content is None else content
    if content.get("model_type") != "llava_onevision":
        kind = str(content.get("model_type"))
        cure = "convert it: qsit weights convert" if "llava" in kind else "give another folder"
        raise WeightsError(f"{folder} holds a {short(kind)} model, not llava_onevision (LLaVA-OneVision); {cure}")
    refuse_quantized(content, folder / "config.json")
    check_config(content, folder / "config.json", stored_tensors(folder))
    _check_generation(folder, content)
    checks.check_rope_agrees(content, folder)
    try:
        config = LlavaOnevisionConfig.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers' own validation raises differently in each version
        raise WeightsError(f"{folder / 'config.json'} is not a usable config: {first_line(error)}") from error
    text = config.text_config
    text.sliding_window = None
    text.use_sliding_window = False
    if getattr(text, "layer_types", None):
        text.layer_types = ["full_attention"] * text.num_hidden_layers
    config.tie_word_embeddings = text.tie_word_embeddings = bool(text.tie_word_embeddings)
    return config


def _check_generation(folder: Path, content: dict[str, Any]) -> None:
    """generation_config.json says which tokens end an answer."""
    path = folder / "generation_config.json"
    vocabulary = (content.get("text_config") or {}).get("vocab_size", 151936)
    problem = end_ids_problem(read_json(path).get("eos_token_id"), vocabulary) if path.is_file() else None
    if problem is not None:
        raise WeightsError(f"{path}: eos_token_id {problem}; copy the file again from where the checkpoint was made")


def find_chat_template(folder: Path, tokenizer: PreTrainedTokenizerBase) -> str:
    """From chat_template.jinja, chat_template.json, processor_config.json or the tokenizer, in this order."""
    found: Any = _jinja_file(folder)
    for name in ("chat_template.json", "processor_config.json"):
        if not found and (folder / name).is_file():
            found = read_json(folder / name).get("chat_template")
    found = found or tokenizer.chat_template
    if isinstance(found, dict):
        found = found.get("default")
    if not isinstance(found, str) or not found:
        raise WeightsError(
            f"{folder} has no chat template, so its prompt is unknown; copy chat_template.jinja or chat_template.json "
            "from the checkpoint it was made from"
        )
    return found


def _jinja_file(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    if not path.is_file():
        return None
    if path.stat().st_size > 4 * LONGEST:  # characters take up to four bytes
        raise WeightsError(f"{path} has {path.stat().st_size:,} bytes; at most {LONGEST:,} characters are read")
    with refusing(f"{path} cannot be read"):
        return path.read_text(encoding="utf-8")


def read_preprocessor(folder: str | Path) -> dict[str, Any]:
    """The image processor's settings, and ``vision_aspect_ratio`` and ``num_image_tokens`` of the processor around it.

    Transformers 5 nests them in processor_config.json, where 4.x wrote preprocessor_config.json.
    """
    folder = Path(folder)
    outer = read_json(folder / "processor_config.json") if (folder / "processor_config.json").is_file() else {}
    if (folder / "preprocessor_config.json").is_file():
        image = read_json(folder / "preprocessor_config.json")
    elif isinstance(outer.get("image_processor"), dict):
        image = outer["image_processor"]
    else:
        raise WeightsError(f"{folder} has no preprocessor_config.json; copy it from the checkpoint it was made from")
    return {**image, **{key: outer[key] for key in ("vision_aspect_ratio", "num_image_tokens") if key in outer}}


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no warnings of transformers inside; its settings are as before afterwards."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _open_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    _jinja_file(folder)  # the tokenizer reads it too, and would be blamed for it
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # what a wrong file raises differs by tokenizer class and version; panics: refusing
        raise WeightsError(
            f"the tokenizer of {folder} does not load on transformers {transformers.__version__} "
            f"({first_line(error)}). If another generation of transformers saved it, {checks.RESAVE}; else copy "
            "tokenizer.json and tokenizer_config.json again"
        ) from error


def _open_tiling(folder: Path, config: LlavaOnevisionConfig) -> Tiling:
    try:
        return Tiling.from_configs(config, read_preprocessor(folder))
    except WeightsError:
        raise
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:  # a setting of another type
        what = (
            first_line(error)
            if isinstance(error, ValueError)
            else f"preprocessor_config.json has a setting of another type ({first_line(error)})"
        )
        raise WeightsError(f"{folder}: {what}. Copy both files from the checkpoint they were trained in") from error


def _load(
    folder: Path, config: LlavaOnevisionConfig, dtype: torch.dtype, attn_implementation: str | None
) -> LlavaOnevisionForConditionalGeneration:
    try:
        # transformers 4.57 draws image_newline at random before it is read
        with _LOADING, torch.random.fork_rng(devices=[]):
            model, report = LlavaOnevisionForConditionalGeneration.from_pretrained(
                str(folder),
                config=config,
                dtype=dtype,
                attn_implementation=attn_implementation,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # building the model raises what its settings run into, in each version something else
        raise WeightsError(
            f"the weights of {folder} do not load ({type(error).__name__}: {first_line(error)}); the file is broken or "
            "belongs to another config: download or copy the checkpoint again"
        ) from error
    faults = [_listed(report, "missing_keys", "missing"), _listed(report, "unexpected_keys", "unexpected")]
    faults += [_listed(report, "mismatched_keys", "of another shape")]
    if any(faults):
        raise WeightsError(
            f"the weights of {folder} are not those of its config: {'; '.join(filter(None, faults))}. Missing ones "
            f"would be random. If another generation of transformers saved it, {checks.RESAVE}; else copy it again"
        )
    if config.text_config.tie_word_embeddings:
        checks.check_tied(model)
    return model


def _listed(report: dict[str, Any], key: str, word: str) -> str:
    names = sorted(str(item[0] if isinstance(item, tuple) else item) for item in report.get(key) or ())
    return f"{len(names)} {word} (first: {names[0]})" if names else ""
