"""A training row as tokens, and which of them are learned. Needs numpy only.

The tokens are those that inference reads and writes: the question through ``conversation.Conversation``, the answer
prefix and the level word of a rating each tokenised alone. Learned are the answers and the token that ends each. Rows
without images or with several, which inference does not know, are rendered part by part, as transformers'
``apply_chat_template`` does.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np

from qsit_plugin.chat import Conversation
from qsit_plugin.protocol import LEVELS, ScoreProfile

from ..config import ConfigError
from .rows import RowError, TrainingRow, level_in

Turn = tuple[str | None, ...]
"""The parts of a turn: texts, and None for an image."""


@dataclass(frozen=True)
class Tokens:
    """A row in tokens. In ``ids`` one image token stands for each image, whatever the number of its own.

    ``learned``: bool, one for each of ``ids``; whether the model is to write that token. ``level``: the place in
    ``ids`` of the level word, None where the row is no rating.
    """

    ids: np.ndarray  # int32
    learned: np.ndarray  # bool
    level: int | None


def check_profile(profile: ScoreProfile, tokenizer: Any) -> None:
    """Raise ConfigError unless a rating's answer as one text has the tokens at which inference reads the score.

    A model trained on other tokens would be read where it has learned nothing.
    """
    for word, token in zip(profile.level_words, profile.level_token_ids, strict=True):
        apart = [_ids(tokenizer, profile.answer_prefix), (token,), _ids(tokenizer, ".")]
        together = _ids(tokenizer, f"{profile.answer_prefix}{word}.")
        if together != sum(apart, ()):
            raise ConfigError(
                f"the profile tokenises badly: {profile.answer_prefix + word + '.'!r} is {list(together)} as one text, "
                f"but the score is read after {list(apart[0])}, at {token}. Give profile: training (prefix without a "
                "space at its end, words with one before them), or a qsit.json of that kind"
            )


class RowTokenizer:
    """Makes tokens of rows. Texts that come again, such as the question and the five answers of ratings, are rendered
    and tokenised once."""

    def __init__(self, conversation: Conversation, profile: ScoreProfile, stop_ids: Collection[int]):
        self.conversation, self.profile, self.stop_ids = conversation, profile, stop_ids
        self._render = lru_cache(maxsize=4096)(partial(_render, conversation))
        self._ids = lru_cache(maxsize=4096)(partial(_ids, conversation.tokenizer))
        self._prompt_ids = lru_cache(maxsize=4096)(conversation.tokenizer.encode)

    def __call__(self, row: TrainingRow) -> Tokens:
        """The tokens of a row.

        Raises RowError where its wording is not the profile's, the chat template does not render an answer or an image
        as it is, or no token ends the answer.
        """
        if row.task == "score":
            _check_wording(row, self.profile)
        turns = tuple(_turn(turn, len(row.images)) for turn in row.messages)
        rendered = [self._render(turns[:number], opened=True) for number in range(1, len(turns), 2)]
        ids = list(self._prompt_ids(rendered[0]))  # with what this tokenizer puts at the beginning of every prompt
        learned, level = [False] * len(ids), None
        rendered.append(self._render(turns, opened=False))
        for number, (before, whole) in enumerate(pairwise(rendered)):
            answer = _text(row.messages[2 * number + 1]).strip()
            if not whole.startswith(before + answer):
                raise RowError(
                    f"the chat template does not render the answer {answer[:40]!r} after the question as it is asked: "
                    f"{whole[:200]!r}; fix the checkpoint's chat template"
                )
            pieces = self._pieces(answer) if row.task == "score" else [self._ids(answer)]
            if row.task == "score":
                level = len(ids) + len(pieces[0])
            written = sum(pieces, ())
            between = self._ids(whole[len(before + answer) :])
            if not written or not between or between[0] not in self.stop_ids:
                raise RowError(
                    f"after the answer {answer[:40]!r} the chat template renders token {list(between[:1])}, which ends "
                    f"no answer (of these one must: {sorted(self.stop_ids)}): fix the template or eos_token_id of the "
                    "checkpoint"
                )
            if number == len(rendered) - 2:
                between = between[:1]  # what follows the last end of turn is never read
            ids += written + between
            learned += [True] * (len(written) + 1) + [False] * (len(between) - 1)
        self._check_images(row, ids.count(self.conversation.image_token_id))
        return Tokens(np.array(ids, np.int32), np.array(learned), level)

    def _pieces(self, answer: str) -> list[tuple[int, ...]]:
        """Prefix, level word and what follows, tokenised apart as at inference."""
        profile = self.profile
        level = LEVELS.index(level_in(answer, profile) or "")
        rest = answer[len(profile.answer_prefix) + len(profile.level_words[level]) :]
        return [self._ids(profile.answer_prefix), (profile.level_token_ids[level],), self._ids(rest)]

    def _check_images(self, row: TrainingRow, shown: int) -> None:
        if shown != len(row.images):
            token = self.conversation.tokenizer.convert_ids_to_tokens(self.conversation.image_token_id)
            raise RowError(
                f"it is rendered with {shown} image tokens instead of {len(row.images)}: take {token!r} out of its "
                "text, or fix the checkpoint's chat template"
            )


def _check_wording(row: TrainingRow, profile: ScoreProfile) -> None:
    """A rating must be asked and answered as inference asks and reads it."""
    question, answer = _text(row.messages[0]), _text(row.messages[1]).strip()
    if question != profile.question or level_in(answer, profile) is None or len(row.messages) != 2:
        raise RowError(
            f"it is a rating, but not in the profile's words ({profile.question!r}, "
            f"{profile.answer_prefix + profile.level_words[1] + '.'!r}); it says {question!r}, {answer!r}. Give the "
            "profile that the rows were written with (profile: training for qsit train convert's default), or convert "
            "them again with --profile"
        )


def _turn(turn: dict[str, Any], images: int) -> Turn:
    """A turn's parts. An only image comes before the question, as in ``Conversation.render``."""
    if turn["role"] == "assistant":
        return (_text(turn).strip(),)
    parts = tuple(part.get("text") for part in turn["content"])
    return parts if images != 1 else (*[None] * parts.count(None), _text(turn))


def _render(conversation: Conversation, turns: tuple[Turn, ...], *, opened: bool) -> str:
    """The turns through the template, up to where the next answer begins (``opened``) or to the end of the last."""
    if opened and len(turns) == 1 and len(turns[0]) == 2 and turns[0][0] is None and turns[0][1] is not None:
        return conversation.render(turns[0][1])
    messages = [
        {
            "role": ("user", "assistant")[number % 2],
            "content": [{"type": "image"} if part is None else {"type": "text", "text": part} for part in turn],
        }
        for number, turn in enumerate(turns)
    ]
    return conversation.tokenizer.apply_chat_template(
        messages, chat_template=conversation.chat_template, tokenize=False, add_generation_prompt=opened
    )


def _text(turn: dict[str, Any]) -> str:
    return "\n".join(part["text"] for part in turn["content"] if part["type"] == "text")


def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False))
