"""A training row as tokens, and which of them are learned. Needs numpy only.

The tokens are those that inference reads and writes: the question through ``conversation.Conversation``, the answer
prefix and the level word of a rating each tokenised alone. Learned are the answers and the token that ends each.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsit_plugin.chat import Conversation
from qsit_plugin.protocol import LEVELS, ScoreProfile

from ..config import ConfigError
from .conversion import level_said
from .rows import RowError, TrainingRow


@dataclass(frozen=True)
class Tokens:
    """A row in tokens: ``before``, then the image's, then ``after``.

    ``learned``: bool, one for each of ``after``; whether the model is to write that token. ``level``: the place in
    ``after`` of the level word, None where the row is no rating.
    """

    before: np.ndarray  # int32
    after: np.ndarray  # int32
    learned: np.ndarray  # bool
    level: int | None

    @property
    def length(self) -> int:
        """Tokens besides the image's."""
        return len(self.before) + len(self.after)


def check_profile(profile: ScoreProfile, tokenizer: Any) -> None:
    """Raise ConfigError unless a rating's answer as one text has the tokens at which inference reads the score.

    A model trained on other tokens would be read where it has learned nothing.
    """
    for word, token in zip(profile.level_words, profile.level_token_ids, strict=True):
        apart = [_ids(tokenizer, profile.answer_prefix), [token], _ids(tokenizer, ".")]
        together = _ids(tokenizer, f"{profile.answer_prefix}{word}.")
        if together != sum(apart, []):
            raise ConfigError(
                f"the profile tokenises badly: {profile.answer_prefix + word + '.'!r} is {together} as one text, but "
                f"the score is read after {apart[0]}, at {token}. Give profile: training (prefix without a space at "
                "its end, words with one before them), or a qsit.json of that kind"
            )


def tokens_of(row: TrainingRow, conversation: Conversation, profile: ScoreProfile, stop_ids: Collection[int]) -> Tokens:
    """The tokens of a row.

    Raises RowError where its wording is not the profile's, the chat template does not render an answer as it is, or no
    token ends the answer.
    """
    if row.task == "score":
        _check_wording(row, profile)
    turns = [_text(turn) for turn in row.messages]
    try:
        prompt = conversation.prompt(turns[0])
    except ValueError as error:
        raise RowError(str(error)) from None
    after, learned, level = list(prompt.after), [False] * len(prompt.after), None
    for number in range(1, len(turns), 2):
        answer = turns[number].strip()
        pieces = _pieces(answer, profile, conversation) if row.task == "score" else [_encode(conversation, answer)]
        if row.task == "score":
            level = len(after) + len(pieces[0])
        written = sum(pieces, [])
        between = _encode(conversation, _between(conversation, turns, number))
        if not written or not between or between[0] not in stop_ids:
            raise RowError(
                f"after the answer {answer[:40]!r} the chat template renders token {between[:1]}, which ends no answer "
                f"(of these one must: {sorted(stop_ids)}): mend the template or eos_token_id of the checkpoint"
            )
        if number == len(turns) - 1:
            between = between[:1]  # what follows the last end of turn is never read
        after += written + between
        learned += [True] * (len(written) + 1) + [False] * (len(between) - 1)
    if conversation.image_token_id in after:
        raise RowError("its text holds the image token: take it out")
    return Tokens(np.array(prompt.before, np.int32), np.array(after, np.int32), np.array(learned), level)


def _check_wording(row: TrainingRow, profile: ScoreProfile) -> None:
    """A rating must be asked and answered as inference asks and reads it."""
    question, answer = _text(row.messages[0]), _text(row.messages[1]).strip()
    if question != profile.question or level_said(answer, profile) is None or len(row.messages) != 2:
        raise RowError(
            f"it is a rating, but not in the profile's words ({profile.question!r}, "
            f"{profile.answer_prefix + profile.level_words[1] + '.'!r}); it says {question!r}, {answer!r}. Give the "
            "profile that the rows were written with (profile: training for qsit train convert's default), or convert "
            "them again with --profile"
        )


def _pieces(answer: str, profile: ScoreProfile, conversation: Conversation) -> list[list[int]]:
    """Prefix, level word and what follows, tokenised apart as at inference."""
    level = LEVELS.index(level_said(answer, profile) or "")
    rest = answer[len(profile.answer_prefix) + len(profile.level_words[level]) :]
    prefix = _encode(conversation, profile.answer_prefix)
    return [prefix, [profile.level_token_ids[level]], _encode(conversation, rest)]


def _between(conversation: Conversation, turns: list[str], number: int) -> str:
    """What the chat template renders from the end of an answer to the beginning of the next, or to its end."""
    until = _render(conversation, turns[:number], opened=True) + turns[number].strip()
    last = number == len(turns) - 1
    whole = _render(conversation, turns if last else turns[: number + 2], opened=not last)
    if not whole.startswith(until):
        raise RowError(
            f"the chat template does not render the answer {turns[number].strip()[:40]!r} after the question as it is "
            f"asked: {whole[:200]!r}; mend the checkpoint's chat template"
        )
    return whole[len(until) :]


def _render(conversation: Conversation, turns: list[str], *, opened: bool) -> str:
    """The turns through the template, the first with the image as in ``Conversation.render``."""
    messages: list[dict[str, Any]] = []
    for number, text in enumerate(turns):
        content = [{"type": "image"}] if number == 0 else []
        role = ("user", "assistant")[number % 2]
        text = text.strip() if role == "assistant" else text
        messages.append({"role": role, "content": [*content, {"type": "text", "text": text}]})
    return conversation.tokenizer.apply_chat_template(
        messages, chat_template=conversation.chat_template, tokenize=False, add_generation_prompt=opened
    )


def _text(turn: dict[str, Any]) -> str:
    return "\n".join(part["text"] for part in turn["content"] if part["type"] == "text")


def _encode(conversation: Conversation, text: str) -> list[int]:
    return _ids(conversation.tokenizer, text)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)
