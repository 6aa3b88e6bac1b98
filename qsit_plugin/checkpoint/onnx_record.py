"""``onnx.json``: what a checkpoint's ONNX graphs were exported from, and all that running them needs beside them.

It lies beside ``vision.onnx`` and ``decoder.onnx`` in the checkpoint's folder. Settings stand in it as transformers
resolved them when the graphs were exported, so that nothing has to read them a second way. Its hash covers every
file that they follow from: once one has changed, the graphs belong to another checkpoint. Imports neither torch nor
transformers nor onnxruntime.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qsit_plugin.tiling import Tiling
from qsit_plugin.weights.config_limits import is_whole
from qsit_plugin.weights.errors import WeightsError, refusing
from qsit_plugin.weights.fingerprint import fingerprint
from qsit_plugin.weights.json_file import LARGEST_VOCABULARY, read_json

from .onnx_check import check_graph

FILE_NAME = "onnx.json"
VISION, DECODER = "vision.onnx", "decoder.onnx"
FILES = (VISION, DECODER, FILE_NAME)
FORMAT = 1

LARGEST_GRAPH = 16 * 2**20
"""Bytes of a graph; one of 28 layers has some 200 kB."""

SOURCES = (
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "chat_template.json", "qsit.json",
)  # fmt: skip
"""Files beside the weights from which a score or an answer follows."""


@dataclass(frozen=True)
class OnnxRecord:
    """The content of ``onnx.json``."""

    source: str
    """SHA-256 over the weights' fingerprint and the files of ``SOURCES``."""
    graphs: dict[str, str]
    """Name of a graph's file -> SHA-256 of its bytes."""
    weights: dict[str, list[str]]
    """Name of a graph's file -> names of the tensors that it is given, as in the safetensors files."""
    embedding: str
    newline: str
    """Names of the token table (V, D) and of the newline (D,) that ends a row of image tokens."""
    layers: int
    heads: int
    head_size: int
    """Of the KV cache: layers, key-value heads, numbers of one head."""
    vocabulary: int
    context: int
    """Tokens that the language model can read."""
    image_token: int
    stop_ids: list[int]
    """Tokens that end an answer."""
    special_tokens: dict[str, Any]
    """The tokenizer's ``special_tokens_map``, of which chat templates use the names."""
    chat_template: str
    tiling: dict[str, Any]
    """The fields of a ``Tiling`` without limits."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        counts = (self.layers, self.heads, self.head_size, self.vocabulary, self.context)
        if not all(is_whole(count, 1) for count in counts):
            raise ValueError(f"layers, heads, head_size, vocabulary and context must be whole numbers, got {counts}")
        if not all(is_whole(token, 0, self.vocabulary) for token in (self.image_token, *self.stop_ids)):
            raise ValueError("image_token and stop_ids must be tokens of the vocabulary")
        texts = (self.embedding, self.newline, self.chat_template)
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.special_tokens, dict):
            raise ValueError("embedding, newline and chat_template must be text, special_tokens an object")
        if set(self.graphs) != {VISION, DECODER} or set(self.weights) != {VISION, DECODER}:
            raise ValueError(f"graphs and weights must be those of {VISION} and {DECODER}")

    def read_tiling(self) -> Tiling:
        """Raises ValueError for one that cannot be used."""
        points = tuple(tuple(point) for point in self.tiling["grid_points"])
        three = {name: tuple(self.tiling[name]) for name in ("mean", "std")}
        return Tiling(**{**self.tiling, "grid_points": points, **three})

    def save(self, folder: Path) -> None:
        content = asdict(self)
        content["checksum"] = _checksum(content)
        (folder / FILE_NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _checksum(content: dict[str, Any]) -> str:
    """SHA-256 of a record without its own: a number that changed in the file would change scores without a word."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def record_of_tiling(tiling: Tiling) -> dict[str, Any]:
    """The fields of a tiling as they are recorded."""
    return {name: value for name, value in asdict(replace(tiling)).items() if not name.endswith("_limit")}


def source_hash(folder: Path) -> str:
    """SHA-256 over all that the graphs of a checkpoint follow from; milliseconds for nano, and for large ones also, as
    the weights count by their fingerprint. Raises WeightsError for weights that are missing or broken."""
    total = hashlib.sha256(fingerprint(folder).encode())
    for name in SOURCES:
        path = folder / name
        if path.is_file():
            content = _read(path, LARGEST_VOCABULARY)
            total.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return total.hexdigest()


def _read(path: Path, largest: int) -> bytes:
    """Raises WeightsError for a file that cannot be read, or is larger than such a file ever is."""
    with refusing(f"{path} cannot be read"):
        size = path.stat().st_size
        if size > largest:
            raise ValueError(f"{size:,} bytes, where it has at most {largest:,}")
        return path.read_bytes()


def has_graphs(folder: Path) -> bool:
    """Whether graphs were exported for this folder; not whether they still fit it."""
    return all((folder / name).is_file() for name in FILES)


def read_record(folder: Path) -> OnnxRecord:
    """The record of a folder whose graphs still belong to it.

    Raises:
        WeightsError: no graphs, a record that cannot be read, or a checkpoint that has changed since the export.
    """
    cure = f"run: qsit weights export {folder} --onnx"
    if not has_graphs(folder):
        raise WeightsError(f"{folder} has no ONNX graphs ({FILE_NAME}, {VISION}, {DECODER}); {cure}")
    content = read_json(folder / FILE_NAME)
    if content.get("format") != FORMAT:
        raise WeightsError(f"{folder / FILE_NAME} was written by another version of qsit-plugin; {cure}")
    if content.pop("checksum", None) != _checksum(content):
        raise WeightsError(f"{folder / FILE_NAME} was changed or damaged since it was written; {cure}")
    with refusing(f"{folder / FILE_NAME} is no record of an export"):
        record = OnnxRecord(**content)
        record.read_tiling()
    if record.source != source_hash(folder):
        raise WeightsError(
            f"the ONNX graphs of {folder} do not belong to it: its weights, config, tokenizer or profile have changed "
            f"since they were exported; {cure}"
        )
    return record


def read_graph(folder: Path, record: OnnxRecord, name: str) -> bytes:
    """The bytes of a graph.

    Raises WeightsError for another file than the one that was exported, and for one that no export wrote.
    """
    path, cure = folder / name, f"run: qsit weights export {folder} --onnx"
    content = _read(path, LARGEST_GRAPH)
    if hashlib.sha256(content).hexdigest() != record.graphs[name]:
        raise WeightsError(f"{path} is not the graph that {FILE_NAME} describes; {cure}")
    try:
        check_graph(content, record.weights[name])
    except ValueError as error:
        raise WeightsError(f"{path} is no graph that was exported here: {error}; {cure}") from error
    return content
