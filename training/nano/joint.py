"""Stages B and C: the whole model on whole images, cut by the processor's own tiling.

B trains projector and language model on the frozen tower, C everything, the tower at 0.3 of the learning rate:
with one rate the tower forgets what stage A taught it. Each image carries five questions behind one image prefix; a
block mask hides the questions from each other, so that none reads another's answer.

    python -m qsit_plugin.training.nano.joint --photos FOLDER --start start.safetensors --out nano --minutes 45
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from transformers import LlavaOnevisionForConditionalGeneration

from qsit_plugin.conversation import Conversation
from qsit_plugin.network import Network
from qsit_plugin.portable import CHAT_TEMPLATE, save_portable
from qsit_plugin.tiles import Tiling

from . import photos, text, tokenizer
from .architecture import PREPROCESSOR, TILE, model_config
from .choice import LAYER, NO_OPTION, ChoiceHeads, option_marks
from .distortions import camera_jpeg, distort, severity_score, visible_strength
from .tower import LEVELS, soft_levels

GRIDS = (
    ((1, 1),),
    ((1, 2), (2, 1), (2, 2)),
    ((2, 3), (3, 2), (3, 3)),
    ((3, 4), (4, 3), (4, 4), (4, 6), (6, 4)),
)
EARLY, LATE = (0.85, 0.12, 0.03, 0.0), (0.5, 0.27, 0.14, 0.09)
"""Tile grids (rows, columns) by cost, and their shares early (``--early``) and late: a large grid costs as much as ten
small ones, and questions are learned on the small ones just as well."""

HARDLY = 0.06
"""A distortion up to this strength lowers the score a little, but in words the image is clean."""

TOKENS_PER_BATCH = 12_000

Tokens = tuple[list[int], list[int], list[int], list[int]]
"""Ids, labels, roles and option marks of a turn, token by token; see Batch."""


@dataclass
class Batch:
    """B images of one size under one distortion each, in pairs (milder, stronger), with five turns each."""

    tiles: torch.Tensor  # uint8 (B, views, 3, S, S)
    size: tuple[int, int]  # width, height of every image
    scores: torch.Tensor  # (B,) severity scores on [1, 5]
    ids: torch.Tensor  # (B, T) text tokens after the image, all turns in a row, padded with 0
    turn: torch.Tensor  # (B, T) number of the turn a token belongs to, -1 = padding
    position: torch.Tensor  # (B, T) place of the token inside its turn
    labels: torch.Tensor  # (B, T) token that follows, -100 where nothing is to be learned
    role: torch.Tensor  # (B, T) what the label is: 0 rest, 1 level, 2 letter, 3 first word of a text
    mark: torch.Tensor  # (B, T) ends of options, see choice.option_marks


class Batches(torch.utils.data.IterableDataset):
    """Endless batches, each of one tile grid."""

    def __init__(self, images, conversation: Conversation, tiling: Tiling, seed: int, early_minutes: float):
        self.images, self.conversation, self.tiling, self.seed = images, conversation, tiling, seed
        self.early_minutes = early_minutes

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, 1, info.id if info else 0])
        start = time.monotonic()
        while True:
            early = time.monotonic() - start < 60 * self.early_minutes
            yield self.batch(rng, EARLY if early else LATE)

    def batch(self, rng: np.random.Generator, shares: tuple[float, ...] = LATE) -> Batch:
        grids = GRIDS[rng.choice(len(GRIDS), p=shares)]
        rows, columns = grids[int(rng.integers(len(grids)))]
        size = self._size(rows, columns, rng)
        pairs = max(1, min(16, TOKENS_PER_BATCH // (self.tiling.token_count(*size) + 300) // 2))
        tiles, scores, texts = [], [], []
        for _ in range(pairs):
            for image, name, visible in self._pair(size, rng):
                score = severity_score(name if visible > 0.0 else None, visible)
                name = name if visible > HARDLY else None
                tiles.append(self.tiling.cut(image))
                scores.append(score)
                texts.append(self._turns(text.turns_for(name, visible, score, rng), rng))
        return Batch(torch.stack(tiles), size, torch.tensor(scores, dtype=torch.float32), *_pad(texts))

    def _size(self, rows: int, columns: int, rng: np.random.Generator) -> tuple[int, int]:
        """A (width, height) that the tiling puts on this grid: exact, or enlarged to it, a small photo up to twice."""
        for _ in range(50):
            width, height = (round(n * TILE * rng.uniform(max(0.5, 1 - 1 / n), 1.0)) for n in (columns, rows))
            if rng.random() < 0.4:
                width, height = columns * TILE, rows * TILE
            if self.tiling.grid(width, height) == (rows, columns):
                return width, height
        return columns * TILE, rows * TILE

    def _pair(self, size: tuple[int, int], rng: np.random.Generator):
        """Two versions of one region. A quarter of them is distorted larger and shrunk, as big photos are."""
        width, height = size
        photo = self.images[int(rng.integers(len(self.images)))]
        scale = rng.uniform(0.35, 1.0) if rng.random() < 0.3 else 1.0
        fit = min(1.0, photo.width / (width / scale), photo.height / (height / scale))
        box_width, box_height = int(width / scale * fit), int(height / scale * fit)
        shown = width / box_width  # pixels of the view per pixel of the photo
        region = photo
        for _ in range(4):
            x, y = rng.integers(photo.width - box_width + 1), rng.integers(photo.height - box_height + 1)
            region = photo.crop((x, y, x + box_width, y + box_height))
            if np.asarray(region.convert("L").resize((32, 32))).std() > 14:
                break
        if rng.random() < 0.5:
            region = region.transpose(photos.Image.Transpose.FLIP_LEFT_RIGHT)
        if shown > 1.0:
            region, shown = region.resize(size, photos.Image.Resampling.LANCZOS), 1.0  # a small photo: enlarge first
        name, seed = photos.pick_name(region, rng, photos.DOUBTFUL), int(rng.integers(2**31))
        low, high = np.sort(rng.random(2))
        plan = [(name, low), (name, high)] if rng.random() > 0.25 else [(None, 0.0), (name, high)]
        for kind, strength in plan:
            chance = np.random.default_rng(seed)
            if kind is not None:
                image = distort(region, kind, strength, chance)
            else:
                image = camera_jpeg(region, chance) if chance.random() < 0.3 else region
            visible = 0.0 if kind is None else visible_strength(kind, strength, shown)
            yield image.resize(size, photos.Image.Resampling.BICUBIC) if image.size != size else image, kind, visible

    def _turns(self, turns: list[text.Turn], rng: np.random.Generator) -> list[Tokens]:
        """The turns as tokens. One in seven times the naming follows the description in one conversation: there the
        answer stands in the text, which teaches how a choice is made before the image is understood."""
        score, naming, aspect, describe, more = (tokens_of(turn, self.conversation) for turn in turns)
        if rng.random() > 0.15:
            return [score, naming, aspect, describe, more]
        glue = self.conversation.tokenizer.encode("\n<|im_start|>user", add_special_tokens=False)
        quiet = ([-100] * len(glue), [0] * len(glue), [NO_OPTION] * len(glue))
        joined = tuple(a + g + b for a, g, b in zip(describe, (glue, *quiet), naming, strict=True))
        return [score, joined, aspect, more]


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


def _pad(texts) -> tuple[torch.Tensor, ...]:
    """(ids, turn, position, labels, role, mark), each (B, T): an image's turns in a row, padded on the right."""
    rows: list[list[list[int]]] = []
    for turns in texts:
        row: list[list[int]] = [[], [], [], [], [], []]
        for number, (ids, *others) in enumerate(turns):
            for column, values in zip(row, (ids, [number] * len(ids), range(len(ids)), *others), strict=True):
                column.extend(values)
        rows.append(row)
    length = max(len(row[0]) for row in rows)
    fill = (0, -1, 0, -100, 0, NO_OPTION)
    return tuple(torch.tensor([row[i] + [fill[i]] * (length - len(row[i])) for row in rows]) for i in range(len(fill)))


def collate(items: list[Batch]) -> Batch:
    return items[0]


def forward(
    network: Network, before: tuple[int, ...], batch: Batch, freeze_tower: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T, V) logits at the text tokens and (B, T, D) states after layer LAYER.

    Each turn sees the image and itself, as if it were asked alone.
    """
    count, views = batch.tiles.shape[:2]
    same = views == 2 and batch.size == (TILE, TILE)  # base view and only tile are the same pixels: look once
    tiles = batch.tiles[:, :1] if same else batch.tiles
    with torch.set_grad_enabled(torch.is_grad_enabled() and not freeze_tower):
        pixels = network.tiling.normalise(tiles.flatten(0, 1))
        features = torch.cat([network._vision(chunk) for chunk in pixels.split(64)])
    base = network.hf.model
    projected = base.multi_modal_projector(features).unflatten(0, (count, -1))
    projected = projected.expand(-1, views, -1, -1) if same else projected
    packed, _ = base.pack_image_features(
        list(projected),
        [(batch.size[1], batch.size[0])] * count,
        image_newline=base.image_newline,
        vision_aspect_ratio=f"anyres_max_{network.tiling.max_tiles}",
    )
    head = network.embed(before).expand(count, -1, -1)
    embedded = torch.cat([head, torch.stack(list(packed)), network.hf.get_input_embeddings()(batch.ids)], dim=1)
    prefix = embedded.shape[1] - batch.ids.shape[1]
    mask, positions = block_mask(batch, prefix)
    out = base.language_model(
        inputs_embeds=embedded, attention_mask=mask, position_ids=positions, use_cache=False, output_hidden_states=True
    )
    return network.hf.lm_head(out.last_hidden_state[:, prefix:]), out.hidden_states[LAYER][:, prefix:]


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


def loss_of(
    logits: torch.Tensor, states: torch.Tensor, batch: Batch, level_ids: list[int], heads: ChoiceHeads
) -> tuple[torch.Tensor, dict[str, float]]:
    """Soft level, letter, first word, half of the rest, rank of the pairs, and the help of the choice heads."""
    logs = logits.log_softmax(-1)
    known = batch.labels >= 0
    plain = -logs.gather(-1, batch.labels.clamp(min=0)[..., None])[..., 0]
    level = known & (batch.role == 1)
    levels = logs[level][:, level_ids]  # one row an image, in order
    value = levels.softmax(-1) @ LEVELS
    better, worse = value[0::2], value[1::2]
    gap = batch.scores[0::2] - batch.scores[1::2]
    parts = {
        "level": -(soft_levels(batch.scores) * levels).sum(-1).mean(),
        "letter": plain[known & (batch.role == 2)].mean(),
        "first": plain[known & (batch.role == 3)].mean(),
        "rest": 0.5 * plain[known & (batch.role == 0)].mean(),
        "rank": (F.softplus(-4.0 * (better - worse)) * (gap > 0.1)).mean(),
        **heads(states, batch.mark),
    }
    return torch.stack(list(parts.values())).sum(), {k: v.item() for k, v in parts.items()}


def load_start(path: str, words: dict[str, int]) -> tuple[LlavaOnevisionForConditionalGeneration, ChoiceHeads]:
    """The model and the choice heads as stages L and P left them."""
    weights = load_file(path)
    model = LlavaOnevisionForConditionalGeneration(model_config(words))
    left = model.load_state_dict({k: v for k, v in weights.items() if not k.startswith("choice.")}, strict=False)
    if left.unexpected_keys or set(left.missing_keys) - {"lm_head.weight"}:
        raise ValueError(f"{path} is not what language.py writes with this transformers version: {left}")
    model.tie_weights()
    heads = ChoiceHeads()
    heads.load_state_dict({k.removeprefix("choice."): v for k, v in weights.items() if k.startswith("choice.")})
    return model, heads


def optimizer_for(model: nn.Module, heads: nn.Module) -> torch.optim.Optimizer:
    """Three groups: the tower (0.3 of the rate, no decay), matrices (decay), and the rest."""
    groups = [
        {"params": [], "weight_decay": 0.0, "factor": 0.3},
        {"params": [], "weight_decay": 0.05, "factor": 1.0},
        {"params": [], "weight_decay": 0.0, "factor": 1.0},
    ]
    groups[2]["params"] += heads.parameters()
    for name, parameter in model.named_parameters():
        groups[0 if "vision_tower" in name else 1 if parameter.ndim > 1 else 2]["params"].append(parameter)
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    images = photos.load(photos.split(photos.find(args.photos))[0])
    words = tokenizer.build()
    profile = tokenizer.profile(words)
    torch.manual_seed(args.seed)
    model, heads = load_start(args.start, words.get_vocab())
    if args.resume:
        model = LlavaOnevisionForConditionalGeneration.from_pretrained(args.resume, dtype=torch.float32)
    if args.tower:
        inner = getattr(model.model.vision_tower, "vision_model", model.model.vision_tower)
        inner.load_state_dict({k: v for k, v in load_file(args.tower).items() if not k.startswith("head.")})
    tiling = Tiling.from_configs(model.config, PREPROCESSOR)
    network = Network(model, tiling)
    conversation = Conversation(words, CHAT_TEMPLATE, words.convert_tokens_to_ids("<image>"))
    before = conversation.prompt("").before
    optimizer = optimizer_for(model, heads)
    data = Batches(images, conversation, tiling, args.seed, args.early * args.minutes)
    loader = iter(torch.utils.data.DataLoader(data, batch_size=1, num_workers=1, collate_fn=collate, prefetch_factor=4))
    print(f"{len(images)} photos, {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    start = saved = time.monotonic()
    step = seen = 0
    mean: dict[str, float] = {}
    while (done := (time.monotonic() - start) / (60 * args.minutes)) < 1.0:
        for group in optimizer.param_groups:
            rate = args.learning_rate * min(1.0, (step + 1) / 60) * 0.5 * (1 + math.cos(math.pi * done))
            group["lr"] = rate * group["factor"]
        batch = next(loader)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bfloat16):
            logits, states = forward(network, before, batch, freeze_tower=done < args.frozen)
        loss, parts = loss_of(logits.float(), states.float(), batch, list(profile.level_token_ids), heads)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step, seen = step + 1, seen + len(batch.scores)
        mean = {k: 0.98 * mean.get(k, v) + 0.02 * v for k, v in parts.items()}
        if step % 50 == 0:
            losses = " ".join(f"{k} {v:.3f}" for k, v in mean.items())
            rate = seen / (time.monotonic() - start)
            print(f"step {step} images {seen} {losses} {rate:.1f} images/s {100 * done:.0f} %", flush=True)
        if time.monotonic() - saved > 300:
            write(model, words, profile, args.out)
            saved = time.monotonic()
    print(f"final: {step} steps, {seen} images", flush=True)
    write(model, words, profile, args.out)


def write(model, words, profile, out: str) -> None:
    """The checkpoint folder, weights in bfloat16: loaded in float32 they differ by less than training noise."""
    save_portable(
        model,
        words,
        Path(out),
        profile=profile,
        preprocessor=PREPROCESSOR,
        chat_template=CHAT_TEMPLATE,
        dtype=torch.bfloat16,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="folder of clean photos, the same as in stage A")
    parser.add_argument("--start", required=True, help="what language.py wrote")
    parser.add_argument("--resume", default=None, help="checkpoint folder to go on from; the schedule begins anew")
    parser.add_argument("--tower", default=None, help="a later result of stage A, in place of the start's tower")
    parser.add_argument("--out", default="nano", help="checkpoint folder to write")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--frozen", type=float, default=0.1, help="share of the time with the tower frozen")
    parser.add_argument("--early", type=float, default=0.5, help="share of the time with mostly small grids")
    parser.add_argument("--learning-rate", type=float, default=1.2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bfloat16", action="store_true", help="faster where the processor has AVX512-BF16")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
