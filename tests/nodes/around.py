"""Small nodes that tests put around ours, for either host. Imported once a host is there: they need its interface."""

from __future__ import annotations

from comfy_api.latest import io

from tests.nodes.helpers import ARRIVED, IMAGES, RAN


class Give(io.ComfyNode):
    """Gives IMAGES[label]; a list is given item by item."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Test_Give",
            category="test",
            inputs=[io.String.Input("label")],
            outputs=[io.AnyType.Output("value", is_output_list=True)],
        )

    @classmethod
    def fingerprint_inputs(cls, label):
        return str(id(IMAGES[label]))

    @classmethod
    def execute(cls, label):
        RAN.append(label)
        value = IMAGES[label]
        return io.NodeOutput(value if isinstance(value, list) else [value])


class Keep(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Test_Keep",
            category="test",
            is_output_node=True,
            inputs=[io.AnyType.Input("value"), io.String.Input("label")],
            outputs=[],
        )

    @classmethod
    def execute(cls, value, label):
        ARRIVED.setdefault(label, []).append(value)
        return io.NodeOutput()
