"""``qsit explain``: a text description of the quality of photos."""

from __future__ import annotations

from typing import Annotated

import typer

from qsit_plugin.protocol import EXPLAIN, MAX_NEW_TOKENS

from . import options


@options.chooses_model("model", "engine", "device", "dtype", "revision", "adapter", "exif_rotation", "max_pixels")
def explain(
    choice: options.Choice,
    paths: options.Paths,
    format: options.TextFormat = None,
    out: options.Out = None,
    recursive: options.Recursive = True,
    only_below: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Score first, and explain only lower scores than this.")
    ] = None,
    max_new_tokens: options.MaxNewTokens = MAX_NEW_TOKENS,
    temperature: options.Temperature = None,
    seed: options.Seed = 0,
) -> None:
    """Describe and evaluate the quality of photos.

    For one photo stdout holds the text alone, as it is generated; for several each text is under its file name.
    """
    from .inputs import read
    from .talk import talk

    talk(
        read(paths, recursive=recursive),
        [EXPLAIN],
        choice,
        format=format,
        out=out,
        only_below=only_below,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
    )
