"""``qsit explain``: the quality of photos in words."""

from __future__ import annotations

from qsit_plugin.protocol import EXPLAIN, MAX_NEW_TOKENS

from . import options


def explain(
    paths: options.Paths,
    format: options.TextFormat = None,
    out: options.Out = None,
    recursive: options.Recursive = True,
    max_new_tokens: options.MaxNewTokens = MAX_NEW_TOKENS,
    temperature: options.Temperature = None,
    seed: options.Seed = 0,
    model: options.Model = options.DEFAULT_MODEL,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    revision: options.Revision = None,
    adapter: options.Adapter = None,
    exif_rotation: options.ExifRotation = False,
    max_pixels: options.MaxPixels = options.MAX_PIXELS,
) -> None:
    """Describe and judge the quality of photos in words.

    For one photo the text stands alone on stdout, as it is written; several stand each under its name.
    """
    from .inputs import read
    from .talk import talk

    talk(
        read(paths, recursive=recursive),
        [EXPLAIN],
        options.Choice(model, device, dtype, revision, adapter, exif_rotation=exif_rotation, max_pixels=max_pixels),
        format=format,
        out=out,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
    )
