"""Stages L, E and P: the language model learns to talk about codes, then the projector learns to give them.

In the joint stage an image costs a hundred times what a question costs, and reading a letter off a list of options is a
matter of questions, not of images. So the language model first reads *codes* (L): a few noisy vectors that say which
distortion is there and how strong. Then it reads the tower's *evidence* (E): what the heads of stage A say at every
token of a view, written in the same vectors, so doubtful and sometimes wrong. At last the projector is fitted to turn
the tower's features into that evidence (P).

    python -m qsit_plugin.training.nano.language --photos FOLDER --tower tower.safetensors --out start.safetensors
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from transformers import LlavaOnevisionForConditionalGeneration

from qsit_plugin.conversation import Conversation
from qsit_plugin.network import Network
from qsit_plugin.portable import CHAT_TEMPLATE
from qsit_plugin.tiles import Tiling

from . import photos, text, tokenizer
from .architecture import PREPROCESSOR, WIDTH, model_config
from .choice import LAYER, NO_OPTION, ChoiceHeads
from .distortions import NAMES, severity_score
from .joint import HARDLY, load_start, tokens_of
from .tower import Pairs, TowerWithHeads, resume, soft_levels

CODE_TOKENS = 8
NOISE = 0.08
"""Of a code vector, in each dimension."""


def code_book(seed: int) -> torch.Tensor:
    """(12, WIDTH) orthonormal vectors: the ten distortions, a clean view, and the direction of strength."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(WIDTH, len(NAMES) + 2, generator=generator)).Q.T.contiguous()


def code(book: torch.Tensor, kind: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """(N, WIDTH) codes of kinds (index into NAMES, 10 = clean) at strengths in [0, 1].

    Strength has a direction of its own: as a length it would vanish in the language model's normalisation.
    """
    return book[kind] + (2.0 * visible - 1.0)[:, None] * book[-1]


def evidence(heads: torch.Tensor, book: torch.Tensor) -> torch.Tensor:
    """(…, 16) outputs of stage A's heads -> (…, WIDTH) vectors: kinds by their centred logits, strength by the levels'.

    Linear, so that the mean over tokens is the evidence of the whole view: all that attention has to do is average.
    """
    levels, kinds = heads.split([5, len(NAMES) + 1], dim=-1)
    strength = levels @ torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])
    return torch.cat([kinds - kinds.mean(-1, keepdim=True), strength[..., None]], dim=-1) / 3.0 @ book


class Codes:
    """Ideal codes of distortions drawn at random."""

    def __init__(self, book: torch.Tensor, seed: int):
        self.book, self.rng = book, np.random.default_rng([seed, 3])

    def batch(self, count: int):
        """(codes (N, CODE_TOKENS, WIDTH), kinds, visibles, scores)."""
        kinds = [len(NAMES) if self.rng.random() < 0.08 else int(self.rng.integers(len(NAMES))) for _ in range(count)]
        visibles = [0.0 if kind == len(NAMES) else float(self.rng.uniform(0.05, 1.0)) for kind in kinds]
        names = [None if kind == len(NAMES) else NAMES[kind] for kind in kinds]
        scores = [severity_score(name, visible) for name, visible in zip(names, visibles, strict=True)]
        codes = code(self.book, torch.tensor(kinds), torch.tensor(visibles))[:, None].expand(-1, CODE_TOKENS, -1)
        return codes + NOISE * torch.randn(codes.shape), kinds, visibles, scores


class Evidence:
    """Evidence of real views, computed once: 16 tokens a view, each the mean of four neighbours."""

    def __init__(self, tower: TowerWithHeads, images, book: torch.Tensor, views: int, seed: int):
        outs, kinds, visibles, scores = [], [], [], []
        shown = Pairs(images, 64, seed + 29, photos.DOUBTFUL)
        pairs = iter(torch.utils.data.DataLoader(shown, batch_size=None, num_workers=1))
        for _ in range(views // 64):
            pixels, kind, visible, score = next(pairs)
            with torch.no_grad():
                tokens = tower.tokens(pixels)
            grid = tokens.unflatten(1, (8, 8)).permute(0, 3, 1, 2)
            outs.append(F.avg_pool2d(grid, 2).flatten(2).transpose(1, 2))
            kinds += kind.tolist()
            visibles += visible.tolist()
            scores += score.tolist()
        self.outs, self.book = torch.cat(outs), book
        self.labels = list(zip(kinds, visibles, scores, strict=True))
        self.rng = np.random.default_rng([seed, 4])

    def batch(self, count: int):
        """As Codes.batch, with 16 tokens; a hardly visible distortion counts as none."""
        rows = self.rng.integers(len(self.labels), size=count)
        kinds, visibles, scores = zip(*(self.labels[row] for row in rows), strict=True)
        kinds = [len(NAMES) if v <= HARDLY else k for k, v in zip(kinds, visibles, strict=True)]
        return evidence(self.outs[rows], self.book), kinds, list(visibles), list(scores)


class Turns:
    """Batches of single turns with the codes of what they are about."""

    def __init__(self, conversation: Conversation, source: Codes | Evidence, seed: int):
        self.rng = np.random.default_rng([seed, 2])
        self.conversation, self.source = conversation, source

    def batch(self, count: int):
        """(codes, score, ids, labels, roles, marks); the last four (N, T), padded."""
        codes, kinds, visibles, scores = self.source.batch(count)
        rows = []
        for kind, visible, score in zip(kinds, visibles, scores, strict=True):
            name = None if kind == len(NAMES) else NAMES[kind]
            turns = text.turns_for(name, visible, score, self.rng)
            turn = turns[1] if self.rng.random() < 0.6 else turns[int(self.rng.integers(len(turns)))]
            rows.append(tokens_of(turn, self.conversation))
        length = max(len(row[0]) for row in rows)
        fills = (0, -100, 0, NO_OPTION)
        padded = [torch.tensor([r[i] + [fills[i]] * (length - len(r[i])) for r in rows]) for i in range(4)]
        return codes, torch.tensor(scores), *padded


def train_language(network: Network, heads, turns: Turns, before, level_ids, minutes: float, rate: float) -> None:
    model = network.hf
    parameters = [*model.model.language_model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    start, step, mean = time.monotonic(), 0, {}
    while (done := (time.monotonic() - start) / (60 * minutes)) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100) * (1.0 if done < 0.7 else (1.0 - done) / 0.3 + 0.1)
        codes, score, ids, labels, roles, marks = turns.batch(48)
        head = network.embed(before).expand(len(ids), -1, -1)
        embedded = torch.cat([head, codes, model.get_input_embeddings()(ids)], dim=1)
        out = model.model.language_model(inputs_embeds=embedded, use_cache=False, output_hidden_states=True)
        text_at = slice(embedded.shape[1] - ids.shape[1], None)
        keep = labels >= 0
        logs = model.lm_head(out.last_hidden_state[:, text_at][keep]).log_softmax(-1)
        target, role = labels[keep], roles[keep]
        owner = torch.arange(len(ids))[:, None].expand_as(labels)[keep]
        plain = -logs.gather(-1, target[:, None])[:, 0]
        level = role == 1
        levels = logs[level][:, level_ids]
        parts = {
            "level": -(soft_levels(score[owner[level]]) * levels).sum(-1).mean() if level.any() else plain.sum() * 0,
            "letter": plain[role == 2].mean(),
            "first": plain[role == 3].mean() if (role == 3).any() else plain.sum() * 0,
            "rest": 0.5 * plain[role == 0].mean(),
            **heads(out.hidden_states[LAYER][:, text_at], marks),
        }
        loss = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        mean = {k: 0.95 * mean.get(k, v.item()) + 0.05 * v.item() for k, v in parts.items()}
        if step % 50 == 0:
            losses = " ".join(f"{k} {v:.3f}" for k, v in mean.items())
            print(f"L step {step} {losses} {100 * done:.0f} %", flush=True)


def fit_projector(network: Network, tower: TowerWithHeads, images, book, minutes: float, seed: int) -> None:
    """Every token's features shall be projected onto the evidence at that token."""
    projector = network.hf.model.multi_modal_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=3e-3, weight_decay=0.0)
    start, mean = time.monotonic(), None
    pairs = torch.utils.data.DataLoader(Pairs(images, 64, seed + 17), batch_size=None, num_workers=1)
    for step, (views, *_) in enumerate(pairs):
        done = (time.monotonic() - start) / (60 * minutes)
        if done >= 1.0:
            break
        optimizer.param_groups[0]["lr"] = 3e-3 * 0.5 * (1 + math.cos(math.pi * done))
        with torch.no_grad():
            features = network._vision(network.tiling.normalise(views.permute(0, 3, 1, 2)))
            target = evidence(tower.tokens(views), book)
        loss = F.mse_loss(projector(features), target) / target.var()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
        if step % 50 == 0:
            print(f"P step {step} unexplained {mean:.3f} {100 * done:.0f} %", flush=True)


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    words = tokenizer.build()
    profile = tokenizer.profile(words)
    if args.resume and Path(args.resume).is_dir():
        model = LlavaOnevisionForConditionalGeneration.from_pretrained(args.resume, dtype=torch.float32)
        heads = ChoiceHeads()  # not part of a checkpoint; they learn their two steps again at once
    elif args.resume:
        model, heads = load_start(args.resume, words.get_vocab())
    else:
        model, heads = LlavaOnevisionForConditionalGeneration(model_config(words.get_vocab())), ChoiceHeads()
    tower = TowerWithHeads(args.seed)
    resume(tower, args.tower, None)
    inner = getattr(tower.tower, "vision_model", tower.tower)
    getattr(model.model.vision_tower, "vision_model", model.model.vision_tower).load_state_dict(inner.state_dict())
    network = Network(model, Tiling.from_configs(model.config, PREPROCESSOR))
    conversation = Conversation(words, CHAT_TEMPLATE, words.convert_tokens_to_ids("<image>"))
    book, before, levels = code_book(args.seed), conversation.prompt("").before, list(profile.level_token_ids)
    images = photos.load(photos.split(photos.find(args.photos))[0])
    if args.minutes > 0:
        turns = Turns(conversation, Codes(book, args.seed), args.seed)
        train_language(network, heads, turns, before, levels, args.minutes, args.learning_rate)
        save(model, heads, args.out)
    turns = Turns(conversation, Evidence(tower, images, book, args.views, args.seed), args.seed + 1)
    train_language(network, heads, turns, before, levels, args.evidence_minutes, 0.6 * args.learning_rate)
    fit_projector(network, tower, images, book, args.projector_minutes, args.seed)
    save(model, heads, args.out)


def save(model: LlavaOnevisionForConditionalGeneration, heads: ChoiceHeads, out: str) -> None:
    """All weights under the model's own names, the tied head left out, and the choice heads under ``choice.``."""
    state = {k: v.contiguous() for k, v in model.state_dict().items() if not k.startswith("lm_head")}
    save_file(state | {f"choice.{k}": v for k, v in heads.state_dict().items()}, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="folder of clean photos, the same as in stage A")
    parser.add_argument("--tower", required=True, help="the result of stage A")
    parser.add_argument("--out", default="start.safetensors")
    parser.add_argument(
        "--resume", default=None, help="an earlier result, or a checkpoint folder, to take the model from"
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="for the language model on codes")
    parser.add_argument("--evidence-minutes", type=float, default=5.0, help="for the language model on evidence")
    parser.add_argument("--views", type=int, default=12_000, help="views whose evidence is computed")
    parser.add_argument("--projector-minutes", type=float, default=1.5)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
