"""The questions and answers that qsit-nano learns from: a small grammar over what was done to a view.

Three kinds of turn: the score (a level word after the profile's prefix), a multiple-choice question, and free text
that names the distortion first. An answer that begins with the kind was learned several times better than one that
ends with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from qsit_plugin import protocol

from . import vocabulary as words
from .distortions import KINDS, NAMES, Defect

Item = TypeVar("Item")

PROFILE_QUESTION = protocol.TRAINING_CONSISTENT.question
PROFILE_PREFIX = protocol.TRAINING_CONSISTENT.answer_prefix

HARDLY = 0.06
"""A distortion up to this strength lowers the score a little, but in words it is not there."""


@dataclass(frozen=True)
class Turn:
    """One question with its answer. ``kind``: "level" (the answer is a soft level), "letter" or "text"."""

    kind: str
    question: str
    answer: str


def level_word(score: float) -> str:
    """The level word nearest to a severity score on [1, 5]."""
    return protocol.LEVELS[int(np.clip(round(5 - score), 0, 4))]


def pick(items: Sequence[Item], rng: np.random.Generator) -> Item:
    return items[int(rng.integers(len(items)))]


def severity(visible: float) -> str:
    return "slight" if visible < 0.35 else "moderate" if visible < 0.7 else "severe"


def alias(name: str, rng: np.random.Generator, share: float = 0.3) -> str:
    return pick(words.SYNONYMS[name], rng) if rng.random() < share else name


def multiple_choice_turn(question: str, options: Sequence[str], right: int) -> Turn:
    letter = protocol.letters(len(options))[right]
    return Turn("letter", protocol.multiple_choice(question, options), f"{letter}. {options[right]}")


def either_order(question: str, options: Sequence[str], right: int, rng: np.random.Generator) -> Turn:
    """Two options, in half of the cases in the reverse order."""
    if rng.random() < 0.5:
        return multiple_choice_turn(question, options, right)
    return multiple_choice_turn(question, options[::-1], 1 - right)


def score_turn(score: float) -> Turn:
    return Turn("level", PROFILE_QUESTION, f"{PROFILE_PREFIX} {level_word(score)}.")


def naming_turn(defects: Sequence[Defect], rng: np.random.Generator) -> Turn:
    """All ten names in some order, or a few of all; a clean view needs an option that says so.

    Of two defects the more harmful one is right, and the other is no option.
    """
    question = words.NAMING[0] if rng.random() < 0.5 else pick(words.NAMING, rng)
    name = defects[0].name if defects else None
    hidden = {defect.name for defect in defects[1:]}
    kind = rng.random()
    if kind < 0.3 and name in NAMES and not hidden:
        names: list[str | None] = list(NAMES)
    else:
        ten = kind < 0.6 and (name is None or name in NAMES)
        others = [n for n in (NAMES if ten else KINDS) if n != name and n not in hidden]
        rng.shuffle(others)
        count = len(NAMES) if ten else int(rng.integers(2, 9))
        names = [*others[: count - 1], name]
        rng.shuffle(names)
        if name is not None and rng.random() < 0.1:
            names.append(None)
    share = 0.0 if rng.random() < 0.6 else 0.5
    options = [pick(words.NONE, rng) if n is None else alias(n, rng, share) for n in names]
    if rng.random() < 0.15:
        options = [option[0].upper() + option[1:] for option in options]
    return multiple_choice_turn(question, options, names.index(name))


def attribute_turn(defects: Sequence[Defect], rng: np.random.Generator) -> Turn:
    """An aspect, good or poor: half the time one that a defect degrades."""
    degraded = [aspect for aspect, causes in words.ATTRIBUTE_OF.items() if any(d.name in causes for d in defects)]
    aspect = pick(degraded, rng) if degraded and rng.random() < 0.5 else pick(tuple(words.ATTRIBUTE_OF), rng)
    poor = any(d.name in words.ATTRIBUTE_OF[aspect] and d.visible > 0.2 for d in defects)
    return either_order(protocol.ATTRIBUTES[aspect], ["good", "poor"], int(poor), rng)


def askable(defects: Sequence[Defect]) -> list[str]:
    """What is surely not there: neither a defect, nor its kind, nor anything like it."""
    there = {d.name for d in defects} | {words.KIND_OF.get(d.name, d.name) for d in defects}
    kinds = {name for name, kind in words.KIND_OF.items() if kind in there}
    return [n for n in KINDS if n not in there | kinds and not any({n, t} in words.ALIKE for t in there)]


def whether(name: str, rng: np.random.Generator) -> str:
    """A question that is answered by yes or no."""
    if rng.random() < 0.5:
        return f"Is {pick(('this image', 'the image', 'it'), rng)} {pick(words.ADJECTIVES[name], rng)}?"
    called = alias(name, rng)
    forms = ("Is there {} in this image?", "Does this image suffer from {}?", "Is {} visible?")
    plural = ("Are there {} in this image?", forms[1], "Are {} visible?")
    return pick(plural if be(called) == "are" else forms, rng).format(called)


def yes_no_turn(defects: Sequence[Defect], rng: np.random.Generator) -> Turn:
    """Whether a distortion is there; half of the answers on a distorted view are yes."""
    defect = pick(defects, rng) if defects and rng.random() < 0.5 else None
    if defect is None:
        asked = pick(askable(defects), rng)
    else:
        asked = words.KIND_OF.get(defect.name, defect.name) if rng.random() < 0.3 else defect.name
    question = whether(asked, rng)
    if rng.random() < 0.3:
        return either_order(question, ["Yes", "No"], int(defect is None), rng)
    if defect is None:
        return Turn("text", question, "No." if rng.random() < 0.5 else f"No, there {be(asked)} no visible {asked}.")
    there = f"Yes, there {be(defect.name)} {severity(defect.visible)} {defect.name}."
    return Turn("text", question, there if rng.random() < 0.7 else "Yes.")


def be(noun: str) -> str:
    """The verb to a noun of the vocabulary: stripes are, darkness and defocus is."""
    return "are" if noun.endswith("s") and not noun.endswith(("ness", "us")) else "is"


def what_turn(defects: Sequence[Defect], rng: np.random.Generator) -> Turn:
    if not defects:
        return Turn("text", pick(words.WHAT, rng), "No visible distortion.")
    if rng.random() < 0.3:
        defect = pick(defects, rng)
        word = pick(("strong", "severe"), rng)
        called = alias(defect.name, rng)
        answer = f"The {defect.name} {be(defect.name)} {severity(defect.visible)}."
        return Turn("text", f"How {word} {be(called)} the {called}?", answer)
    return Turn("text", pick(words.WHAT, rng), f"{' and '.join(d.name for d in defects).capitalize()}.")


def describe_turn(defects: Sequence[Defect], score: float, rng: np.random.Generator) -> Turn:
    question = words.DESCRIBE[0] if rng.random() < 0.5 else pick(words.DESCRIBE, rng)
    verdict = f"The quality of the image is {level_word(score)}."
    if not defects:
        return Turn("text", question, f"No distortion is visible: {pick(words.CLEAN_EVIDENCE, rng)}. {verdict}")
    first, *others = (f"{d.name.capitalize()} {be(d.name)} {extent(d.visible)} visible" for d in defects)
    too = "".join(f" {other} too." for other in others)
    return Turn("text", question, f"{first}: {pick(words.EVIDENCE[defects[0].name], rng)}.{too} {verdict}")


def extent(visible: float) -> str:
    return {"slight": "slightly", "moderate": "clearly", "severe": "strongly"}[severity(visible)]


def rating_turn(score: float, rng: np.random.Generator) -> Turn:
    """The level as a multiple-choice question."""
    options = [word.capitalize() for word in protocol.LEVELS]
    if rng.random() < 0.5:
        options.reverse()
    question = pick(("How would you rate the quality of this image?", "How is the quality of this image?"), rng)
    return multiple_choice_turn(question, options, options.index(level_word(score).capitalize()))


def turns_for(defects: Sequence[Defect], score: float, rng: np.random.Generator) -> list[Turn]:
    """Five turns about one view: score, name, aspect or yes/no, and two of text, each seeing only the image."""
    named = [defect for defect in defects if defect.visible > HARDLY]
    last = rng.random()
    return [
        score_turn(score),
        naming_turn(named, rng),
        attribute_turn(named, rng) if rng.random() < 0.5 else yes_no_turn(named, rng),
        describe_turn(named, score, rng),
        what_turn(named, rng) if last < 0.4 else yes_no_turn(named, rng) if last < 0.87 else rating_turn(score, rng),
    ]
