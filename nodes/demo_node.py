"""Q-SiT Demo Photo: the package's own photo, so that an example shows what it promises on a fresh ComfyUI."""

from __future__ import annotations

import random
from importlib import resources

from comfy_api.latest import io
from PIL import Image, ImageFilter

from qsit_plugin.nodes.base import CATEGORY, QSiTNode, schema
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.pictures import batch_of

SHARP, BLURRED, BOTH = "sharp", "blurred", "sharp and blurred"
THREE, HALF, BY_SEED = "sharp, soft and blurred", "one half blurred", "blurred by seed"
PICTURES = [SHARP, BLURRED, BOTH, THREE, HALF, BY_SEED]
SOFT, STRONG = 1.5, 6.0
"""Radius of the Gaussian blur, in pixels of a photo of 512x512."""


class DemoPhoto(QSiTNode):
    UI = ("images", "text", "qsit")

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            search_aliases=["example image", "test image", "sample photo"],
            node_id="QSiT_DemoPhoto",
            display_name="Q-SiT Demo Photo",
            category=CATEGORY,
            description="The photo that comes with the pack, 512x512, sharp or blurred, for trying the nodes. Put Load "
            "Image, or what makes your images, in its place.",
            inputs=[
                io.Combo.Input(
                    "picture", options=PICTURES, default=SHARP, tooltip="Which pictures; two or three are a batch."
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    tooltip=f"With '{BY_SEED}': each seed blurs more or less. Stands for a sampler's seed in examples "
                    "that need no checkpoint.",
                ),
            ],
            outputs=[io.Image.Output("image_out", display_name="images", tooltip="The pictures.")],
        )

    @classmethod
    def run(cls, picture: str, seed: int) -> io.NodeOutput:
        images = batch_of(pictures(picture, seed))
        return cls.show(images, text=f"demo photo, {picture}", images=cls.previews(images))


def pictures(which: str, seed: int) -> list[Image.Image]:
    """RGB pictures of 512x512."""
    path = resources.files("qsit_plugin") / "demo" / "astronaut.jpg"
    with path.open("rb") as stream, Image.open(stream) as file:
        photo = file.convert("RGB")
    if which == BY_SEED:
        return [_blurred(photo, STRONG * random.Random(seed).random())]
    if which == HALF:
        half = photo.copy()
        half.paste(_blurred(photo, STRONG).crop((photo.width // 2, 0, *photo.size)), (photo.width // 2, 0))
        return [half]
    radii = {SHARP: [0.0], BLURRED: [STRONG], BOTH: [0.0, STRONG], THREE: [0.0, SOFT, STRONG]}
    if which not in radii:
        raise InputError(f"picture must be one of {', '.join(PICTURES)}; got {which!r}")
    return [_blurred(photo, radius) for radius in radii[which]]


def _blurred(photo: Image.Image, radius: float) -> Image.Image:
    return photo.filter(ImageFilter.GaussianBlur(radius)) if radius else photo
