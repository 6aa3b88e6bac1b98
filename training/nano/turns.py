"""Turns as tokens, and what is learned of them: levels, letters, words.

A letter needs help: without it none was learned better than chance in 10,000 images, since nothing tells the model that
it must first mark the option that fits and then look up its letter. Two small heads on an inner layer, thrown away
after training, ask for just that at the end of every option's line: does it fit, and which letter is it?
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from qsit_plugin.chat import Conversation

from ..synthetic import text

LAYER = 2
"""The layer that the choice heads read, of four; the other two remain for looking the marked letter up."""

NO_OPTION = -1

Tokens = tuple[list[int], list[int], list[int], list[int]]
"""Ids, labels, roles and option marks of a turn, token by token: ``labels`` is the token that follows, -100 where
nothing is to be learned; ``roles`` what the label is (0 rest, 1 level, 2 letter, 3 first word of a text); ``marks`` the
ends of options, see option_marks."""

FILLS = (0, -100, 0, NO_OPTION)
"""What Tokens are padded with."""


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


def option_marks(question: list[int], newline: int, end_of_turn: int, options: int, right: int) -> list[int]:
    """For each token of a multiple-choice question: 2 * letter + fits at the end of an option's line, else NO_OPTION.

    ``question`` is what follows the image: a newline, the question's line, then one line an option, the last one ended
    by the end of the turn.
    """
    ends = [i for i, token in enumerate(question) if token == newline][2:]
    marks = [NO_OPTION] * len(question)
    for letter, place in enumerate([*ends[: options - 1], question.index(end_of_turn)]):
        marks[place] = 2 * letter + int(letter == right)
    return marks


def padded(rows: Sequence[Sequence[Sequence[int]]], fills: Sequence[int]) -> list[torch.Tensor]:
    """For every column of the rows a tensor (rows, longest), padded on the right with the column's fill."""
    length = max(len(row[0]) for row in rows)
    return [torch.tensor([[*row[i], *[fill] * (length - len(row[i]))] for row in rows]) for i, fill in enumerate(fills)]


class ChoiceHeads(nn.Module):
    """Reads "fits" and the letter off hidden states (…, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fits = nn.Linear(width, 1)
        self.letter = nn.Linear(width, 26)

    def forward(self, hidden: torch.Tensor, marks: torch.Tensor) -> dict[str, torch.Tensor]:
        """Losses at the marked places of (B, T, width) states; ``marks`` (B, T) as from option_marks."""
        known = marks >= 0
        states, truth = hidden[known], marks[known]
        fits = F.binary_cross_entropy_with_logits(self.fits(states)[:, 0], (truth % 2).float())
        return {"fits": 2.0 * fits, "which": 0.5 * F.cross_entropy(self.letter(states), truth // 2)}


def word_losses(logs: torch.Tensor, labels: torch.Tensor, roles: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of (N, V) log probabilities at N labels: the letters, the first words, and half of the rest; 0 for a role that
    no label has."""
    plain = -logs.gather(-1, labels[:, None])[:, 0]
    parts = {name: plain[roles == role] for name, role in (("letter", 2), ("first", 3))}
    means = {name: part.mean() if len(part) else plain.sum() * 0 for name, part in parts.items()}
    return means | {"rest": 0.5 * plain[roles == 0].mean()}
