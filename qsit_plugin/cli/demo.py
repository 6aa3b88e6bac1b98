"""``qsit demo``: score and explain two photos that come with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import typer

from . import options

PICTURES = (("the photo", "astronaut.jpg"), ("the same, degraded", "astronaut-blurred.jpg"))


@options.chooses_model("model", "engine", "device", "dtype", "revision", "adapter")
def demo(choice: options.Choice) -> None:
    """Score and explain a photo and a degraded copy of it. Needs no network."""
    from .talk import write_text

    stream = typer.get_text_stream("stdout")
    qsit = choice.open()
    pictures = resources.files("qsit_plugin") / "demo"
    for title, file in PICTURES:
        with resources.as_file(pictures / file) as path:
            look = qsit.encode(Path(path))
            score = look.score()
            stream.write(f"{title}: {path}\n  {score.value:.2f} {score.level}\n  ")
            write_text(stream, look.stream())
        stream.write("\n")
    chosen = "" if choice.model == options.DEFAULT_MODEL else f" --model {choice.model}"
    stream.write(f"Now one of your own:\n  qsit score YOUR_PHOTO{chosen}\n  qsit explain YOUR_PHOTO{chosen}\n")
    stream.flush()
