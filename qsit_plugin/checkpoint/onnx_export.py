"""Exports a checkpoint's ONNX graphs into its folder: ``vision.onnx``, ``decoder.onnx`` and ``onnx.json``.

Opening the checkpoint for it needs torch and transformers, and makes every load-time check; running the graphs needs
neither. The graphs hold no weights: they are given those of the safetensors files beside them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from qsit_plugin.engines.installed import require_torch
from qsit_plugin.engines.onnx_session import onnxruntime
from qsit_plugin.errors import WeightsError
from qsit_plugin.weights.folder import weight_bytes
from qsit_plugin.weights.headers import stored_tensors

from ..protocol import ATTRIBUTES, EXPLAIN
from .onnx_record import DECODER, FILES, VISION, OnnxRecord, record_of_tiling, source_hash
from .plain_tokenizer import PlainTokenizer

if TYPE_CHECKING:
    from .opening import Checkpoint

LARGEST = 2**32
"""Bytes of the weights in float32. What is larger waits for its memory at every token, and belongs on a GPU."""

TOLERANCE = 1e-4
"""Largest difference of level logits between the two engines at export; rounding gives some 1e-6."""

_TEXTS = (EXPLAIN, *ATTRIBUTES.values(), " Naïve café, 12 345.6 µm:\n\tif (a<=b) // 汉字 🙂", "")


def export_onnx(folder: str | Path) -> list[Path]:
    """Write the graphs of a checkpoint folder and compare them with its torch model; returns the files written.

    Graphs from an earlier export are replaced. Whatever goes wrong leaves none behind.

    Raises:
        ModuleNotFoundError: torch, onnx or onnxruntime is not installed; with the command that installs them.
        WeightsError: the checkpoint cannot be opened, is too large for a CPU in float32, has a setting that has no
            operator here, or its graphs do not give the logits of its torch model.
    """
    _require()
    folder = Path(folder)
    _check_size(folder)
    import torch

    from .opening import open_checkpoint

    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    source = source_hash(folder)
    checkpoint = open_checkpoint(folder, device=torch.device("cpu"), dtype=torch.float32)
    record, graphs = _graphs(checkpoint, source)
    _check_tokenizer(checkpoint, record)
    try:
        for name, content in graphs.items():
            (folder / name).write_bytes(content)
        record.save(folder)  # last: it says that the graphs are there
        _compare(checkpoint)
    except BaseException:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        raise
    return [folder / name for name in FILES]


def _require() -> None:
    require_torch("exporting ONNX graphs")
    try:
        import onnx  # noqa: F401

        onnxruntime()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"exporting ONNX graphs needs {error.name}, which is not installed: pip install onnx onnxruntime",
            name=error.name,
        ) from error


def _check_size(folder: Path) -> None:
    size = sum(tensor.size for tensor in stored_tensors(folder).values()) * 4
    if size > LARGEST:
        raise WeightsError(
            f"{folder} has weights of {size / 1e9:.1f} GB in float32 ({weight_bytes(folder) / 1e9:.1f} GB as stored), "
            f"too many for the ONNX engine, which runs on a CPU: at most {LARGEST / 1e9:.1f} GB. Run it with "
            "engine='torch', in 16 bits or on a GPU"
        )


def _graphs(checkpoint: Checkpoint, source: str) -> tuple[OnnxRecord, dict[str, bytes]]:
    """The record, and the bytes of both graphs by file name."""
    from .onnx_graph import Graph
    from .onnx_language import EMBEDDING, add_language, frequencies_of, head_size
    from .onnx_vision import add_vision

    config, text = checkpoint.model.config, checkpoint.model.config.text_config
    weights = _portable(checkpoint.folder)
    vision, decoder = Graph(weights), Graph(weights)
    graphs = {
        VISION: add_vision(vision, config),
        DECODER: add_language(decoder, config, frequencies_of(checkpoint.model)),
    }
    record = OnnxRecord(
        source=source,
        graphs={name: hashlib.sha256(content).hexdigest() for name, content in graphs.items()},
        weights={VISION: vision.fed, DECODER: decoder.fed},
        embedding=decoder.stored(EMBEDDING),
        newline=decoder.stored("image_newline"),
        layers=text.num_hidden_layers,
        heads=text.num_key_value_heads,
        head_size=head_size(text),
        vocabulary=text.vocab_size,
        context=checkpoint.context,
        image_token=checkpoint.image_token,
        stop_ids=sorted(checkpoint.stop_ids),
        special_tokens=_plain(checkpoint.tokenizer.special_tokens_map),
        chat_template=checkpoint.chat_template,
        tiling=record_of_tiling(checkpoint.tiling),
    )
    return record, graphs


def _portable(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Portable name of every stored tensor -> its name in the files, and its shape."""
    from .saving import portable_name

    found = {}
    for stored, about in stored_tensors(folder).items():
        portable = stored.startswith(("vision_tower.", "language_model.", "multi_modal_projector.", "image_newline"))
        found[stored if portable else portable_name(stored)] = (stored, about.shape)
    return found


def _plain(tokens: Any) -> dict[str, Any]:
    """Special tokens as JSON has them: texts, and lists of texts."""
    return {
        name: [str(one) for one in value] if isinstance(value, list) else str(value) for name, value in tokens.items()
    }


def _check_tokenizer(checkpoint: Checkpoint, record: OnnxRecord) -> None:
    """The tokenizers package alone must give the tokens that transformers gives."""
    path = checkpoint.folder / "tokenizer.json"
    if not path.is_file():
        raise WeightsError(f"{checkpoint.folder} has no tokenizer.json, which the ONNX engine reads; re-save it first")
    plain, own = PlainTokenizer(path, record.special_tokens), checkpoint.tokenizer
    profile = checkpoint.profile
    for text in (profile.question, profile.answer_prefix, *profile.level_words, *_TEXTS, checkpoint.chat_template):
        for special in (True, False):
            ids = own.encode(text, add_special_tokens=special)
            same = plain.encode(text, add_special_tokens=special) == ids
            if not same or plain.decode(ids, True) != own.decode(ids, skip_special_tokens=True):
                raise WeightsError(
                    f"{path} does not tokenise {text[:40]!r} as transformers does with tokenizer_config.json, so that "
                    "the ONNX engine would ask other questions; run this checkpoint with engine='torch'"
                )


def _compare(checkpoint: Checkpoint) -> None:
    """The level logits of one random picture through both engines."""
    from ..engines.level_logits import iter_readings
    from ..model import QSiT
    from .onnx_opening import open_onnx_checkpoint

    tile = checkpoint.tiling.tile
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (tile, 2 * tile, 3), dtype=np.uint8))
    models = QSiT(checkpoint), QSiT(open_onnx_checkpoint(checkpoint.folder))
    torch_logits, logits = (np.array(next(iter_readings(model, [picture])).logits) for model in models)
    gap = float(np.abs(torch_logits - logits).max())
    if not gap <= TOLERANCE:
        raise WeightsError(
            f"the ONNX graphs of {checkpoint.folder} give level logits that are off by {gap:.2g} from those of torch, "
            f"more than {TOLERANCE:g}: they were not kept. Run this checkpoint with engine='torch', and report it"
        )
