"""How a checkpoint is asked for a score: question, answer prefix, level words and weights.

The profile travels with the checkpoint as ``qsit.json``; scoring, training and conversion share it. A checkpoint
without the file gets ``OFFICIAL``. Sources: the released ``qsit_transformers_test_iqa.py`` and the training JSONs
of Q-SiT.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from qsit_plugin.weights.errors import WeightsError, short
from qsit_plugin.weights.json_file import read_json

from .errors import ProfileError
from .scales import scale_problem

FILE_NAME = "qsit.json"
LEVELS = ("excellent", "good", "fair", "poor", "bad")
"""The five levels, best first: the order of every level vector in this package."""


SCOPE_KINDS = ("ratings", "distortions", "mixed", "other")
"""What scores follow, for programs: people's ratings, synthetic distortions, both, or something else."""

_KNOWN_SCOPES = {"human ratings": "ratings", "synthetic distortions": "distortions"}

LONGEST = 16_384
"""Characters of a question, an answer prefix or a scope. The official question has 230."""


def _is_text(value: Any) -> bool:
    """Whether it is text that a tokenizer takes: half a surrogate pair, which JSON can hold, is none."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_weight(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


_LISTS: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("level_words", "text", _is_text),
    ("level_token_ids", "whole numbers from 0 on", _is_token),
    ("weights", "numbers from 0 to 1, as a score lies there", _is_weight),
)


def kind_of_scope(scope: str) -> str:
    """The kind of a scope by its text alone, as for files of older versions: of the two known texts, or other."""
    return _KNOWN_SCOPES.get(scope, "other")


@dataclass(frozen=True)
class ScoreProfile:
    """How a score is read from a model: prompt, level words and their weights.

    The prompt is the rendered chat template plus ``answer_prefix``, each tokenised alone and joined; the score is read
    at the next token, from the logits of ``level_token_ids``. ``level_words`` are the exact strings that follow, each a
    single token when tokenised alone.
    """

    question: str
    answer_prefix: str
    level_words: tuple[str, ...]
    level_token_ids: tuple[int, ...]
    weights: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25, 0.0)
    scope: str = "human ratings"
    scales: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Calibrations onto databases' MOS scales: ``{name: {"kind", "parameters", "range"}}``; see ``scales.py``."""
    scope_kind: str | None = None
    """One of ``SCOPE_KINDS``; None: as the text of ``scope`` says. To be read as ``kind``."""

    def __post_init__(self) -> None:
        """Raises ProfileError, which names the key, what it must hold, and what was given."""
        for name in ("question", "answer_prefix", "scope"):
            value = getattr(self, name)
            if not _is_text(value) or len(value) > LONGEST or (name == "question" and not value.strip()):
                few = "1" if name == "question" else "0"
                raise ProfileError(f"{name} must be text of {few} to {LONGEST:,} characters; got {short(value)}")
        if self.scope_kind not in (None, *SCOPE_KINDS):
            raise ProfileError(f"scope_kind must be one of {', '.join(SCOPE_KINDS)}; got {short(self.scope_kind)}")
        for name, what, fits in _LISTS:
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != len(LEVELS):
                raise ProfileError(f"{name} must hold {len(LEVELS)} values, excellent to bad; got {short(value)}")
            if not all(map(fits, value)):
                raise ProfileError(f"{name} must hold {what}; got {short(value)}")
            object.__setattr__(self, name, tuple(value))
        if any(worse >= better for better, worse in zip(self.weights, self.weights[1:], strict=False)):
            raise ProfileError(f"weights must fall from excellent to bad, as 1, .75, .5, .25, 0; got {self.weights!r}")
        if tuple(word.strip().lower() for word in self.level_words) != LEVELS:
            order = ", ".join(LEVELS)
            raise ProfileError(f"level_words must spell {order} in this order; got {short(self.level_words)}")
        if len(set(self.level_token_ids)) != len(LEVELS):
            raise ProfileError(f"level_token_ids must be five different tokens; got {self.level_token_ids!r}")
        if not isinstance(self.scales, dict):
            raise ProfileError(f"scales must map names to calibrations; got {short(self.scales)}")
        for name, entry in self.scales.items():
            if not _is_text(name):
                raise ProfileError(f"scales must have names that are text; got {short(name)}")
            if problem := scale_problem(name, entry):
                raise ProfileError(
                    f"scale {short(name)} {problem}. Take it out of the profile's scales, or fit it again with "
                    f"qsit bench calibrate."
                )

    @property
    def kind(self) -> str:
        """The scope for programs: one of ``SCOPE_KINDS``."""
        return self.scope_kind or kind_of_scope(self.scope)

    @classmethod
    def from_dict(cls, content: dict[str, Any], source: str = FILE_NAME) -> ScoreProfile:
        """Raises ProfileError for a missing or an unknown key, so that a misspelt one is never ignored."""
        known = {f.name for f in fields(cls)}
        missing = {"question", "answer_prefix", "level_words", "level_token_ids"} - content.keys()
        if missing or content.keys() - known:
            raise ProfileError(
                f"{source}: missing keys {sorted(missing)}, unknown keys {sorted(content.keys() - known)}; "
                f"a profile has {', '.join(sorted(known))}"
            )
        try:
            return cls(**content)
        except ProfileError as error:
            raise ProfileError(f"{source}: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> ScoreProfile:
        """The profile in a JSON file, or in the ``qsit.json`` of a folder."""
        path = Path(path)
        path = path / FILE_NAME if path.is_dir() else path
        if not path.exists():
            raise ProfileError(f"{path}: no such profile")
        try:
            content = read_json(path, finite=False)  # the key is named instead
        except WeightsError as error:
            raise ProfileError(f"a profile that is not valid JSON: {error}") from error
        return cls.from_dict(content, source=str(path))

    def save(self, path: str | Path) -> Path:
        """Write a JSON file, or the ``qsit.json`` of a folder; what ``load`` reads."""
        path = Path(path)
        path = path / FILE_NAME if path.is_dir() else path
        content = asdict(self)
        if self.scope_kind is None:
            del content["scope_kind"]  # or versions before it could not read the file
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Raise ProfileError unless the tokenizer turns the five words into the five ids, each a single token."""
        for word, expected in zip(self.level_words, self.level_token_ids, strict=True):
            ids = tokenizer.encode(word, add_special_tokens=False)
            if ids != [expected]:
                raise ProfileError(
                    f"level word {short(word)} is token {short(ids)} in this checkpoint's tokenizer, its profile "
                    f"expects [{expected}]: profile and tokenizer belong to different checkpoints. Give a profile of "
                    f"this checkpoint, or none: its own {FILE_NAME} is then used. Where that is wrong, repair it."
                )


OFFICIAL = ScoreProfile(
    question=(
        "Assume you are an image quality evaluator. \n"
        "Your rating should be chosen from the following five categories: "
        "Excellent, Good, Fair, Poor, and Bad (from high to low). \n"
        "How would you rate the quality of this image?"
    ),
    answer_prefix="The quality of this image is ",
    level_words=("Excellent", "Good", "Fair", "Poor", "Bad"),
    level_token_ids=(49655, 15216, 60795, 84103, 17082),
)
"""The published prompt and words. Prefix and words are tokenised apart: jointly they would give other tokens."""

TRAINING_CONSISTENT = ScoreProfile(
    question="Assume you are an image quality evaluator. How would you rate the quality of this image?",
    answer_prefix="The quality of the image is",
    level_words=(" excellent", " good", " fair", " poor", " bad"),
    level_token_ids=(9073, 1661, 6624, 7852, 3873),
)
"""The prompt and words of the official training JSONs: lower-case words after a prefix without trailing space."""

PROFILES = {"official": OFFICIAL, "training": TRAINING_CONSISTENT}


def profile_for(folder: str | Path, choice: ScoreProfile | str | Path | None = None) -> ScoreProfile:
    """The profile to use for a checkpoint folder.

    ``choice``: None takes the folder's ``qsit.json``, or ``OFFICIAL`` where there is none; a name of
    ``PROFILES``, a path, or a profile takes that one.
    """
    if isinstance(choice, ScoreProfile):
        return choice
    if choice is None:
        return ScoreProfile.load(folder) if (Path(folder) / FILE_NAME).is_file() else OFFICIAL
    if str(choice) in PROFILES:
        return PROFILES[str(choice)]
    if not Path(choice).exists():
        raise ProfileError(f"no profile {str(choice)!r}: give one of {', '.join(PROFILES)} or the path of a JSON file")
    return ScoreProfile.load(choice)


def profile_name(own: ScoreProfile, given: Any = None) -> str:
    """How a row names its profile: what the user gave, else ``official``, ``training`` or ``qsit.json``.

    Token ids do not count: the same question and words have other ids in another tokenizer.
    """
    if given is not None and not isinstance(given, ScoreProfile):
        return str(given)

    def asked(profile: ScoreProfile) -> tuple[Any, ...]:
        return profile.question, profile.answer_prefix, profile.level_words, profile.weights

    return next((name for name, known in PROFILES.items() if asked(own) == asked(known)), FILE_NAME)


def multiple_choice(question: str, options: Sequence[str]) -> str:
    """The wording of Q-SiT's multiple-choice evaluation: the question, then one option a line, as ``A. blur``."""
    lines = [f"{letter}. {option}" for letter, option in zip(letters(len(options)), options, strict=True)]
    return question + "\n" + "\n".join(lines)


def letters(count: int) -> list[str]:
    """``["A", "B", …]``; at most 26 options have a letter."""
    if not 2 <= count <= 26:
        raise ValueError(f"a choice needs 2 to 26 options, got {count}")
    return [chr(ord("A") + i) for i in range(count)]


MAX_NEW_TOKENS = 200
"""Of an answer, as in the released script."""

EXPLAIN = "Describe and evaluate the quality of the image."
"""The description question of Q-Bench (task A2)."""

ATTRIBUTES = {
    "sharpness": "How is the sharpness of this image?",
    "noise": "How clean of noise is this image?",
    "exposure": "How is the exposure of this image?",
    "color": "How is the color of this image?",
    "contrast": "How is the contrast of this image?",
    "compression": "How clean of compression artifacts is this image?",
}
"""Six aspects and how they are asked, each with the options "good" and "poor"."""
