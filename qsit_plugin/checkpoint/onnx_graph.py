"""An ONNX graph under construction: nodes as they are added, and weights by name and shape alone.

Weights are never written into a graph: it declares each under the name that it has in the checkpoint's safetensors
files, and whoever opens the graph gives the values (``engines/onnx_session.py``). So a graph has some tens of
kilobytes, and the weights are stored once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qsit_plugin.errors import WeightsError

OPSET = 23
"""The first with the operators Attention, RMSNormalization and RotaryEmbedding."""

IR_VERSION = 11
"""Of the file format that came with opset 23. onnx writes its newest by default, which older runtimes do not read."""

ACTIVATIONS: dict[str, tuple[tuple[str, dict[str, Any]], bool]] = {
    "gelu": (("Gelu", {"approximate": "none"}), False),
    "gelu_pytorch_tanh": (("Gelu", {"approximate": "tanh"}), False),
    "gelu_new": (("Gelu", {"approximate": "tanh"}), False),
    "relu": (("Relu", {}), False),
    "silu": (("Sigmoid", {}), True),
    "swish": (("Sigmoid", {}), True),
}
"""transformers' name -> (operator, attributes), and whether its result is multiplied with its input."""


class Graph:
    """Operators in the order in which they are called; every method returns the name of its result."""

    def __init__(self, weights: Mapping[str, tuple[str, tuple[int, ...]]]):
        """``weights``: the portable name of a tensor (see ``saving.portable_name``) -> its name in the files, and its
        shape."""
        self._stored = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._constants = 0
        self.fed: list[str] = []
        """Names, as in the files, of the weights that must be given when the graph is opened."""

    def add(self, operator: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """One operator; ``outputs`` names its results, where more than the first is needed."""
        names = list(outputs) or [f"{operator}_{len(self._nodes)}"]
        self._nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names[0]

    def constant(self, values: Any, dtype: type = np.int64) -> str:
        """A small array that stands in the graph itself: shapes, axes, rotary frequencies."""
        name = f"constant_{self._constants}"
        self._constants += 1
        self._initializers[name] = numpy_helper.from_array(np.asarray(values, dtype), name)
        return name

    def stored(self, name: str) -> str:
        """A tensor's name in the files. Raises WeightsError where they hold none of this portable name."""
        if name not in self._stored:
            raise WeightsError(
                f"the weights hold no {name}: re-save the checkpoint with qsit_plugin.checkpoint.save_portable first"
            )
        return self._stored[name][0]

    def weight(self, name: str) -> str:
        """A float32 tensor of the checkpoint. Raises WeightsError as ``stored`` does."""
        stored = self.stored(name)
        if stored not in self._initializers:
            tensor = TensorProto(name=stored, data_type=TensorProto.FLOAT, dims=self._stored[name][1])
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="model.safetensors")
            self._initializers[stored] = tensor
            self.fed.append(stored)
        return stored

    def linear(self, states: str, name: str) -> str:
        """(N, inputs) -> (N, outputs), with a bias where the files hold one."""
        bias = [self.weight(f"{name}.bias")] if f"{name}.bias" in self._stored else []
        return self.add("Gemm", states, self.weight(f"{name}.weight"), *bias, transB=1)

    def activation(self, states: str, name: str) -> str:
        """Raises WeightsError for an activation that has no operator here."""
        if name not in ACTIVATIONS:
            raise WeightsError(f"the activation {name!r} cannot be exported; those that can: {', '.join(ACTIVATIONS)}")
        (operator, attributes), gates = ACTIVATIONS[name]
        found = self.add(operator, states, **attributes)
        return self.add("Mul", states, found) if gates else found

    def reshape(self, states: str, shape: Sequence[int]) -> str:
        """0 keeps a dimension, -1 takes what is left."""
        return self.add("Reshape", states, self.constant(shape))

    def model(self, inputs: Mapping[str, tuple[int, list[Any]]], outputs: Mapping[str, list[Any]]) -> bytes:
        """The file. ``inputs``: name -> element type and shape, ``outputs``: name -> shape of float32; a dimension that
        is a text may have any length."""
        graph = helper.make_graph(
            self._nodes,
            "qsit",
            [helper.make_tensor_value_info(name, *about) for name, about in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            initializer=list(self._initializers.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        return model.SerializeToString(deterministic=True)
