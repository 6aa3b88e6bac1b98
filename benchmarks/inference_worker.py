"""One process of inference.py: a checkpoint, opened in one way, that answers commands (a JSON line each) on stdin.

python benchmarks/inference_worker.py hf|ours FOLDER DEVICE DTYPE

``hf`` is transformers alone: the released procedure (Pillow's processor, batch 1, ``generate``), the same with the fast
processor, pyiqa's way with large multimodal models (tensor -> Pillow, batch 1, logits of all positions), and its
forward without ``generate`` (inference_forward.py). ``ours`` is this package. Pictures are bytes of JPEG files for all.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.overrides import TorchFunctionMode

sys.path.insert(0, str(Path(__file__).parent))  # inference.py starts this file by its path

from inference_forward import Forward  # noqa: E402

QUESTIONS = ("Is it blurry?", "Is there noise in this image?", "Which distortion is most visible in this image?")
EXPLAIN = "Describe and evaluate the quality of the image."
ANSWER_TOKENS = 8
"""Of an answer to one of the questions; short enough for random weights not to be cut as a repetition."""


class HF:
    """transformers' own classes and nothing of ours but the profile (question, prefix, level ids)."""

    def __init__(self, folder: str, device: str, dtype: torch.dtype):
        from transformers import AutoProcessor, LlavaOnevisionForConditionalGeneration

        from qsit_plugin.protocol import profile_for
        from tests.core.reference import pil_image_processor

        self.profile = profile_for(Path(folder), None)
        self.fast, self.slow = AutoProcessor.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
        self.slow.image_processor = pil_image_processor(Path(folder))
        self.model = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval().to(device)
        self.weights = torch.tensor(self.profile.weights)
        self.plain = Forward(self)

    def inputs(self, image: Image.Image, question: str, prefix: str = "", processor: Any = None) -> Any:
        processor = processor or self.slow
        content = [{"type": "text", "text": question}, {"type": "image"}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        batch = processor(images=image, text=text + prefix, return_tensors="pt")
        return batch.to(self.model.device, self.model.dtype)

    def score_inputs(self, data: bytes, way: str) -> Any:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        if way == "pyiqa":  # the metric gets a tensor and turns it back into a picture
            from torchvision.transforms.functional import to_pil_image, to_tensor

            image = to_pil_image(to_tensor(image))
        return self.inputs(
            image, self.profile.question, self.profile.answer_prefix, self.fast if way == "fast" else self.slow
        )

    def forward(self, inputs: Any, way: str) -> float:
        with torch.inference_mode():
            if way == "pyiqa":
                row = self.model(**inputs).logits[0, -1]
            else:
                row = self.model.generate(
                    **inputs,
                    max_new_tokens=1,
                    do_sample=False,
                    output_logits=True,
                    return_dict_in_generate=True,
                ).logits[0][0]
        levels = row[list(self.profile.level_token_ids)].cpu()
        levels = levels if levels.dtype == torch.float64 else levels.float()
        return float(levels.softmax(-1) @ self.weights.to(levels.dtype))

    def prepare(self, files: list[bytes], way: str) -> Any:
        return self.plain.prepare(files) if way == "forward" else [self.score_inputs(data, way) for data in files]

    def model_only(self, prepared: Any, way: str) -> list[float]:
        if way == "forward":
            return self.plain.model_only(prepared)
        return [self.forward(inputs, way) for inputs in prepared]

    def score(self, files: list[bytes], way: str) -> list[float]:
        if way == "forward":
            return self.plain.score(files)
        return [self.forward(self.score_inputs(data, way), way) for data in files]

    def ask(self, data: bytes, question: str, tokens: int, way: str) -> str:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        inputs = self.inputs(image, question, processor=self.fast if way == "fast" else self.slow)
        with torch.inference_mode():
            out = self.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        return self.slow.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()

    def score_and_ask(self, data: bytes, way: str) -> tuple[float, list[str]]:
        if way == "forward":
            return self.plain.score_and_ask(data, QUESTIONS, ANSWER_TOKENS)
        return self.score([data], way)[0], [self.ask(data, question, ANSWER_TOKENS, way) for question in QUESTIONS]

    def explain(self, files: list[bytes], tokens: int, way: str) -> list[str]:
        if way == "forward":
            return self.plain.explain(files, EXPLAIN, tokens)
        return [self.ask(data, EXPLAIN, tokens, way) for data in files]

    def digest(self, data: bytes, way: str) -> str:
        pixels = self.inputs(
            Image.open(io.BytesIO(data)).convert("RGB"), "x", processor=self.fast if way == "fast" else self.slow
        )["pixel_values"]
        return digest_of(pixels[0].float())

    def watch(self, counts: dict[str, int]) -> list[Any]:
        return watch(self.model, counts)


class Ours:
    def __init__(self, folder: str, device: str, dtype: torch.dtype):
        import qsit_plugin

        self.model = qsit_plugin.load(folder, engine="torch", device=device, dtype=dtype)
        self.prompt = self.model.prompt(self.model.profile.question, self.model.profile.answer_prefix)

    def prepare(self, files: list[bytes], way: str) -> Any:
        from qsit_plugin.engines.batches import open_item

        return [open_item(self.model, self.prompt, data) for data in files]

    def model_only(self, prepared: Any, way: str) -> list[float]:
        from qsit_plugin.engines.batches import SCORING
        from qsit_plugin.engines.level_logits import read_items, to_score

        batches: list[list[Any]] = [[]]
        for item in prepared:
            if batches[-1] and (way == "one" or not SCORING.holds(self.model.engine, [*batches[-1], item])):
                batches.append([])
            batches[-1].append(item)
        readings = [reading for batch in batches for reading in read_items(self.model, self.prompt, batch)]
        return [to_score(self.model, reading).value for reading in readings]

    def score(self, files: list[bytes], way: str) -> list[float]:
        if way == "one":
            return [self.model.score(data).value for data in files]
        return [score.value for score in self.model.score(files)]

    def score_and_ask(self, data: bytes, way: str) -> tuple[float, list[str]]:
        look = self.model.encode(data)
        return look.score().value, [look.ask(q, max_new_tokens=ANSWER_TOKENS).text for q in QUESTIONS]

    def explain(self, files: list[bytes], tokens: int, way: str) -> list[str]:
        if way == "one":
            return [self.model.explain(data, max_new_tokens=tokens).text for data in files]
        return [answer.text for answer in self.model.explain(files, max_new_tokens=tokens)]

    def digest(self, data: bytes, way: str) -> str:
        from qsit_plugin.engines.torch_engine import normalise
        from qsit_plugin.images.reading import read_image

        tiling = self.model.engine.tiling
        pixels = normalise(tiling, torch.from_numpy(tiling.cut(read_image(data))))
        return digest_of(pixels.to(self.model.dtype).float())

    def watch(self, counts: dict[str, int]) -> list[Any]:
        engine = self.model.engine
        plain = engine.token_logits

        def counted(states: torch.Tensor, ids: Any) -> torch.Tensor:
            counts["head_rows"] += len(states) * len(ids)
            return plain(states, ids)

        engine.token_logits = counted
        return [*watch(engine.hf, counts), _Undo(lambda: engine.__dict__.pop("token_logits"))]


class _Undo:
    def __init__(self, action: Callable[[], Any]):
        self.remove = action


def digest_of(pixels: torch.Tensor) -> str:
    return hashlib.sha256(pixels.contiguous().cpu().numpy().tobytes()).hexdigest()[:16]


def watch(hf: Any, counts: dict[str, int]) -> list[Any]:
    """Hooks on the real modules that count work; the caller removes them."""
    tower = hf.model.vision_tower

    def crops(module: Any, args: Any, kwargs: Any) -> None:
        counts["vision_passes"] += 1
        counts["crops"] += len(args[0] if args else kwargs["pixel_values"])

    def tokens(module: Any, args: Any) -> None:
        counts["llm_tokens"] += args[0].numel() // args[0].shape[-1]

    def rows(module: Any, args: Any, output: torch.Tensor) -> None:
        counts["head_rows"] += output.numel()

    return [
        getattr(tower, "vision_model", tower).embeddings.register_forward_pre_hook(crops, with_kwargs=True),
        hf.model.language_model.layers[0].input_layernorm.register_forward_pre_hook(tokens),
        hf.lm_head.register_forward_hook(rows),
    ]


class HostReads(TorchFunctionMode):
    """Counts what makes the host wait for a device: reading values of a tensor in Python."""

    NAMES = ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(func, "__name__", "") in self.NAMES
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def counting(contender: Any, device: str) -> Iterator[dict[str, int]]:
    counts = dict.fromkeys(("vision_passes", "crops", "llm_tokens", "head_rows", "host_reads"), 0)
    hooks, reads = contender.watch(counts), HostReads()
    cuda = device.startswith("cuda")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if cuda:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            with reads:
                yield counts
        finally:
            if cuda:
                torch.cuda.set_sync_debug_mode("default")
                counts["device_syncs"] = sum("synchroniz" in str(warning.message) for warning in said)
            counts["host_reads"] = reads.count
            for hook in hooks:
                hook.remove()


def peak_mib(device: str, *, reset: bool) -> float | None:
    """Peak memory since the last reset: of the device, or of this process where Linux tells it."""
    if device.startswith("cuda"):
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    (line,) = [line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def peak_flops(dtype: torch.dtype, device: str) -> float:
    """What a large matrix product reaches here, the better of torch's two libraries on a CPU."""
    side = 8192 if device.startswith("cuda") else 1536
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    ways = [lambda: a @ b]
    if device == "cpu" and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        ways.append(lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))
    best = 0.0
    for way in ways:
        for _ in range(4):
            best = max(best, 2 * side**3 / timed(way, device)[0])
    return best


def timed(action: Callable[[], Any], device: str) -> tuple[float, float, Any]:
    """Seconds on the clock, seconds of processor time of all threads, and the result."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    start, busy = time.perf_counter(), time.process_time()
    result = action()
    wait()
    return time.perf_counter() - start, time.process_time() - busy, result


def answer(contender: Any, command: dict[str, Any], device: str, dtype: torch.dtype) -> dict[str, Any]:
    way = command.get("way", "")
    if command["do"] == "peak_flops":
        with torch.inference_mode():
            return {"flops": peak_flops(dtype, device)}
    files = [Path(file).read_bytes() for file in command["files"]]
    if command["do"] == "digest":
        return {"digests": [contender.digest(data, way) for data in files]}
    actions: dict[str, Callable[[], Any]] = {
        "score": lambda: contender.score(files, way),
        "score+3": lambda: contender.score_and_ask(files[0], way),
        "explain": lambda: contender.explain(files, command.get("tokens", 60), way),
    }
    action = actions[command["do"]]
    if command.get("count"):
        before = peak_mib(device, reset=True)
        with counting(contender, device) as counts:
            result = action()
        return {"result": result, "counts": counts, "before_mib": before, "peak_mib": peak_mib(device, reset=False)}
    seconds, busy, result = timed(action, device)
    row = {"seconds": seconds, "busy": busy, "result": result}
    if command["do"] == "score":
        prepared = contender.prepare(files, way)
        row["model_seconds"] = timed(lambda: contender.model_only(prepared, way), device)[0]
    return row


def main() -> None:
    kind, folder, device, dtype_name = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's package and its tests' helpers
    dtype = getattr(torch, dtype_name)
    out, sys.stdout = sys.stdout, sys.stderr  # whatever libraries print must not stand between the answers
    contender = HF(folder, device, dtype) if kind == "hf" else Ours(folder, device, dtype)
    print(json.dumps({"ready": True, "threads": torch.get_num_threads()}), file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(contender, json.loads(line), device, dtype)), file=out, flush=True)


if __name__ == "__main__":
    main()
