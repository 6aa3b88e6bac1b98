"""comfy_api.latest as far as the pack uses it, with the arguments of ComfyUI 0.3.64 and no others.

An argument that only a newer ComfyUI knows is a TypeError here, as it is there, where the whole pack then disappears.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image


class ExecutionBlocker:
    def __init__(self, message: str | None):
        self.message = message


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


class Input:
    def __init__(self, id, display_name=None, optional=False, tooltip=None, lazy=None, extra_dict=None):
        self.id, self.display_name, self.optional, self.tooltip, self.lazy = id, display_name, optional, tooltip, lazy
        self.limits: dict[str, Any] = {}
        self.default = None


class Output:
    def __init__(self, id=None, display_name=None, tooltip=None, is_output_list=False):
        self.id, self.display_name, self.tooltip, self.is_output_list = id, display_name, tooltip, is_output_list


def Custom(io_type: str) -> Any:
    """Sockets without a widget."""
    return _type(io_type, Input)


def _type(io_type: str, base: type[Input]) -> Any:
    return SimpleNamespace(
        io_type=io_type,
        Input=type("Input", (base,), {"io_type": io_type}),
        Output=type("Output", (Output,), {"io_type": io_type}),
    )


class _Boolean(Input):
    def __init__(
        self,
        id,
        display_name=None,
        optional=False,
        tooltip=None,
        lazy=None,
        default=None,
        label_on=None,
        label_off=None,
        socketless=None,
        force_input=None,
    ):
        super().__init__(id, display_name, optional, tooltip, lazy)
        self.default = default


class _Int(Input):
    def __init__(
        self,
        id,
        display_name=None,
        optional=False,
        tooltip=None,
        lazy=None,
        default=None,
        min=None,
        max=None,
        step=None,
        control_after_generate=None,
        display_mode=None,
        socketless=None,
        force_input=None,
    ):
        super().__init__(id, display_name, optional, tooltip, lazy)
        self.default, self.limits = default, {"min": min, "max": max}


class _Float(Input):
    def __init__(
        self,
        id,
        display_name=None,
        optional=False,
        tooltip=None,
        lazy=None,
        default=None,
        min=None,
        max=None,
        step=None,
        round=None,
        display_mode=None,
        socketless=None,
        force_input=None,
    ):
        super().__init__(id, display_name, optional, tooltip, lazy)
        self.default, self.limits = default, {"min": min, "max": max}


class _String(Input):
    def __init__(
        self,
        id,
        display_name=None,
        optional=False,
        tooltip=None,
        lazy=None,
        multiline=False,
        placeholder=None,
        default=None,
        dynamic_prompts=None,
        socketless=None,
        force_input=None,
    ):
        super().__init__(id, display_name, optional, tooltip, lazy)
        self.default = default


class _Combo(Input):
    def __init__(
        self,
        id,
        options=None,
        display_name=None,
        optional=False,
        tooltip=None,
        lazy=None,
        default=None,
        control_after_generate=None,
        upload=None,
        image_folder=None,
        remote=None,
        socketless=None,
    ):
        super().__init__(id, display_name, optional, tooltip, lazy)
        self.default, self.limits = default, {"options": options}


@dataclass
class Schema:
    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    hidden: list[Any] | None = None
    description: str = ""
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_api_node: bool = False
    not_idempotent: bool = False
    enable_expand: bool = False

    def check(self) -> Schema:
        """Ids are unique, also between inputs and outputs (0.3.64 refuses the pack otherwise)."""
        ids = [i.id for i in self.inputs] + [o.id for o in self.outputs]
        if len(set(ids)) != len(ids):
            raise ValueError(f"{self.node_id}: ids must be unique between inputs and outputs: {sorted(ids)}")
        return self


class NodeOutput:
    def __init__(self, *args, ui=None, expand=None, block_execution=None):
        self.args, self.ui, self.expand = args, ui, expand
        if block_execution is not None and expand is None:
            raise ValueError("block_execution without outputs is dropped silently by ComfyUI: return ExecutionBlockers")


class ComfyNode:
    SCHEMA: Schema
    hidden = SimpleNamespace()

    @classmethod
    def GET_SCHEMA(cls) -> Schema:
        cls.SCHEMA = cls.define_schema().check()
        return cls.SCHEMA

    @classmethod
    def define_schema(cls) -> Schema:
        raise NotImplementedError

    @classmethod
    def own(cls, name: str) -> Callable | None:
        """A method that the class or a base between it and ComfyNode defines."""
        return getattr(cls, name) if getattr(getattr(cls, name, None), "__func__", None) is not None else None


class ComfyExtension:
    async def on_load(self) -> None:
        raise RuntimeError("ComfyUI 0.3.64 never calls on_load")


class PreviewImage:
    """Writes PNG files into the temp folder; wants float images with 3 channels, as ComfyUI's own does."""

    def __init__(self, image, animated=False, cls=None, **kwargs):
        import folder_paths

        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            "ComfyUI_temp", folder_paths.get_temp_directory(), image[0].shape[1], image[0].shape[0]
        )
        self.values = []
        for number, pixels in enumerate(image, counter):
            file = f"{name}_{number:05}_.png"
            PIL.Image.fromarray(np.clip(255.0 * pixels.cpu().numpy(), 0, 255).astype(np.uint8)).save(Path(folder, file))
            self.values.append({"filename": file, "subfolder": subfolder, "type": "temp"})
        self.animated = animated

    def as_dict(self):
        return {"images": self.values, "animated": (self.animated,)}


ui = SimpleNamespace(PreviewImage=PreviewImage)
io = SimpleNamespace(
    Schema=Schema,
    Hidden=SimpleNamespace(unique_id="unique_id", dynprompt="dynprompt"),
    ComfyNode=ComfyNode,
    NodeOutput=NodeOutput,
    Custom=Custom,
    Image=_type("IMAGE", Input),
    Mask=_type("MASK", Input),
    Latent=_type("LATENT", Input),
    AnyType=_type("*", Input),
    Boolean=_type("BOOLEAN", _Boolean),
    Int=_type("INT", _Int),
    Float=_type("FLOAT", _Float),
    String=_type("STRING", _String),
    Combo=_type("COMBO", _Combo),
)
