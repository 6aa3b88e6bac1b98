"""``qsit ask``: free-text answers to questions about photos."""

from __future__ import annotations

from typing import Annotated

import typer

from qsit_plugin.protocol import MAX_NEW_TOKENS

from . import options


@options.chooses_model("model", "engine", "device", "dtype", "revision", "adapter", "exif_rotation", "max_pixels")
def ask(
    choice: options.Choice,
    paths: options.Paths,
    question: Annotated[list[str], typer.Option("--question", "-q", help="What to ask; may be given several times.")],
    format: options.TextFormat = None,
    out: options.Out = None,
    recursive: options.Recursive = True,
    max_new_tokens: options.MaxNewTokens = MAX_NEW_TOKENS,
    temperature: options.Temperature = None,
    seed: options.Seed = 0,
) -> None:
    """Ask questions about photos.

    A photo is encoded once, however many questions there are.
    """
    from .inputs import read
    from .talk import talk

    talk(
        read(paths, recursive=recursive),
        question,
        choice,
        format=format,
        out=out,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
    )
