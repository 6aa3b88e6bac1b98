"""The joint stage: the whole model on whole images, cut by the processor's own tiling.

First projector and language model are trained on the frozen tower, then everything, the tower at 0.3 of the learning
rate: with one rate it forgets what the tower stage taught it. Each image carries five questions behind one image
prefix; a block mask hides the questions from each other, so that none reads another's answer. In some batches
(``scoring``) only the score is asked for.

A round that goes on from a finished checkpoint needs neither codes nor evidence: with ``checkpoint`` its language model
and projector are taken as they are, and ``start`` is the result of the tower stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qsit_plugin.checkpoint.saving import CHAT_TEMPLATE, save_portable
from qsit_plugin.engines.torch_engine import TorchEngine, normalise

from ..synthetic.photos import load_split
from . import tokenizer
from .architecture import PREPROCESSOR, TILE, WIDTH, use_plain_attention
from .batches import Batch, Batches
from .language import Learner, learner, take_weights
from .loop import Loop, Numbered, Stage, log_means
from .optimizers import BETAS, MUON, cosine, is_hidden, muon
from .tower import LEVELS, inner_tower, load_result, rank_losses, soft_levels
from .turns import LAYER, ChoiceHeads, word_losses

TOWER_SHARE = 0.3
"""Learning rate of the tower over that of the rest."""

FILE_COST = 0.1
"""By how many levels a view as a photo file shall be below the lossless one, at least: .025 of the score, which nobody
sees. With 0 chance would put every other file above, with .06 still 5 of 12 held-out photos above by .01."""

FILE_WEIGHT = 6.0
"""Weight of what a file is above that. With 2 twelve photos were still .012 of the score above, on average, after 500
steps."""

GROUPS = ((0.0, TOWER_SHARE), (0.05, 1.0), (0.0, 1.0))
"""Weight decay and share of the learning rate: the tower, matrices elsewhere, the rest."""


@dataclass(frozen=True)
class JointStage(Stage):
    """Settings of the joint stage."""

    steps: int = 1300
    learning_rate: float = 7e-4
    frozen: float = 0.15
    """Share of the steps with the tower frozen."""
    early: float = 0.45
    """Share of the steps with mostly small grids."""
    augmentation: float = 0.0
    """Share of the photos that are composed of several, flipped, and given another look; see ``augmented``."""
    scoring: float = 0.0
    """Share of the batches in which only the score is asked for."""
    width: int = WIDTH
    """Of the language model, where it goes on from no checkpoint."""
    checkpoint: str | None = None
    """Go on from this checkpoint (qsit-nano, or a folder); the start is then the tower stage's result."""
    new_tower: float = 1.0
    """Weight of the tower stage's tower in its mean with the checkpoint's; see ``average``."""
    save_every: int = 100


def forward(
    engine: TorchEngine, before: tuple[int, ...], batch: Batch, freeze_tower: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T, V) logits at the text tokens and (B, T, D) states after the layer that the choice heads read.

    Each turn sees the image and itself, as if it were asked alone.
    """
    count, views = batch.tiles.shape[:2]
    same = views == 2 and batch.size == (TILE, TILE)  # base view and only tile are the same pixels: look once
    tiles = batch.tiles[:, :1] if same else batch.tiles
    with torch.set_grad_enabled(torch.is_grad_enabled() and not freeze_tower):
        pixels = normalise(engine.tiling, tiles.flatten(0, 1))
        features = torch.cat([_features(engine.hf.model.vision_tower, chunk) for chunk in pixels.split(64)])
    base = engine.hf.model
    projected = base.multi_modal_projector(features).unflatten(0, (count, -1))
    projected = projected.expand(-1, views, -1, -1) if same else projected
    packed, _ = base.pack_image_features(
        list(projected),
        [(batch.size[1], batch.size[0])] * count,
        image_newline=base.image_newline,
        vision_aspect_ratio=f"anyres_max_{engine.tiling.max_tiles}",
    )
    head = engine.embed(before).expand(count, -1, -1)
    embedded = torch.cat([head, torch.stack(list(packed)), engine.hf.get_input_embeddings()(batch.ids)], dim=1)
    prefix = embedded.shape[1] - batch.ids.shape[1]
    alone = int(batch.turn.max()) == 0  # causal is enough, and attention without a mask is faster
    mask, positions = (None, None) if alone else block_mask(batch, prefix)
    out = base.language_model(
        inputs_embeds=embedded, attention_mask=mask, position_ids=positions, use_cache=False, output_hidden_states=True
    )
    return engine.hf.lm_head(out.last_hidden_state[:, prefix:]), out.hidden_states[LAYER][:, prefix:]


def _features(tower: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """(N, 3, S, S) -> (N, tokens, WIDTH): the last layer's output, as Network takes it, by the tower's own layers."""
    inner: Any = inner_tower(tower)
    return inner.encoder(inputs_embeds=inner.embeddings(pixels)).last_hidden_state


def block_mask(batch: Batch, prefix: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Additive mask (B, 1, L, L) and position ids (B, L): causal, and turns see the prefix and themselves only."""
    turn = F.pad(batch.turn, (prefix, 0), value=-2)  # -2 marks the prefix
    place = F.pad(batch.position + prefix, (prefix, 0))
    place[:, :prefix] = torch.arange(prefix)
    length = turn.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = causal & ((turn[:, None, :] == -2) | (turn[:, :, None] == turn[:, None, :]))
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return mask[:, None], place


def losses_of(
    logits: torch.Tensor, states: torch.Tensor, batch: Batch, level_ids: list[int], heads: ChoiceHeads | None
) -> dict[str, torch.Tensor]:
    """Soft level and order of the pairs and of all images; where more than the score is asked for, also letter, first
    word, half of the rest, and the help of the choice heads, if there are any."""
    known = batch.labels >= 0
    logs, roles = logits[known].log_softmax(-1), batch.role[known]
    levels = logs[roles == 1][:, level_ids]  # one row an image, in order
    value = levels.softmax(-1) @ LEVELS
    rank, all_ranks = rank_losses(value, batch.scores)
    parts = {"level": -(soft_levels(batch.scores) * levels).sum(-1).mean(), "rank": rank, "ranks": all_ranks}
    if batch.filed is not None and batch.filed.any():
        parts["file"] = file_loss(value, batch.filed)
    if (roles == 2).any():
        parts |= word_losses(logs, batch.labels[known], roles)
        parts |= heads(states, batch.mark) if heads else {}
    return parts


def file_loss(value: torch.Tensor, filed: torch.Tensor) -> torch.Tensor:
    """How far files are above FILE_COST under their lossless originals: (B,) levels in pairs, (B/2,) which are so."""
    lossless, as_file = value.unflatten(0, (-1, 2))[filed].unbind(-1)
    return FILE_WEIGHT * F.relu(as_file - lossless + FILE_COST).mean()


def optimizers_for(model: nn.Module, heads: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside layers, AdamW for the rest; the tower at TOWER_SHARE of the rate, without decay."""
    hidden: list[dict[str, Any]] = [{"params": [], "weight_decay": d, "factor": MUON * f} for d, f in GROUPS[:2]]
    rest: list[dict[str, Any]] = [{"params": [], "weight_decay": d, "factor": f} for d, f in GROUPS]
    rest.append({"params": list(heads.parameters()), "weight_decay": 0.0, "factor": 1.0})
    for name, parameter in model.named_parameters():
        tower = "vision_tower" in name
        group = 0 if tower else 1 if parameter.ndim > 1 else 2
        (hidden if is_hidden(name, parameter) else rest)[group]["params"].append(parameter)
    return [muon(hidden), torch.optim.AdamW(rest, betas=BETAS)]


def begin(start: Path, stage: JointStage) -> Learner:
    """What the evidence stage made, or the checkpoint with a mean of its tower and the one of the tower stage."""
    if stage.checkpoint is None:
        return learner(stage.width, start)
    made = learner()
    take_weights(made, stage.checkpoint)
    made.take_tower(load_result(start), stage.new_tower)
    return made


def steps(
    made: Learner, data: Numbered, stage: Any, state: Path, share: Callable[[int], float], heads: ChoiceHeads | None
) -> Iterator[Loop]:
    """Train the whole model, a batch a step, from the last state on; the loop after each step, before its state is
    saved. ``share``: of the learning rate at a step. ``stage``: with ``frozen``, as JointStage."""
    if stage.bfloat16:
        use_plain_attention(made.model)  # in float32 the fused one takes a third of its time
    before, log = made.conversation.prompt("").before, log_means(stage.steps, 50, "{:.1f} images/s")
    loop = Loop(stage, [made.model, made.heads], optimizers_for(made.model, made.heads), log, state)
    for step, batch in loop.over(data.loader):
        with stage.autocast():
            logits, states = forward(made.engine, before, batch, step < stage.frozen * stage.steps)
        parts = losses_of(logits.float(), states.float(), batch, made.level_ids, heads)
        loop.descend(stage.learning_rate * share(step), parts, len(batch.scores), clipped=made.model)
        yield loop


def train(photos: Path, start: Path, out: Path, stage: JointStage) -> None:
    """Train, or resume, the whole model. Writes the checkpoint folder ``out``, and a state beside it until the end."""
    stage.begin()
    images, made = load_split(photos)[0], begin(start, stage)
    heads = None if stage.checkpoint else made.heads  # a finished nano knows how a letter is chosen
    tiling, early = made.engine.tiling, round(stage.early * stage.steps)
    data = Batches(images, made.conversation, tiling, stage.seed, early, stage.augmentation, stage.scoring)
    weights = sum(p.numel() for p in made.model.parameters()) / 1e6
    print(f"{len(images)} photos, {weights:.2f} M parameters", flush=True)
    state, trained = Path(f"{out}.state"), 0
    for loop in steps(made, data, stage, state, lambda step: cosine(step, stage.steps, warmup=60), heads):
        trained = loop.items
    print(f"final: {trained} images in this run", flush=True)
    write(made, out)
    state.unlink(missing_ok=True)


def write(made: Learner, out: Path, **about: Any) -> None:
    """The checkpoint folder, weights in bfloat16: loaded in float32 they differ by less than training noise. ``about``:
    fields of its profile, such as the scope."""
    words: Any = made.conversation.tokenizer
    form: Any = {"preprocessor": PREPROCESSOR, "chat_template": CHAT_TEMPLATE, "dtype": torch.bfloat16}
    save_portable(made.model, words, out, profile=replace(tokenizer.profile(words), **about), **form)
