"""``qsit explain``: a text description of the quality of photos."""

from __future__ import annotations

from qsit_plugin.protocol import EXPLAIN, MAX_NEW_TOKENS

from . import options


@options.chooses_model("model", "engine", "device", "dtype", "revision", "adapter", "exif_rotation", "max_pixels")
def explain(
    choice: options.Choice,
    paths: options.Paths,
    format: options.TextFormat = None,
    out: options.Out = None,
    recursive: options.Recursive = True,
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
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
    )
