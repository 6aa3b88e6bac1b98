"""The picture of each example workflow for ComfyUI's list of templates: its title and what comes out, to be read small.

    python -m tests.nodes.thumbnails example_workflows

Drawn with Pillow from the demo photo. Without numbers, which change with the model.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tests.nodes.hosts import CHECKOUT

SIZE, SIDE = (720, 480), 210
BACKGROUND, INK, QUIET = (24, 24, 27), (245, 245, 245), (150, 150, 155)
GREEN, YELLOW, RED = (52, 168, 90), (230, 180, 60), (214, 69, 61)
SHARP, SOFT, BLURRED, HALF, MAP = 0.0, 1.5, 6.0, None, -1.0
"""Radius of the blur of the demo photo; HALF: its right half alone; MAP: HALF under colors, good and bad."""
Shown = tuple[float | None, tuple[int, int, int], str]
CARDS: dict[str, list[Shown]] = {
    "Score one image": [(SHARP, GREEN, "score and level")],
    "Explain one image": [(SHARP, GREEN, "in words, six aspects")],
    "Compare two images": [(SHARP, GREEN, "better"), (BLURRED, RED, "worse")],
    "Gate good and bad": [(SHARP, GREEN, "good"), (BLURRED, RED, "bad")],
    "Great, ok or bad": [(SHARP, GREEN, "great"), (SOFT, YELLOW, "ok"), (BLURRED, RED, "bad")],
    "Gate then upscale": [(SHARP, GREEN, "upscaled"), (BLURRED, RED, "left out")],
    "Explain failures": [(BLURRED, RED, "why it failed, in words")],
    "Keep the best": [(SHARP, GREEN, "kept"), (BLURRED, QUIET, "dropped")],
    "First good enough of two": [(BLURRED, RED, "first: no"), (SHARP, GREEN, "second: taken")],
    "Again until good": [(BLURRED, RED, "try 1"), (BLURRED / 2, RED, "try 2"), (SHARP, GREEN, "try 3: good")],
    "Generate again until good": [(BLURRED, RED, "seed 1"), (SOFT, YELLOW, "seed 2"), (SHARP, GREEN, "seed 3: good")],
    "Generate until good enough": [(BLURRED, RED, "sampler 1"), (SHARP, GREEN, "sampler 2: taken")],
    "Generate and keep the best": [(SOFT, QUIET, "1"), (SHARP, GREEN, "2: best"), (BLURRED, QUIET, "3")],
    "Compare two checkpoints": [(SHARP, GREEN, "checkpoint A"), (SOFT, YELLOW, "checkpoint B")],
    "Overlay and contact sheet": [(SHARP, GREEN, "score on it"), (BLURRED, RED, "score on it")],
    "Quality map": [(HALF, QUIET, "photo"), (MAP, QUIET, "good and bad parts")],
    "Save with score": [(SHARP, GREEN, "score in name, file, table")],
    "Curate a folder for a LoRA": [(SHARP, GREEN, "passed/"), (BLURRED, RED, "failed/")],
    "Score a folder": [(SHARP, GREEN, ""), (SOFT, YELLOW, "one csv table"), (BLURRED, RED, "")],
}


def picture(photo: Image.Image, radius: float | None) -> Image.Image:
    """A square of the card."""
    if radius == MAP:
        half = picture(photo, HALF)
        colors = Image.new("RGB", half.size, GREEN)
        colors.paste(RED, (SIDE // 2, 0, SIDE, SIDE))
        return Image.blend(half, colors, 0.5)
    if radius is HALF:
        half = photo.copy()
        half.paste(picture(photo, BLURRED).crop((SIDE // 2, 0, SIDE, SIDE)), (SIDE // 2, 0))
        return half
    blurred = photo.filter(ImageFilter.GaussianBlur(radius)) if radius else photo
    return blurred.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def card(title: str, shown: list[Shown], photo: Image.Image) -> Image.Image:
    image = Image.new("RGB", SIZE, BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.text((SIZE[0] // 2, 66), title, INK, ImageFont.load_default(52 if len(title) < 22 else 42), anchor="mm")
    gap = 20
    left = (SIZE[0] - len(shown) * SIDE - (len(shown) - 1) * gap) // 2
    for radius, color, words in shown:
        draw.rectangle((left - 5, 145, left + SIDE + 4, 154 + SIDE), color)
        image.paste(picture(photo, radius), (left, 150))
        draw.text((left + SIDE // 2, 400), words, color, ImageFont.load_default(32), anchor="mm")
        left += SIDE + gap
    return image


def main(folder: Path) -> None:
    with Image.open(CHECKOUT / "qsit_plugin" / "demo" / "astronaut.jpg") as file:
        photo = file.convert("RGB")
    for title, shown in CARDS.items():
        card(title, shown, photo.resize((SIDE, SIDE)) if None in {r for r, _, _ in shown} else photo).save(
            folder / f"{title}.jpg", quality=85, optimize=True
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
