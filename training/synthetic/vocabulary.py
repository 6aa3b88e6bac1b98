"""The words that qsit-nano knows for what can be wrong with an image, and how its questions are put."""

from __future__ import annotations

from qsit_plugin import protocol

SYNONYMS = {
    "blur": ("gaussian blur", "out-of-focus blur", "defocus", "lack of sharpness"),
    "motion blur": ("camera shake", "movement blur", "directional blur"),
    "noise": ("grain", "image noise", "graininess"),
    "compression artifacts": ("JPEG artifacts", "blocking artifacts", "compression"),
    "underexposure": ("darkness", "too dark", "insufficient light"),
    "overexposure": ("too bright", "excessive brightness", "blown-out highlights"),
    "low contrast": ("flat contrast", "weak contrast", "lack of contrast"),
    "faded color": ("desaturation", "dull colors", "weak colors"),
    "banding": ("posterization", "color banding", "quantization"),
    "pixelation": ("mosaic", "large pixels", "low resolution"),
    "impulse noise": ("salt and pepper noise", "dead pixels", "speckles"),
    "oversharpening": ("sharpening halos", "excessive sharpening", "edge halos"),
    "jitter": ("scattered pixels", "displaced pixels"),
    "ghosting": ("double image", "double exposure"),
    "missing blocks": ("lost blocks", "transmission errors"),
    "stripes": ("lines", "line noise", "row noise"),
    "oversaturation": ("excessive saturation", "garish colors", "too strong colors"),
    "harsh contrast": ("excessive contrast", "too high contrast"),
    "color cast": ("wrong white balance", "color tint"),
    "color fringes": ("chromatic aberration", "color fringing"),
}
ADJECTIVES = {
    "blur": ("blurry", "out of focus", "unsharp"),
    "motion blur": ("blurred by motion", "shaken"),
    "noise": ("noisy", "grainy"),
    "compression artifacts": ("heavily compressed", "damaged by compression"),
    "underexposure": ("too dark", "underexposed"),
    "overexposure": ("too bright", "overexposed"),
    "low contrast": ("low in contrast", "flat"),
    "faded color": ("faded", "pale in color"),
    "banding": ("posterized", "banded"),
    "pixelation": ("pixelated", "blocky"),
    "impulse noise": ("speckled", "covered with salt and pepper"),
    "oversharpening": ("oversharpened", "sharpened too much"),
    "jitter": ("scattered", "frayed"),
    "ghosting": ("doubled", "ghosted"),
    "missing blocks": ("incomplete", "damaged in transmission"),
    "stripes": ("striped", "covered with lines"),
    "oversaturation": ("oversaturated", "too colorful"),
    "harsh contrast": ("too high in contrast", "harsh"),
    "color cast": ("tinted", "off in white balance"),
    "color fringes": ("fringed with color", "affected by chromatic aberration"),
}
EVIDENCE = {
    "blur": ("fine detail and edges are soft", "textures are smoothed away", "contours lack sharpness"),
    "motion blur": ("edges are smeared along one direction", "detail is dragged into streaks"),
    "noise": ("random grain covers smooth areas", "speckles hide fine detail", "flat areas are grainy"),
    "compression artifacts": ("blocks and ringing surround the edges", "textures break up into blocks"),
    "underexposure": ("shadows hide most of the detail", "the whole picture is too dark"),
    "overexposure": ("highlights are blown out", "the whole picture is too bright"),
    "low contrast": ("tones are squeezed into a narrow range", "light and dark areas look alike"),
    "faded color": ("colors look pale and close to grey", "the colors have lost their strength"),
    "banding": ("smooth gradients turn into steps", "few distinct tones are left"),
    "pixelation": ("the picture falls apart into square blocks", "edges turn into stairs of large pixels"),
    "impulse noise": ("single pixels are black, white or in false colors", "isolated dots cover the picture"),
    "oversharpening": ("bright and dark halos follow the edges", "edges look cut out"),
    "jitter": ("edges are frayed by displaced pixels", "pixels are scattered around their places"),
    "ghosting": ("a second, shifted picture shines through", "edges are seen twice"),
    "missing blocks": ("square pieces of the picture are lost", "blocks hold something else than the picture"),
    "stripes": ("lines run across the whole picture", "rows or columns differ in brightness"),
    "oversaturation": ("colors are stronger than in nature", "colors glow and lose their shades"),
    "harsh contrast": ("shadows are black and highlights are white", "the tones between light and dark are lost"),
    "color cast": ("everything is tinted in one color", "white and grey have a color"),
    "color fringes": ("edges are lined with red and blue", "the colors do not lie upon each other"),
}
CLEAN_EVIDENCE = ("details are crisp and colors are natural", "edges are sharp and tones are balanced")
NAMING = (
    "Which distortion is most visible in this image?",
    "Which of these distortions does this image suffer from?",
    "What is the main quality problem of this image?",
    "Which degradation affects this image most?",
    "What kind of distortion is most apparent in this image?",
)
WHAT = (
    "What distortion does this image have?",
    "What is wrong with this image?",
    "Which distortion is visible in this image?",
    "What degrades the quality of this image?",
)
DESCRIBE = (
    protocol.EXPLAIN,
    "Describe the quality of this image.",
    "Explain the quality of this image.",
    "Why is the quality of this image not better?",
    "Why is it poor?",
)
NONE = ("none", "no distortion", "nothing")
ATTRIBUTE_OF = {
    "sharpness": ("blur", "motion blur", "pixelation", "jitter", "ghosting"),
    "noise": ("noise", "impulse noise", "stripes"),
    "exposure": ("underexposure", "overexposure"),
    "color": ("faded color", "banding", "oversaturation", "color cast", "color fringes"),
    "contrast": ("low contrast", "harsh contrast"),
    "compression": ("compression artifacts", "missing blocks"),
}
"""Distortions that make an aspect poor."""

KIND_OF = {"motion blur": "blur", "impulse noise": "noise"}
"""A photo with the first is, in common words, a case of the second too: a shaken photo is blurry."""

ALIKE = (
    {"underexposure", "low contrast"},
    {"underexposure", "harsh contrast"},
    {"overexposure", "low contrast"},
    {"overexposure", "harsh contrast"},
    {"faded color", "low contrast"},
    {"oversaturation", "harsh contrast"},
    {"oversharpening", "harsh contrast"},
    {"oversharpening", "noise"},
    {"pixelation", "compression artifacts"},
    {"banding", "compression artifacts"},
    {"banding", "harsh contrast"},
    {"color fringes", "ghosting"},
    {"motion blur", "ghosting"},
    {"blur", "ghosting"},
    {"blur", "jitter"},
    {"blur", "pixelation"},
    {"noise", "jitter"},
)
"""The one brings something of the other with it: whether the other is there is not asked, "no" would be half true."""
