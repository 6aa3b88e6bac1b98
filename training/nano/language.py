"""The language stage: the language model learns to talk about codes, before there are images.

In the joint stage an image costs a hundred times what a question costs, and reading a letter off a list of options is a
matter of questions, not of images. So the language model first reads *codes*: a few noisy vectors that say which
distortions are there and how strong. The evidence stage goes on from there with what a tower says, in the same vectors.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlavaOnevisionForConditionalGeneration

import qsit_plugin
from qsit_plugin.chat import Conversation
from qsit_plugin.checkpoint.saving import CHAT_TEMPLATE
from qsit_plugin.engines.torch_engine import TorchEngine
from qsit_plugin.tiling import Tiling

from ..synthetic import text
from ..synthetic.distortions import KINDS, Defect, severity_score
from ..synthetic.photos import COMBINED
from . import tokenizer
from .architecture import PREPROCESSOR, WIDTH, model_config
from .loop import Loop, Stage, log_means
from .optimizers import adamw
from .tower import CLEAN, TowerWithHeads, inner_tower, kind_shares, soft_levels
from .turns import FILLS, LAYER, ChoiceHeads, padded, tokens_of, word_losses

CODE_TOKENS = 8
NOISE = 0.08
"""Of a code vector, in each dimension."""


@dataclass(frozen=True)
class ReadingStage(Stage):
    """Settings of the stages in which the language model reads codes or evidence."""

    batch: int = 48
    width: int = WIDTH
    """Of the language model. A light model with half of it is what the balance is searched on; one with half the layers
    learns no letters, which takes two to see what an option says of the image, and more to look its letter up."""


@dataclass(frozen=True)
class LanguageStage(ReadingStage):
    """Settings of the language stage."""

    steps: int = 3000
    learning_rate: float = 2e-3
    checkpoint: str | None = None
    """Start from the language model of this checkpoint (qsit-nano, or a folder) instead of a new one."""
    save_every: int = 500


def code_book(seed: int, width: int = WIDTH) -> Tensor:
    """(22, width) orthonormal vectors: the distortions, a clean view, and the direction of strength."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, CLEAN + 2, generator=generator)).Q.T.contiguous()


def code(book: Tensor, defects: Sequence[Defect]) -> Tensor:
    """(width,) the code of a view: its kinds, each by its share of the blame, and the strength of the first.

    Strength has a direction of its own: as a length it would vanish in the language model's normalisation.
    """
    visible = defects[0].visible if defects else 0.0
    shares = torch.tensor(kind_shares(defects))
    return shares @ book[: CLEAN + 1] + (2.0 * visible - 1.0) * book[-1]


Lesson = tuple[Tensor, list[tuple[Defect, ...]], list[float]]
"""(N, tokens, width) codes, and the defects and the severity score of each view."""

Lessons = Callable[[int, int], Lesson]
"""Takes the number of a lesson and its number of views."""


class Codes:
    """Ideal codes of distortions drawn at random; lesson by number."""

    def __init__(self, book: Tensor, seed: int):
        self.book, self.seed = book, seed

    def lesson(self, number: int, count: int) -> Lesson:
        rng = np.random.default_rng([self.seed, 3, number])
        views = [self._defects(rng) for _ in range(count)]
        codes = torch.stack([code(self.book, defects) for defects in views])[:, None].expand(-1, CODE_TOKENS, -1)
        noise = torch.from_numpy(rng.standard_normal(codes.shape, np.float32))
        return codes + NOISE * noise, views, [severity_score(defects) for defects in views]

    def _defects(self, rng: np.random.Generator) -> tuple[Defect, ...]:
        if rng.random() < 0.08:
            return ()
        count = 2 if rng.random() < COMBINED else 1
        kinds = rng.choice(len(KINDS), size=count, replace=False)
        defects = [Defect(KINDS[kind], float(rng.uniform(0.05, 1.0))) for kind in kinds]
        return tuple(sorted(defects, key=lambda defect: -defect.harm))


def turns_of(lesson: Lesson, conversation: Conversation, rng: np.random.Generator) -> tuple[Tensor, ...]:
    """One turn about each view, mostly the multiple-choice one, which is the hardest to learn: (codes, scores, ids,
    labels, roles, marks), the last four (N, T), padded on the right."""
    codes, views, scores = lesson
    rows = []
    for defects, score in zip(views, scores, strict=True):
        turns = text.turns_for(defects, score, rng)
        turn = turns[1] if rng.random() < 0.5 else text.pick(turns, rng)
        rows.append(tokens_of(turn, conversation))
    return codes, torch.tensor(scores), *padded(rows, FILLS)


@dataclass
class Learner:
    """The whole model with what the stages of the language model need beside it."""

    model: LlavaOnevisionForConditionalGeneration
    heads: ChoiceHeads
    conversation: Conversation
    engine: TorchEngine
    level_ids: list[int]

    def take_tower(self, tower: TowerWithHeads, share: float = 1.0) -> None:
        """The tower of the tower stage, or the mean of its weights, ``share`` of it, and those of the tower so far."""
        mine = inner_tower(self.model.model.vision_tower)
        made, before = inner_tower(tower.tower).state_dict(), mine.state_dict()
        mine.load_state_dict({name: before[name].lerp(weight, share) for name, weight in made.items()})

    def train(self, lessons: Lessons, stage: ReadingStage, state: Path | None = None) -> None:
        """The language model and the choice heads, a lesson a step; resumes from ``state`` if it exists."""
        modules = [self.model.model.language_model, self.heads]
        optimizer = adamw(parameter for module in modules for parameter in module.parameters())
        loop = Loop(stage, modules, [optimizer], log_means(stage.steps, 100, "{:.1f} steps/s", keep=0.95), state)
        for step, _ in loop.over(range):
            done = step / stage.steps
            falling = 1.0 if done < 0.7 else (1.0 - done) / 0.3 + 0.03
            rng = np.random.default_rng([stage.seed, 2, step])
            turns = turns_of(lessons(step, stage.batch), self.conversation, rng)
            with stage.autocast():
                parts = self.losses(*turns)
            loop.descend(stage.learning_rate * min(1.0, (step + 1) / 100) * falling, parts)

    def losses(
        self, codes: Tensor, scores: Tensor, ids: Tensor, labels: Tensor, roles: Tensor, marks: Tensor
    ) -> dict[str, Tensor]:
        """Of the turns of ``turns_of``: soft level, letter, first word, half of the rest, and those of the heads."""
        head = self.engine.embed(self.conversation.prompt("").before).expand(len(ids), -1, -1)
        embedded = torch.cat([head, codes, self.model.get_input_embeddings()(ids)], dim=1)
        out = self.model.model.language_model(inputs_embeds=embedded, use_cache=False, output_hidden_states=True)
        text_at = slice(embedded.shape[1] - ids.shape[1], None)
        keep = labels >= 0
        logs = self.model.lm_head(out.last_hidden_state[:, text_at][keep]).float().log_softmax(-1)
        words, level = word_losses(logs, labels[keep], roles[keep]), roles[keep] == 1
        wanted = soft_levels(scores[:, None].expand_as(labels)[keep][level])
        soft = -(wanted * logs[level][:, self.level_ids]).sum(-1)
        choices = self.heads(out.hidden_states[LAYER][:, text_at], marks)
        return {"level": soft.mean() if len(soft) else words["rest"] * 0, **words, **choices}

    def save(self, out: str | Path) -> None:
        """All weights under the model's own names, the tied head left out, and the choice heads under ``choice.``."""
        state = {k: v.contiguous() for k, v in self.model.state_dict().items() if not k.startswith("lm_head")}
        save_file(state | {f"choice.{k}": v for k, v in self.heads.state_dict().items()}, out)


def learner(width: int = WIDTH, result: str | Path | None = None) -> Learner:
    """A new one with a language model of this width, or one with the weights of an earlier result of these stages."""
    words = tokenizer.build()
    model, heads = LlavaOnevisionForConditionalGeneration(model_config(words.get_vocab(), width)), ChoiceHeads(width)
    if result:
        weights = load_file(result)
        left = model.load_state_dict({k: v for k, v in weights.items() if not k.startswith("choice.")}, strict=False)
        if left.unexpected_keys or set(left.missing_keys) - {"lm_head.weight"}:
            raise ValueError(f"{result} is not what the language stage writes with this transformers version: {left}")
        model.tie_weights()
        heads.load_state_dict({k.removeprefix("choice."): v for k, v in weights.items() if k.startswith("choice.")})
    return Learner(
        model,
        heads,
        Conversation(words, CHAT_TEMPLATE, words.convert_tokens_to_ids("<image>")),
        TorchEngine(model, Tiling.from_configs(model.config, PREPROCESSOR)),
        list(tokenizer.profile(words).level_token_ids),
    )


def take_weights(made: Learner, checkpoint: str | Path) -> None:
    """The weights of a checkpoint that this package wrote; the choice heads, which it has not, are learned again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what nano says of its scores is not meant for those who train it
        weights = qsit_plugin.load(checkpoint, engine="torch", device="cpu", dtype="float32").engine.hf.state_dict()
    made.model.load_state_dict(weights)


def train(out: Path, stage: LanguageStage) -> None:
    """Train, or resume, the language model on codes. Writes ``out``, and beside it a state (.state) until the end."""
    stage.begin()
    new, state = learner(stage.width), out.with_suffix(".state")
    if stage.checkpoint:
        take_weights(new, stage.checkpoint)
    new.train(Codes(code_book(stage.seed, stage.width), stage.seed).lesson, stage, state)
    new.save(out)
    state.unlink(missing_ok=True)
