"""Stages L and P: the language model learns to talk about codes, then the projector learns to give them.

In the joint stage an image costs a hundred times what a question costs, and reading a letter off a list of options is a
matter of questions, not of images. So the language model first reads *codes*: a few noisy vectors that say which
distortion is there and how strong. Afterwards the projector is fitted to turn the tower's features into these codes.

    python -m qsit_plugin.training.nano.language --photos FOLDER --tower tower.safetensors --out start.safetensors
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
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
from .joint import tokens_of
from .tower import Pairs, soft_levels

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


class Turns:
    """Batches of single turns with the code of what they are about."""

    def __init__(self, conversation: Conversation, seed: int):
        self.rng = np.random.default_rng([seed, 2])
        self.conversation = conversation

    def batch(self, count: int):
        """(kind, visible, score, ids, labels, roles, marks); the last four (N, T), padded."""
        kinds, visibles, scores, rows = [], [], [], []
        for _ in range(count):
            kind = len(NAMES) if self.rng.random() < 0.08 else int(self.rng.integers(len(NAMES)))
            name = None if kind == len(NAMES) else NAMES[kind]
            visible = 0.0 if name is None else float(self.rng.uniform(0.05, 1.0))
            score = severity_score(name, visible)
            turns = text.turns_for(name, visible, score, self.rng)
            turn = turns[1] if self.rng.random() < 0.6 else turns[int(self.rng.integers(len(turns)))]
            kinds.append(kind)
            visibles.append(visible)
            scores.append(score)
            rows.append(tokens_of(turn, self.conversation))
        length = max(len(row[0]) for row in rows)
        fills = (0, -100, 0, NO_OPTION)
        padded = [torch.tensor([r[i] + [fills[i]] * (length - len(r[i])) for r in rows]) for i in range(4)]
        return torch.tensor(kinds), torch.tensor(visibles), torch.tensor(scores), *padded


def train_language(network: Network, heads, turns: Turns, before, book, level_ids, minutes: float, rate: float) -> None:
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
        kind, visible, score, ids, labels, roles, marks = turns.batch(48)
        codes = code(book, kind, visible)[:, None].expand(-1, CODE_TOKENS, -1)
        codes = codes + NOISE * torch.randn(codes.shape)
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


def fit_projector(network: Network, images, book, minutes: float, seed: int) -> None:
    """Every token of a view shall be projected onto the code of what was done to the view."""
    projector = network.hf.model.multi_modal_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3, weight_decay=0.0)
    start, mean = time.monotonic(), None
    for step, (views, kind, visible, _) in enumerate(Pairs(images, 64, seed + 17)):
        done = (time.monotonic() - start) / (60 * minutes)
        if done >= 1.0:
            break
        optimizer.param_groups[0]["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * done))
        with torch.no_grad():
            features = network._vision(network.tiling.normalise(views.permute(0, 3, 1, 2)))
        target = code(book, kind, visible)[:, None].expand(-1, features.shape[1], -1)
        loss = F.mse_loss(projector(features), target) * WIDTH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
        if step % 50 == 0:
            print(f"P step {step} squared error {mean:.3f} {100 * done:.0f} %", flush=True)


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    words = tokenizer.build()
    profile = tokenizer.profile(words)
    model = LlavaOnevisionForConditionalGeneration(model_config(words.get_vocab()))
    inner = getattr(model.model.vision_tower, "vision_model", model.model.vision_tower)
    inner.load_state_dict({k: v for k, v in load_file(args.tower).items() if not k.startswith("head.")})
    network = Network(model, Tiling.from_configs(model.config, PREPROCESSOR))
    conversation = Conversation(words, CHAT_TEMPLATE, words.convert_tokens_to_ids("<image>"))
    book, before = code_book(args.seed), conversation.prompt("").before
    turns, heads = Turns(conversation, args.seed), ChoiceHeads()
    train_language(network, heads, turns, before, book, list(profile.level_token_ids), args.minutes, args.learning_rate)
    save(model, heads, args.out)
    images = photos.load(photos.split(photos.find(args.photos))[0])
    fit_projector(network, images, book, args.projector_minutes, args.seed)
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
    parser.add_argument("--minutes", type=float, default=8.0, help="for the language model")
    parser.add_argument("--projector-minutes", type=float, default=1.5)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
