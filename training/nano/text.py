"""The questions and answers that qsit-nano learns from: a small grammar over what was done to a view.

Three kinds of turn: the score (a level word after the profile's prefix), a lettered choice, and free text that names
the distortion first. An answer that begins with the kind was learned several times better than one that ends with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qsit_plugin import protocol

from .distortions import NAMES

PROFILE_QUESTION = protocol.TRAINING_CONSISTENT.question
PROFILE_PREFIX = protocol.TRAINING_CONSISTENT.answer_prefix

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
    "pixelation": ("mosaic", "visible pixels", "low resolution"),
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
    "sharpness": ("blur", "motion blur", "pixelation"),
    "noise": ("noise",),
    "exposure": ("underexposure", "overexposure"),
    "color": ("faded color", "banding"),
    "contrast": ("low contrast",),
    "compression": ("compression artifacts",),
}
"""Distortions that make an aspect poor."""


@dataclass(frozen=True)
class Turn:
    """One question with its answer. ``kind``: "level" (the answer is a soft level), "letter" or "text"."""

    kind: str
    question: str
    answer: str


def level_word(score: float) -> str:
    """The level word nearest to a severity score on [1, 5]."""
    return protocol.LEVELS[int(np.clip(round(5 - score), 0, 4))]


def pick(items: Sequence[str], rng: np.random.Generator) -> str:
    return items[int(rng.integers(len(items)))]


def severity(visible: float) -> str:
    return "slight" if visible < 0.35 else "moderate" if visible < 0.7 else "severe"


def alias(name: str, rng: np.random.Generator, share: float = 0.3) -> str:
    return pick(SYNONYMS[name], rng) if rng.random() < share else name


def lettered(question: str, options: Sequence[str], right: int) -> Turn:
    letter = protocol.letters(len(options))[right]
    return Turn("letter", protocol.multiple_choice(question, options), f"{letter}. {options[right]}")


def score_turn(score: float) -> Turn:
    return Turn("level", PROFILE_QUESTION, f"{PROFILE_PREFIX} {level_word(score)}.")


def naming_turn(name: str | None, rng: np.random.Generator) -> Turn:
    """All ten names in some order, or a few of them; a clean view needs an option that says so."""
    question = NAMING[0] if rng.random() < 0.5 else pick(NAMING, rng)
    kind = rng.random()
    if kind < 0.3 and name is not None:
        names: list[str | None] = list(NAMES)
    else:
        count = len(NAMES) if kind < 0.6 else int(rng.integers(2, 7))
        others = [n for n in NAMES if n != name]
        rng.shuffle(others)
        names = [*others[: count - 1], name]
        rng.shuffle(names)
        if name is not None and rng.random() < 0.1:
            names.append(None)
    share = 0.0 if rng.random() < 0.6 else 0.5
    options = [pick(NONE, rng) if n is None else alias(n, rng, share) for n in names]
    if rng.random() < 0.15:
        options = [option[0].upper() + option[1:] for option in options]
    return lettered(question, options, names.index(name))


def attribute_turn(name: str | None, visible: float, rng: np.random.Generator) -> Turn:
    """An aspect, good or poor: half the time the one that the distortion spoils."""
    spoilt = [aspect for aspect, causes in ATTRIBUTE_OF.items() if name in causes]
    aspect = spoilt[0] if spoilt and rng.random() < 0.5 else pick(tuple(ATTRIBUTE_OF), rng)
    poor = name in ATTRIBUTE_OF[aspect] and visible > 0.2
    options = ["good", "poor"] if rng.random() < 0.5 else ["poor", "good"]
    return lettered(protocol.ATTRIBUTES[aspect], options, options.index("poor" if poor else "good"))


def yes_no_turn(name: str | None, visible: float, rng: np.random.Generator) -> Turn:
    asked = name if name is not None and rng.random() < 0.5 else pick(NAMES, rng)
    if rng.random() < 0.5:
        question = f"Is {pick(('this image', 'the image', 'it'), rng)} {pick(ADJECTIVES[asked], rng)}?"
    else:
        form = pick(("Is there {} in this image?", "Does this image suffer from {}?", "Is {} visible?"), rng)
        question = form.format(alias(asked, rng))
    if {asked, name} == {"blur", "motion blur"} and asked == "blur":
        asked = name  # a shaken photo is blurry too
    if rng.random() < 0.3:
        options = ["Yes", "No"] if rng.random() < 0.5 else ["No", "Yes"]
        return lettered(question, options, options.index("Yes" if asked == name else "No"))
    if asked != name:
        return Turn("text", question, "No." if rng.random() < 0.5 else f"No, there is no visible {asked}.")
    return Turn("text", question, f"Yes, there is {severity(visible)} {name}." if rng.random() < 0.7 else "Yes.")


def what_turn(name: str | None, visible: float, rng: np.random.Generator) -> Turn:
    if name is not None and rng.random() < 0.3:
        form = pick(("How strong is the {}?", "How severe is the {}?"), rng)
        return Turn("text", form.format(alias(name, rng)), f"The {name} is {severity(visible)}.")
    return Turn("text", pick(WHAT, rng), "No visible distortion." if name is None else f"{name.capitalize()}.")


def describe_turn(name: str | None, visible: float, score: float, rng: np.random.Generator) -> Turn:
    question = DESCRIBE[0] if rng.random() < 0.5 else pick(DESCRIBE, rng)
    verdict = f"The quality of the image is {level_word(score)}."
    if name is None:
        return Turn("text", question, f"No distortion is visible: {pick(CLEAN_EVIDENCE, rng)}. {verdict}")
    how = {"slight": "slightly", "moderate": "clearly", "severe": "strongly"}[severity(visible)]
    return Turn("text", question, f"{name.capitalize()} is {how} visible: {pick(EVIDENCE[name], rng)}. {verdict}")


def rating_turn(score: float, rng: np.random.Generator) -> Turn:
    """The level as a lettered choice."""
    options = [word.capitalize() for word in protocol.LEVELS]
    if rng.random() < 0.5:
        options.reverse()
    question = pick(("How would you rate the quality of this image?", "How is the quality of this image?"), rng)
    return lettered(question, options, options.index(level_word(score).capitalize()))


def turns_for(name: str | None, visible: float, score: float, rng: np.random.Generator) -> list[Turn]:
    """Five turns about one view: score, name, aspect or yes/no, and two of text, each seeing only the image."""
    last = rng.random()
    return [
        score_turn(score),
        naming_turn(name, rng),
        attribute_turn(name, visible, rng) if rng.random() < 0.6 else yes_no_turn(name, visible, rng),
        describe_turn(name, visible, score, rng),
        what_turn(name, visible, rng)
        if last < 0.5
        else yes_no_turn(name, visible, rng)
        if last < 0.85
        else rating_turn(score, rng),
    ]
