"""How a choice is learned: help for the two steps between reading the options and naming a letter.

Without it no letter was learned better than chance in 10,000 images: nothing tells the model that it must first mark
the option that fits and then look up its letter. Two small heads on an inner layer, thrown away after training, ask for
just that at the end of every option's line: does it fit, and which letter is it?
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .architecture import WIDTH

LAYER = 2
"""Of four; the other two remain for looking the marked letter up."""

NO_OPTION = -1


def option_marks(question: list[int], newline: int, end_of_turn: int, options: int, right: int) -> list[int]:
    """For each token of a lettered question: 2 * letter + fits at the end of an option's line, else NO_OPTION.

    ``question`` is what follows the image: a newline, the question's line, then one line an option, the last one ended
    by the end of the turn.
    """
    ends = [i for i, token in enumerate(question) if token == newline][2:]
    ends = [*ends[: options - 1], question.index(end_of_turn)]
    marks = [NO_OPTION] * len(question)
    for letter, place in enumerate(ends):
        marks[place] = 2 * letter + int(letter == right)
    return marks


class ChoiceHeads(nn.Module):
    """Reads "fits" and the letter off hidden states (…, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.fits = nn.Linear(WIDTH, 1)
        self.letter = nn.Linear(WIDTH, 26)

    def forward(self, hidden: torch.Tensor, marks: torch.Tensor) -> dict[str, torch.Tensor]:
        """Losses at the marked places of (B, T, WIDTH) states; ``marks`` (B, T) as from option_marks."""
        known = marks >= 0
        states, truth = hidden[known], marks[known]
        fits = F.binary_cross_entropy_with_logits(self.fits(states)[:, 0], (truth % 2).float())
        return {"fits": 2.0 * fits, "which": 0.5 * F.cross_entropy(self.letter(states), truth // 2)}
