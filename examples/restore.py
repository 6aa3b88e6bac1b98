"""Restore a noisy or blurred photo by gradient ascent on its own score: what a differentiable metric is good for.

    python examples/restore.py photo.jpg --out restored.png
    python examples/restore.py --figure docs/images     # the pictures of docs/restoration.md

The score's gradient reaches every pixel, but a network's score can be raised by patterns that nobody would call better.
So the pixels are not free: the photo is split into three bands of detail, and what is learned are eighteen numbers, how
much of each band is kept and below which amplitude it counts as noise, for brightness and two colours apart. Besides,
the result must stay similar: what a blur of two pixels leaves of it must be what it leaves of the photo.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter
from torch import nn

import qsit_plugin as qsit
from qsit_plugin.engines import gradients

SCALES = (0.7, 1.4, 2.8)
"""Standard deviations, in pixels, of the blurs between the bands: noise and sharpness live there."""

LARGEST_GAIN = 4.0
SIMILARITY = 500.0
"""Weight of the mean squared change after a blur of two pixels, against a score in [0, 1]."""

OPPONENT = torch.tensor([[0.299, 0.587, 0.114], [0.5, -0.42, -0.08], [-0.17, -0.33, 0.5]])
"""RGB -> brightness and two colour differences."""


def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (3, H, W), mirrored at the borders."""
    radius = round(3 * sigma)
    x = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = F.pad(image[None], (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)[0]


class Bands(nn.Module):
    """A photo (3, H, W) in [0, 1] as bands of detail with a gain and a threshold each; unchanged to begin with."""

    def __init__(self, photo: torch.Tensor):
        super().__init__()
        layers = [torch.einsum("ij,jhw->ihw", OPPONENT, photo)]
        layers += [blurred(layers[0], sigma) for sigma in SCALES]
        self.bands = [fine - coarse for fine, coarse in zip(layers, layers[1:], strict=False)]
        self.rest = layers[-1]
        self.gain = nn.Parameter(torch.full((len(SCALES), 3), -float(np.log(LARGEST_GAIN - 1))))  # a gain of 1
        self.threshold = nn.Parameter(torch.full((len(SCALES), 3), -6.0))  # 0.0005: next to nothing

    def forward(self) -> torch.Tensor:
        image = self.rest
        for band, gain, threshold in zip(self.bands, self.gain, self.threshold, strict=True):
            kept = F.relu(band.abs() - 0.2 * F.softplus(threshold)[:, None, None]) * band.sign()
            image = image + LARGEST_GAIN * gain.sigmoid()[:, None, None] * kept
        return torch.einsum("ij,jhw->ihw", torch.linalg.inv(OPPONENT), image)


def restore(model: qsit.QSiT, photo: torch.Tensor, steps: int) -> torch.Tensor:
    """A photo (3, H, W) in [0, 1] with its score raised as far as similarity allows."""
    bands = Bands(photo)
    optimizer = torch.optim.Adam(bands.parameters(), lr=0.15)
    for _ in range(steps):
        image = bands()
        shares = gradients.level_probabilities(model, [image.clamp(0.0, 1.0)])
        score = gradients.value(shares, model.profile.weights).mean()
        change = (blurred(image - photo, 2.0) ** 2).mean()
        optimizer.zero_grad()
        (SIMILARITY * change - score).backward()
        optimizer.step()
    return bands().detach().clamp(0.0, 1.0)


def to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255.0


def to_image(tensor: torch.Tensor) -> Image.Image:
    return Image.fromarray((tensor * 255.0).round().byte().permute(1, 2, 0).numpy())


def psnr(image: torch.Tensor, original: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB; the restoration never sees the original."""
    return -10.0 * float(torch.log10(((image - original) ** 2).mean()))


@dataclass
class Case:
    """A clean photo of scikit-image, reduced to 384 pixels, and what is done to it."""

    photo: str
    damage: str

    def pictures(self) -> tuple[torch.Tensor, torch.Tensor]:
        from skimage import data

        clean = Image.fromarray(getattr(data, self.photo)())
        clean = clean.resize((384, round(384 * clean.height / clean.width)), Image.Resampling.BICUBIC)
        if self.damage == "blur":
            return to_tensor(clean), to_tensor(clean.filter(ImageFilter.GaussianBlur(1.5)))
        noise = np.random.default_rng(0).normal(0.0, 20.0, (clean.height, clean.width, 3))
        noisy = (np.asarray(clean) + noise).clip(0, 255).round().astype(np.uint8)
        return to_tensor(clean), to_tensor(Image.fromarray(noisy))


CASES = [Case(photo, damage) for damage in ("noise", "blur") for photo in ("astronaut", "coffee")]


def figure(model: qsit.QSiT, folder: Path, steps: int) -> None:
    """Before and after of every case as one JPEG, and the figures as rows of Markdown on stdout."""
    folder.mkdir(parents=True, exist_ok=True)
    print("| photo | damage | score | PSNR to the original | explanation before | after |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        clean, damaged = case.pictures()
        better = to_tensor(to_image(restore(model, damaged, steps)))
        scores = [model.score(picture).value for picture in (damaged, better, clean)]
        words = [model.explain(picture).text.split(":")[0] for picture in (damaged, better)]
        decibels = [psnr(picture, clean) for picture in (damaged, better)]
        print(
            f"| {case.photo} | {case.damage} | {scores[0]:.2f} → {scores[1]:.2f} (original {scores[2]:.2f}) "
            f"| {decibels[0]:.1f} → {decibels[1]:.1f} dB | {words[0]} | {words[1]} |",
            flush=True,
        )
        side_by_side(damaged, better, scores).save(folder / f"restore-{case.damage}-{case.photo}.jpg", quality=92)


def side_by_side(damaged: torch.Tensor, better: torch.Tensor, scores: list[float]) -> Image.Image:
    picture = to_image(torch.cat([damaged, better], dim=2))
    pen, half = ImageDraw.Draw(picture), damaged.shape[2]
    for left, text in ((0, f"before {scores[0]:.2f}"), (half, f"after {scores[1]:.2f}")):
        pen.rectangle((left, 0, left + 100, 18), fill="black")
        pen.text((left + 5, 3), text, fill="white")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", help="the photo to restore; large ones take long")
    parser.add_argument("--out", default="restored.png")
    parser.add_argument("--model", default="qsit-nano")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--figure", metavar="FOLDER", help="restore four damaged photos of scikit-image instead")
    args = parser.parse_args()
    if (args.photo is None) == (args.figure is None):
        parser.error("give a photo, or --figure FOLDER")
    model = qsit.load(args.model, engine="torch")  # the one with gradients
    if args.figure:
        figure(model, Path(args.figure), args.steps)
        return
    photo = to_tensor(Image.open(args.photo))
    better = to_image(restore(model, photo, args.steps))
    better.save(args.out)
    print(f"{args.photo}: {model.score(photo).value:.3f}  {args.out}: {model.score(better).value:.3f}")


if __name__ == "__main__":
    main()
