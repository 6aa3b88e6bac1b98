"""A checkpoint that ComfyUI's CheckpointLoaderSimple reads as Stable Diffusion 1.5, with weights that know nothing.

    python tests/nodes/tiny_diffusion.py /path/to/ComfyUI FILE SEED

The UNet has one level of random weights, the VAE is TAESD's architecture with random weights, and the text encoder is
all zeros, since its size is fixed. Such checkpoints let the sampler workflows run as they are, in a second a picture.
Run in a separate process: it imports ComfyUI's modules.
"""

import sys
from typing import Any


def state(seed: int) -> dict[str, Any]:
    import comfy.ops
    import torch
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.sd1_clip import SD1ClipModel
    from comfy.taesd.taesd import TAESD

    torch.manual_seed(seed)
    unet = UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=320,
        num_res_blocks=[1],
        channel_mult=[1],
        transformer_depth=[1],
        transformer_depth_output=[1, 1],
        transformer_depth_middle=1,
        num_heads=8,
        context_dim=768,
        use_spatial_transformer=True,
        legacy=False,
        operations=comfy.ops.manual_cast,
    )
    text = SD1ClipModel(dtype=torch.float16)
    parts = {
        "model.diffusion_model": {key: started(key, v) for key, v in unet.state_dict().items()},
        "cond_stage_model": {key: torch.zeros(v.shape) for key, v in text.clip_l.state_dict().items()},
        "first_stage_model": {key: started(key, v) for key, v in TAESD().state_dict().items()},
    }
    named = {f"{part}.{key}": value for part, values in parts.items() for key, value in values.items()}
    return {name: value.half().contiguous() for name, value in named.items()}


def started(key: str, like: Any) -> Any:
    """A first value of a parameter that keeps signals at their size: ComfyUI's layers leave theirs unwritten."""
    import torch

    if like.ndim < 2:
        return torch.zeros(like.shape) if key.endswith(("bias", "shift")) else torch.ones(like.shape)
    return torch.randn(like.shape) * like[0].numel() ** -0.5


def main(comfyui: str, file: str, seed: str) -> None:
    sys.argv = ["main.py", "--cpu"]
    sys.path.insert(0, comfyui)
    import comfy.options

    comfy.options.enable_args_parsing()
    from safetensors.torch import save_file

    save_file(state(int(seed)), file)


if __name__ == "__main__":
    main(*sys.argv[1:])
