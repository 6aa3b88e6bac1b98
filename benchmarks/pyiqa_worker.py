"""One metric of pyiqa, measured in a separate process: pyiqa_metrics.py runs this file and reads what it prints.

python benchmarks/pyiqa_worker.py METRIC ROUNDS
"""

from __future__ import annotations

import json
import os
import re
import socket
import statistics
import sys
import time
from typing import Any

SIDE = 512
RANDOM_WEIGHTS = ({"pretrained": False}, {"pretrained": False, "backbone_pretrain": False}, {"pretrained": None})
"""Options by which metrics of pyiqa can be created without weights; which of them works differs by metric."""

OFFLINE = "the network is closed for this benchmark"


def work(name: str, rounds: int) -> dict[str, Any]:
    """The row of one metric; ``(import)`` measures importing alone, ``(explain)`` our explanation.

    Keys: weights, peak_mib, parameters, seconds (an image); as text batch, gradient, text, distribution.
    """
    close_network()
    import pyiqa
    import torch

    if name == "(import)":
        return {"peak_mib": peak_mib(), "weights": "-"}
    torch.manual_seed(0)  # pyiqa draws random weights from the global state: the same ones in every run
    if name == "(explain)":
        return explanation(rounds)
    metric, options, weights = create(name)
    images = pictures()
    with torch.no_grad():
        first = metric(images[:1])
    row: dict[str, Any] = {"weights": weights, "peak_mib": peak_mib()}
    row["parameters"] = sum(p.numel() for p in metric.parameters())
    row["seconds"] = median_seconds(lambda: metric(images[:1]), rounds)
    row["batch"] = batch_support(metric, images)
    row["distribution"] = gives_distribution(metric, images[:1], first)
    row["text"] = "yes" if callable(getattr(metric.net, "explain", None)) else "no"
    row["gradient"] = gradient_support(lambda: pyiqa.create_metric(name, as_loss=True, device="cpu", **options), images)
    return row


def close_network() -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(OFFLINE)

    os.environ["HF_HUB_OFFLINE"] = "1"
    for function in ("connect", "connect_ex"):
        setattr(socket.socket, function, refuse)
    socket.getaddrinfo = refuse  # type: ignore[assignment]


def create(name: str) -> tuple[Any, dict[str, Any], str]:
    """The metric, the options that it took, and what its weights are. Raises the error of the released way."""
    import pyiqa

    ways: list[tuple[dict[str, Any], str]] = [(options, "random") for options in RANDOM_WEIGHTS]
    if name == "qrealign" and os.environ.get("QSIT_TINY_QREALIGN"):
        ways = [({"model": os.environ["QSIT_TINY_QREALIGN"]}, "random, tiny")]
    try:
        return pyiqa.create_metric(name, device="cpu"), {}, "as released"
    except Exception as released:
        for options, weights in ways:
            try:
                return pyiqa.create_metric(name, device="cpu", **options), options, weights
            except Exception:  # an option that this metric has not got: the next one
                continue
        raise released


def pictures() -> Any:
    """(4, 3, 512, 512) in [0, 1]: waves with noise, each different."""
    import torch

    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    waves = [[0.5 + 0.4 * torch.sin(x / (5 + c + 3 * i) + y / (11 - c)) for c in range(3)] for i in range(4)]
    images = torch.stack([torch.stack(image) for image in waves])
    return (images + 0.03 * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def explanation(rounds: int) -> dict[str, Any]:
    import pyiqa

    metric = pyiqa.create_metric("qsit-nano", device="cpu")
    image = pictures()[0]
    answer = metric.net.explain(image)
    row = {"weights": "as released", "peak_mib": peak_mib(), "text": f"yes: {answer.tokens} tokens here"}
    return row | {"seconds": median_seconds(lambda: metric.net.explain(image), rounds)}


def median_seconds(action: Any, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_mib() -> float | None:
    try:
        import resource
    except ModuleNotFoundError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def batch_support(metric: Any, images: Any) -> str:
    """Whether four images at once give what each gives alone."""
    import torch

    try:
        together = scores_of(metric(images))
    except Exception as error:
        return f"no: {summary(error)}"
    alone = torch.cat([scores_of(metric(image[None])) for image in images])
    if together.shape != alone.shape:
        return f"no: {tuple(together.shape)} for 4 images"
    gap = ((together - alone).abs() / alone.abs().clamp(min=1e-6)).max().item()
    return "equal" if gap < 1e-4 else f"differs by {gap:.1%}"


def scores_of(result: Any) -> Any:
    """The scores as (N,), of a metric that returns more than them as well."""
    result = result[0] if isinstance(result, tuple | list) else result
    return result.detach().float().reshape(-1)


def gives_distribution(metric: Any, image: Any, plain: Any) -> str:
    """Whether ``return_dist=True`` brings more numbers than the score itself."""
    try:
        result = metric(image, return_dist=True)
    except Exception:  # the option is not there, in one way or another
        return "no"
    parts = result if isinstance(result, tuple | list) else [result]
    return "yes" if max(part.numel() for part in parts) > scores_of(plain).numel() else "no"


def gradient_support(create_loss: Any, images: Any) -> str:
    """Whether ``as_loss=True`` brings a finite gradient other than zero to the image."""
    try:
        metric = create_loss()
        image = images[:1].clone().requires_grad_()
        loss = metric(image).sum()
        if not loss.requires_grad:
            return "no"
        loss.backward()
    except Exception as error:
        return f"no: {summary(error)}"
    if image.grad is None:
        return "no: none reaches the image"
    if not image.grad.isfinite().all():
        return "no: not finite"
    return "yes" if image.grad.abs().max() > 0 else "no: zero"


def summary(error: BaseException) -> str:
    """One short line of an error, without this machine's paths."""
    chain, link = [], error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    kinds = {type(link).__name__ for link in chain}
    texts = " ".join(str(link) for link in chain)
    if kinds & {"LocalEntryNotFoundError", "OfflineModeIsEnabled"} or OFFLINE in texts or "Can't load image" in texts:
        return "needs a download"
    line = " ".join(str(error).split())
    line = re.sub(r"(?:[A-Za-z]:)?[/\\][^\s'\"]*[/\\][^\s'\"]*", "…", line)
    return f"{type(error).__name__}: {line[:70]}"


if __name__ == "__main__":
    try:
        row = work(sys.argv[1], int(sys.argv[2]))
    except Exception as error:  # goes into the table: that a metric cannot be created is a result
        row = {"error": summary(error)}
    print("ROW " + json.dumps(row))
