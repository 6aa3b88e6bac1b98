"""Turns as tokens, with what is to be learned of them."""

from __future__ import annotations

from qsit_plugin.chat import Conversation

from ..synthetic import text
from .choice import NO_OPTION, option_marks

Tokens = tuple[list[int], list[int], list[int], list[int]]
"""Ids, labels, roles and option marks of a turn, token by token: ``labels`` is the token that follows, -100 where
nothing is to be learned; ``roles`` what the label is (0 rest, 1 level, 2 letter, 3 first word of a text); ``marks`` the
ends of options, see choice.option_marks."""


def tokens_of(turn: text.Turn, conversation: Conversation) -> Tokens:
    """(ids, labels, roles, marks) of one turn, from the image's end to the end of the answer."""
    words = conversation.tokenizer
    question = list(conversation.prompt(turn.question).after)
    marks = [NO_OPTION] * len(question)
    if turn.kind == "level":
        prefix = words.encode(text.PROFILE_PREFIX, add_special_tokens=False)
        answer = prefix + words.encode(turn.answer[len(text.PROFILE_PREFIX) :], add_special_tokens=False)
        roles = [0] * len(prefix) + [1] + [0] * (len(answer) - len(prefix))
    else:
        answer = words.encode(turn.answer, add_special_tokens=False)
        roles = [2 if turn.kind == "letter" else 3] + [0] * len(answer)
    if turn.kind == "letter":
        newline = words.convert_tokens_to_ids("Ċ")
        right = ord(turn.answer[0]) - ord("A")
        marks = option_marks(question, newline, words.eos_token_id, turn.question.count("\n"), right)
    answer = [*answer, words.eos_token_id]
    labels = [-100] * (len(question) - 1) + answer + [-100]
    return question + answer, labels, [0] * (len(question) - 1) + roles + [0], marks + [NO_OPTION] * len(answer)
