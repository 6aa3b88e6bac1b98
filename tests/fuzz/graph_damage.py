"""Damages of ONNX graphs that are still graphs: data outside the folder, foreign operators, endless loops, numbers out
of range. What changed is written back under hashes that fit, as whoever makes such a file would do."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qsit_plugin.checkpoint.onnx_record import DECODER, VISION, _checksum, source_hash
from qsit_plugin.errors import WeightsError

from .byte_damage import EXTREMES
from .case import Damage

GRAPHS = (VISION, DECODER)
SIGNED = "(signed)"
OUTSIDE = "outside.bin"
"""A file beside the checkpoint's folder, 4 MB of zeros."""


def signed(damage: Damage) -> Damage:
    """The same damage, with hashes in ``onnx.json`` that fit what it left behind."""

    def apply(folder: Path, rng: random.Random) -> None:
        damage.apply(folder, rng)
        sign(folder)

    return Damage(f"{damage.label} {SIGNED}", apply)


def sign(folder: Path) -> None:
    """Write the hashes of the graphs, of their checkpoint and of the record itself, as far as these can be read."""
    path = folder / "onnx.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["graphs"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in GRAPHS}
        content["source"] = source_hash(folder)
        content.pop("checksum", None)
        path.write_text(json.dumps(content | {"checksum": _checksum(content)}), encoding="utf-8")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, WeightsError):
        return  # nothing is left that could be signed


def structure_damages() -> list[Damage]:
    """Each hostile change of each graph."""
    return [
        Damage(f"{name}: {kind}", partial(_edit, name, change)) for name in GRAPHS for kind, change in _CHANGES.items()
    ]


def attribute_damages() -> list[Damage]:
    """Each operator's attributes, one node of it, with a number out of range."""
    damages = []
    for name in GRAPHS:
        graph = onnx.load(_packaged() / name, load_external_data=False).graph
        places = {(node.op_type, attribute.name) for node in graph.node for attribute in node.attribute}
        for operator, attribute in sorted(places):
            damages += [
                Damage(
                    f"{name}: {operator}.{attribute} = {value}",
                    partial(_edit, name, partial(_attribute, operator, attribute, value)),
                )
                for value in (*EXTREMES, -(2**31), 2**62)
            ]
    return damages


def constant_damages() -> list[Damage]:
    """A number of one of the small arrays (shapes, axes, bounds) is an extreme one."""
    values = (*EXTREMES, -(2**63), 2**40, 2**62)
    return [
        Damage(f"{name}: a constant = {value}", partial(_edit, name, partial(_constant, value)))
        for name in GRAPHS
        for value in values
        for _ in range(3)
    ]


def other_graphs() -> list[Damage]:
    """Graphs and records that belong to something else."""
    kinds: dict[str, Callable[[Path, random.Random], Any]] = {
        "the graphs are swapped": _swapped,
        "both graphs are the vision tower": partial(_both, VISION),
        "both graphs are the decoder": partial(_both, DECODER),
        "a graph without nodes": _empty,
    }
    return [Damage(kind, apply) for kind, apply in kinds.items()]


def _packaged() -> Path:
    from tests.conftest import NANO

    return NANO


def _edit(name: str, change: Callable[[Any, random.Random], Any], folder: Path, rng: random.Random) -> None:
    path = folder / name
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # another damage came before and left no graph
        return
    (folder.parent / OUTSIDE).write_bytes(bytes(4 * 2**20))
    change(model, rng)
    path.write_bytes(model.SerializeToString())


def _swapped(folder: Path, _: random.Random) -> None:
    contents = [(folder / name).read_bytes() for name in GRAPHS]
    for name, content in zip(GRAPHS, reversed(contents), strict=True):
        (folder / name).write_bytes(content)


def _both(name: str, folder: Path, _: random.Random) -> None:
    for other in GRAPHS:
        (folder / other).write_bytes((folder / name).read_bytes())


def _empty(folder: Path, _: random.Random) -> None:
    graph = helper.make_graph([], "empty", [], [])
    (folder / DECODER).write_bytes(helper.make_model(graph).SerializeToString())


def _attribute(operator: str, name: str, value: int, model: Any, rng: random.Random) -> None:
    nodes = [node for node in model.graph.node if node.op_type == operator]
    for attribute in rng.choice(nodes).attribute:
        if attribute.name == name and attribute.type == onnx.AttributeProto.FLOAT:
            attribute.f = float(value)
        elif attribute.name == name and attribute.type == onnx.AttributeProto.INTS:
            attribute.ints[rng.randrange(len(attribute.ints))] = value
        elif attribute.name == name:
            attribute.i = value


def _constant(value: int, model: Any, rng: random.Random) -> None:
    inline = [one for one in model.graph.initializer if one.data_location != TensorProto.EXTERNAL]
    tensor = rng.choice(inline)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[rng.randrange(array.size)] = value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _external(location: str, model: Any, rng: random.Random, **more: str) -> None:
    """A weight that no one gives: added to the first weight's user, so that the graph needs it."""
    fed = next(
        one for one in model.graph.initializer if one.data_location == TensorProto.EXTERNAL and len(one.dims) == 1
    )
    tensor = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=list(fed.dims))
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)
    _insert(model, helper.make_node("Add", [fed.name, "outside"], ["sum"]), fed.name, "sum")


def _insert(model: Any, node: Any, replaced: str, by: str) -> None:
    """A node at the beginning, whose result every other node takes in the place of a tensor."""
    for other in model.graph.node:
        other.input[:] = [by if name == replaced else name for name in other.input]
    model.graph.node.insert(0, node)


def _foreign(domain: str, operator: str, model: Any, _: random.Random) -> None:
    model.opset_import.append(helper.make_opsetid(domain, 1))
    first = model.graph.input[0].name
    _insert(model, helper.make_node(operator, [first], ["foreign"], domain=domain), first, "foreign")


def _operator(operator: str, model: Any, _: random.Random, **attributes: Any) -> None:
    first = model.graph.input[0].name
    _insert(model, helper.make_node(operator, [first], ["other"], **attributes), first, "other")


def _filled(dims: Sequence[int], model: Any, _: random.Random) -> None:
    """A tensor of this shape is computed and added to the input."""
    model.graph.initializer.append(numpy_helper.from_array(np.array(dims, np.int64), "dims"))
    first = model.graph.input[0].name
    made = helper.make_node("ConstantOfShape", ["dims"], ["filled"])
    total = helper.make_node("ReduceSum", ["filled"], ["total"], keepdims=0)
    _insert(model, helper.make_node("Add", [first, "total"], ["more"]), first, "more")
    model.graph.node.insert(0, total)
    model.graph.node.insert(0, made)


def _doubled(times: int, model: Any, _: random.Random) -> None:
    """The input, joined with itself again and again, and cut to what it was."""
    first, nodes, name = model.graph.input[0].name, [], "begin"
    nodes.append(helper.make_node("Identity", [first], [name]))
    for number in range(times):
        nodes.append(helper.make_node("Concat", [name, name], [f"double_{number}"], axis=0))
        name = f"double_{number}"
    nodes.append(helper.make_node("ReduceMean", [name], ["mean"], keepdims=0))
    nodes.append(helper.make_node("Add", [first, "mean"], ["more"]))
    for other in model.graph.node:
        other.input[:] = ["more" if one == first else one for one in other.input]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def _loop(model: Any, _: random.Random) -> None:
    """A loop that ends after 2**62 turns."""
    number, go = (helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("go", 9)))
    inside = [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Identity", ["x"], ["y"])]
    values = [helper.make_tensor_value_info(name, 1, None) for name in "xy"]
    body = helper.make_graph(
        inside, "body", [number, go, values[0]], [helper.make_tensor_value_info("still", 9, []), values[1]]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(2**62), "turns"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "begin"))
    first = model.graph.input[0].name
    _insert(model, helper.make_node("Loop", ["turns", "begin", first], ["looped"], body=body), first, "looped")


def _function(model: Any, _: random.Random) -> None:
    node = helper.make_node("Identity", ["a"], ["b"])
    function = helper.make_function("own", "Mine", ["a"], ["b"], [node], [helper.make_opsetid("", 23)])
    model.functions.append(function)
    _foreign("own", "Mine", model, _)


def _cycle(model: Any, _: random.Random) -> None:
    first, last = model.graph.node[0], model.graph.node[-1]
    first.input[0] = last.output[0]


def _many(model: Any, _: random.Random) -> None:
    first = model.graph.input[0].name
    nodes = [helper.make_node("Neg", [first if n == 0 else f"n{n}"], [f"n{n + 1}"]) for n in range(20_000)]
    model.graph.node.extend(nodes)


def _initializer(change: Callable[[Any], Any], model: Any, rng: random.Random) -> None:
    change(rng.choice(list(model.graph.initializer)))


def _header(change: Callable[[Any], Any], model: Any, _: random.Random) -> None:
    change(model)


_CHANGES: dict[str, Callable[[Any, random.Random], Any]] = {
    "data in ../../etc/passwd": partial(_external, "../../etc/passwd"),
    "data in /etc/passwd": partial(_external, "/etc/passwd"),
    "data in a file beside the folder": partial(_external, f"../{OUTSIDE}"),
    "data in the weights, at their beginning": partial(_external, "model.safetensors", offset="0"),
    "data beyond the weights": partial(_external, "model.safetensors", offset=str(2**62)),
    "data at a negative offset": partial(_external, "model.safetensors", offset="-1000"),
    "data of a negative length": partial(_external, "model.safetensors", length="-5"),
    "data in a file of an empty name": partial(_external, ""),
    "data in a pipe": partial(_external, "/dev/zero" if os.name == "posix" else "nul"),
    "data at an address in memory": partial(_external, "*/_ORT_MEM_ADDR_/*", offset="4096", length="768"),
    "an operator of a domain of its own": partial(_foreign, "com.evil", "Run"),
    "an operator of onnxruntime's own": partial(_foreign, "com.microsoft", "Gelu"),
    "an operator of ai.onnx.ml": partial(_foreign, "ai.onnx.ml", "Normalizer"),
    "an operator that does not exist": partial(_operator, "Surprise"),
    "an operator of the standard that no export uses": partial(_operator, "Sin"),
    "a tensor of 2**50 numbers": partial(_filled, [2**50]),
    "a tensor of 2**36 numbers": partial(_filled, [2**18, 2**18]),
    "a tensor of -1 numbers": partial(_filled, [-1]),
    "a tensor of 200 axes": partial(_filled, [1] * 200),
    "the input doubled 40 times": partial(_doubled, 40),
    "a loop of 2**62 turns": _loop,
    "a function": _function,
    "a cycle": _cycle,
    "twenty thousand nodes": _many,
    "a weight of 2**40 by 2**40": partial(_initializer, lambda one: one.dims.extend([2**40, 2**40])),
    "a weight of a negative size": partial(_initializer, lambda one: one.dims.extend([-1])),
    "a weight of a thousand axes": partial(_initializer, lambda one: one.dims.extend([1] * 1000)),
    "a weight without a shape": partial(_initializer, lambda one: one.ClearField("dims")),
    "a weight of texts": partial(_initializer, lambda one: setattr(one, "data_type", TensorProto.STRING)),
    "a weight of an unknown type": partial(_initializer, lambda one: setattr(one, "data_type", 999)),
    "a weight of another name": partial(_initializer, lambda one: setattr(one, "name", "else")),
    "a weight of a long name": partial(_initializer, lambda one: setattr(one, "name", "x" * 10**6)),
    "opset 99": partial(_header, lambda model: setattr(model.opset_import[0], "version", 99)),
    "opset 1": partial(_header, lambda model: setattr(model.opset_import[0], "version", 1)),
    "no opset": partial(_header, lambda model: model.ClearField("opset_import")),
    "version 99 of the format": partial(_header, lambda model: setattr(model, "ir_version", 99)),
    "no outputs": partial(_header, lambda model: model.graph.ClearField("output")),
    "no inputs": partial(_header, lambda model: model.graph.ClearField("input")),
    "no nodes": partial(_header, lambda model: model.graph.ClearField("node")),
    "no weights": partial(_header, lambda model: model.graph.ClearField("initializer")),
}
