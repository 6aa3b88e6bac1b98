"""Graphs that no export wrote are refused before ONNX Runtime sees them, also under hashes that fit."""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qsit_plugin as qsit
from qsit_plugin.checkpoint.onnx_check import OPERATORS, check_graph
from qsit_plugin.checkpoint.onnx_graph import ACTIVATIONS
from qsit_plugin.checkpoint.onnx_record import _checksum

GRAPHS = ("vision.onnx", "decoder.onnx")


def sign(folder) -> None:
    """Hashes in the record that fit the graphs as they are now."""
    content = json.loads((folder / "onnx.json").read_text(encoding="utf-8"))
    content["graphs"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in GRAPHS}
    del content["checksum"]
    (folder / "onnx.json").write_text(json.dumps(content | {"checksum": _checksum(content)}), encoding="utf-8")


def with_node(model, operator, domain="", **attributes):
    model.graph.node.append(helper.make_node(operator, ["pixels"], ["more"], domain=domain, **attributes))


def with_data_in(model, location):
    tensor = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    model.graph.initializer.append(tensor)


def with_place_alone(model):
    """An external tensor that does not call itself one."""
    with_data_in(model, "weights.bin")
    model.graph.initializer[-1].ClearField("data_location")


def with_loop(model):
    body = helper.make_graph([], "body", [], [])
    with_node(model, "Loop", body=body)


def with_constant(model, size):
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(size, np.float32), "large"))


def with_typed_data(model):
    model.graph.initializer.append(helper.make_tensor("numbers", TensorProto.FLOAT, [2], [1.0, 2.0]))


def with_function(model):
    node = helper.make_node("Identity", ["a"], ["b"])
    model.functions.append(helper.make_function("own", "Mine", ["a"], ["b"], [node], [helper.make_opsetid("", 23)]))


def with_sparse_tensor(model):
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(dims=[2**40]))


CHANGES = {
    "a file of the system": (lambda model: with_data_in(model, "/etc/passwd"), "'outside' lies in another file"),
    "a file above": (lambda model: with_data_in(model, "../../etc/passwd"), "'outside' lies in another file"),
    "a file beside": (lambda model: with_data_in(model, "secret.bin"), "'outside' lies in another file"),
    "a place without a word": (with_place_alone, "'outside' lies in another file"),
    "a domain": (lambda model: model.opset_import.append(helper.make_opsetid("com.evil", 1)), "domain 'com.evil'"),
    "a node's domain": (lambda model: with_node(model, "Add", domain="com.evil"), "a node holds field 7"),
    "an operator": (lambda model: with_node(model, "Tile"), "the operator 'Tile'"),
    "a loop": (with_loop, "the operator 'Loop'|an attribute holds field 6"),
    "a large constant": (lambda model: with_constant(model, 2000), "'large' has 8,000 bytes, more than 4,096"),
    "data beside the bytes": (with_typed_data, "a tensor holds field 4"),
    "a function": (with_function, "the file holds field 25"),
    "a sparse tensor": (with_sparse_tensor, "the graph holds field 15"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_what_no_export_writes_is_refused_with_the_cure_and_without_a_score(small_folder, change, message):
    path = small_folder / "vision.onnx"
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    sign(small_folder)
    with pytest.raises(qsit.WeightsError, match=f"is no graph that was exported here: .*({message}).*weights export"):
        qsit.load(small_folder, engine="onnx")


def test_a_tensor_that_is_given_two_names_is_refused(small_folder):
    """Protobuf takes the last one."""
    content = (small_folder / "vision.onnx").read_bytes()
    names = [tensor.name for tensor in onnx.load_from_string(content).graph.initializer]
    field = b"\x42" + bytes([len(names[0])]) + names[0].encode()
    tensor = field + b"\x42\x01x" + b"\x70\x01"  # named twice, external
    part = b"\x2a" + bytes([len(tensor)]) + tensor
    graph = b"\x3a" + bytes([len(part)]) + part  # merged into the graph before it
    check_graph(content, names)
    with pytest.raises(ValueError, match="says twice what it is"):
        check_graph(content + graph, names)


@pytest.mark.parametrize("content", [b"\xff" * 20, b"\x3a\x7f", b"\x0b", b"\x08" + b"\x80" * 11, b"\x3d"])
def test_bytes_that_are_no_message_are_a_value_error(content):
    with pytest.raises(ValueError):
        check_graph(content, ())


def test_every_operator_that_is_allowed_is_one_that_an_export_writes(nano_folder):
    graphs = [onnx.load(nano_folder / name, load_external_data=False).graph for name in GRAPHS]
    written = {node.op_type for graph in graphs for node in graph.node}
    assert written | {operator for (operator, _), _ in ACTIVATIONS.values()} == OPERATORS


@pytest.mark.skipif(os.name != "posix", reason="a file of zeros takes its room elsewhere")
@pytest.mark.parametrize("name", ["chat_template.json", "vision.onnx", "model.safetensors"])
def test_a_file_that_was_made_huge_is_refused_without_being_read(small_folder, name):
    with (small_folder / name).open("ab") as file:
        file.truncate(2**34)
    if name == "vision.onnx":
        with pytest.raises(qsit.WeightsError, match="17,179,869,184 bytes, where it has at most 16,777,216"):
            qsit.load(small_folder, engine="onnx")
        return
    with pytest.raises(qsit.WeightsError, match="17,179,869,184 bytes, where|model.safetensors is broken"):
        qsit.load(small_folder, engine="onnx")
