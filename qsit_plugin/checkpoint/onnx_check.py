"""What may stand in an ONNX graph of a checkpoint: what an export writes, and nothing else.

A checkpoint is untrusted, and whoever writes a graph can also write hashes that fit it. ONNX Runtime knows hundreds of
operators, loops among them, and tensors whose data lies in any file; it is given none of these. Read here with a few
lines of protobuf's wire format, since the package onnx is not needed to run a graph.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from qsit_plugin.weights.errors import short

OPERATORS = frozenset(
    {
        "Add", "Attention", "Cast", "Concat", "Conv", "Cos", "Expand", "Gelu", "Gemm", "LayerNormalization", "Mul",
        "RMSNormalization", "Relu", "Reshape", "RotaryEmbedding", "Shape", "Sigmoid", "Sin", "Slice", "Transpose",
        "Unsqueeze",
    }
)  # fmt: skip
"""Of ONNX's own domain; those of ``onnx_language.py``, ``onnx_vision.py`` and ``onnx_graph.ACTIVATIONS``."""

LARGEST_CONSTANT = 4096
"""Bytes of a tensor that stands in the graph itself: shapes, axes, rotary frequencies."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types

# Fields of ONNX's messages by their number: those that an export writes.
_MODEL = {1: "version of the format", 7: "graph", 8: "operator set"}
_OPERATOR_SET = {1: "domain", 2: "version"}
_GRAPH = {1: "node", 2: "name", 5: "tensor", 11: "input", 12: "output"}
_NODE = {1: "input", 2: "output", 4: "operator", 5: "attribute"}
_ATTRIBUTE = {1: "name", 2: "float", 3: "integer", 4: "text", 8: "integers", 20: "type"}
_TENSOR = {1: "dimensions", 2: "type", 8: "name", 9: "data", 13: "place of the data", 14: "external"}


def check_graph(content: bytes, given: Collection[str]) -> None:
    """Raise ValueError for a graph that holds what no export writes: other operators, graphs inside of nodes,
    functions, operators of other domains, large constants, or external data that is not ``given``, the weights by name.

    What this passes may still be no valid graph; ONNX Runtime says so.
    """
    for part, value in _fields(content, _MODEL, "the file"):
        if part == "operator set":
            _check_operator_set(value)
        elif part == "graph":
            for inner, message in _fields(value, _GRAPH, "the graph"):
                if inner == "node":
                    _check_node(message)
                elif inner == "tensor":
                    _check_tensor(message, given)


def _check_operator_set(message: bytes) -> None:
    for part, value in _fields(message, _OPERATOR_SET, "an operator set"):
        if part == "domain" and value:
            raise ValueError(f"it uses operators of the domain {short(value.decode(errors='replace'))}")


def _check_node(message: bytes) -> None:
    for part, value in _fields(message, _NODE, "a node"):
        if part == "operator" and value.decode(errors="replace") not in OPERATORS:
            raise ValueError(f"it uses the operator {short(value.decode(errors='replace'))}, which no export writes")
        if part == "attribute":
            for _ in _fields(value, _ATTRIBUTE, "an attribute"):
                pass


def _check_tensor(message: bytes, given: Collection[str]) -> None:
    parts = list(_fields(message, _TENSOR, "a tensor"))
    found = dict(parts)
    if any(sum(part == once for part, _ in parts) > 1 for once in ("name", "type", "external", "data")):
        raise ValueError("a tensor says twice what it is")
    name, outside = found.get("name", b"").decode(errors="replace"), "external" in found or "place of the data" in found
    if outside and name not in given:
        raise ValueError(f"its tensor {short(name)} lies in another file, and is no weight of the checkpoint")
    if len(found.get("data", b"")) > LARGEST_CONSTANT:
        raise ValueError(f"its tensor {short(name)} has {len(found['data']):,} bytes, more than {LARGEST_CONSTANT:,}")


def _fields(message: bytes, known: dict[int, str], what: str) -> Iterator[tuple[str, bytes]]:
    """Each field's name and bytes; nothing for a number. Raises ValueError for a field that is not known, and for bytes
    that are no message."""
    place = 0
    while place < len(message):
        key, place = _number(message, place)
        field, wire = key >> 3, key & 7
        if field not in known:
            raise ValueError(f"{what} holds field {field}, which no export writes")
        value = b""
        if wire == _VARINT:
            _, place = _number(message, place)
        elif wire in (_FIXED32, _FIXED64):
            place += 4 if wire == _FIXED32 else 8
        elif wire == _BYTES:
            length, place = _number(message, place)
            value = message[place : place + length]
            place += length
        else:
            raise ValueError(f"{what} is no message of protobuf")
        if place > len(message):
            raise ValueError(f"{what} ends too early")
        yield known[field], value


def _number(message: bytes, place: int) -> tuple[int, int]:
    """A number of up to ten bytes, seven bits each, and where it ends."""
    found = 0
    for count in range(10):
        if place + count >= len(message):
            raise ValueError("a number ends too early")
        byte = message[place + count]
        found |= (byte & 127) << 7 * count
        if byte < 128:
            return found, place + count + 1
    raise ValueError("a number has more than ten bytes")
