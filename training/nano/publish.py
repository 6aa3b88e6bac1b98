"""Put a trained checkpoint into ``weights/nano``: weights and configs, golden values, ONNX graphs, model card with its
figures."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from qsit_plugin.checkpoint import open_checkpoint
from qsit_plugin.checkpoint.onnx_export import export_onnx
from qsit_plugin.checkpoint.onnx_record import FILES
from qsit_plugin.checkpoint.saving import save_portable

from ..synthetic.distortions import KINDS, NAMES
from .architecture import PREPROCESSOR

LIMIT = 16 * 2**20
"""Bytes of safetensors that the package may carry."""

CARD = Path(__file__).with_name("MODEL_CARD.md")


def write_anew(source: Path, target: Path) -> None:
    """The same weights through today's ``save_portable``, so that the package never carries an older layout."""
    opened = open_checkpoint(source, device=torch.device("cpu"), dtype=torch.bfloat16)
    form: Any = {"preprocessor": PREPROCESSOR, "chat_template": opened.chat_template, "dtype": torch.bfloat16}
    save_portable(opened.model, opened.tokenizer, target, profile=opened.profile, **form)


def write_goldens(folder: Path) -> None:
    """``golden.json``: logits and score, by torch in float32 on the CPU, of the demo's two photos at 256 pixels. These
    are written as PNG, so that no JPEG decoder can move a golden value."""
    import qsit_plugin

    model, entries = qsit_plugin.load(folder, engine="torch", device="cpu", dtype="float32"), []
    for name in ("astronaut", "astronaut-blurred"):
        path = folder / f"golden-{name}.png"
        with (files("qsit_plugin") / "demo" / f"{name}.jpg").open("rb") as stream:
            Image.open(stream).convert("RGB").resize((256, 256), Image.Resampling.LANCZOS).save(path, optimize=True)
        logits, score = model.level_logits(path)[0].tolist(), model.score(path).value
        entries.append({"image": path.name, "logits": logits, "score": score, "note": "float32 on the CPU"})
    (folder / "golden.json").write_text(json.dumps({"goldens": entries}, indent=2) + "\n", encoding="utf-8")


def figures_table(figures: dict[str, Any]) -> str:
    """Markdown: a row a distortion, the mean of the first ten, and what is measured over all."""
    table, mean = figures["per_distortion"], figures["mean"]
    rows = ["| distortion | ladder correlation | named right | yes/no |", "|---|---|---|---|"]
    rows += [_row(name, table[name]) for name in NAMES]
    rows.append(_row("**mean of these ten**", mean))
    rows += [_row(name, table[name]) for name in KINDS if name not in NAMES]
    order = ", ".join(f"{name} {100 * share:.0f} %" for name, share in figures["order"].items())
    mass = figures["level_mass"]
    rows += [
        "",
        f"- Pooled over {figures['pooled']['views']:,} views: {figures['pooled']['srcc']:.2f}.",
        f"- Yes/no over {figures['yes_no']['questions']:,} questions: {100 * figures['yes_no']['accuracy']:.0f} %.",
        f"- In order: {order}.",
        f"- Probability of the five level words: mean {mass['mean']:.3f}, lowest {mass['lowest']:.3f}.",
    ]
    return "\n".join(rows)


def _row(name: str, row: dict[str, float]) -> str:
    return f"| {name} | {row['ladder']:.2f} | {100 * row['named']:.0f} % | {100 * row['yes_no']:.0f} % |"


def people_table(found: dict[str, Any]) -> str:
    """Markdown: agreement with people, from what ``measure`` found on the test parts."""
    asked, kept = found["rated"], found["without twins"]
    rows = ["| rank correlation (SRCC) | all | without near twins |", "|---|---|---|"]
    rows.append(f"| BIQ2021, official test | {asked['all']:.2f} | {kept['all']:.2f} |")
    rows += [f"| its subset {name} | {asked[name]:.2f} | {kept[name]:.2f} |" for name in asked if name.startswith("ss")]
    rows.append(f"| **mean of its subsets** | {asked['mean']:.2f} | {kept['mean']:.2f} |")
    rows.append(f"| LIVE in the Wild, test half, never trained on | {found['unseen']:.2f} | |")
    return "\n".join(rows)


def faults_list(found: dict[str, Any]) -> str:
    """Markdown: what ``measure`` counted beside the agreement."""
    faults, words = found["faults"], found["words"]
    count, grey, framed = faults["photos"], faults["black and white"], faults["framed"]
    return "\n".join(
        [
            f"- Of {count} clean photos {faults['JPEG 95 above lossless']} score higher by more than .01 as a JPEG of "
            f"quality 95, {faults['WEBP 90 above lossless']} as a WebP of 90.",
            f"- In black and white the same photos score {grey['mean drop']:.3f} lower on average, "
            f"{grey['largest']:.2f} at most; inside a wide black frame {framed['mean drop']:.3f} and "
            f"{framed['largest']:.2f}.",
            f"- Words against the number, on {words['photos']:,} photos of BIQ2021's test: "
            f"{words['of them nothing']} of the {words['poor or bad']} scored poor or bad are said to show "
            f"nothing, {words['fair and nothing']} of the {words['fair']} scored fair; "
            f"{words['of them strong']} of the {words['excellent']} scored excellent to show "
            "a strong distortion.",
        ]
    )


def publish(
    checkpoint: Path,
    figures: Path,
    measured: Path,
    out: Path | None = None,
) -> None:
    """Write ``out``, by default ``weights/nano`` of this package, from a checkpoint, the figures of ``evaluate`` and
    those of ``measure`` on the test parts."""
    target = out or Path(str(files("qsit_plugin.weights"))) / "nano"
    size = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    if size > LIMIT:
        raise SystemExit(f"{checkpoint} holds {size} bytes of safetensors; the package may carry {LIMIT}")
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:  # of the weights before: where what follows fails, no graphs stay that do not belong to these
        (target / name).unlink(missing_ok=True)
    write_anew(checkpoint, target)
    write_goldens(target)
    export_onnx(target)
    found, people = (json.loads(file.read_text(encoding="utf-8")) for file in (figures, measured))
    words = json.loads((target / "config.json").read_text(encoding="utf-8"))["text_config"]["vocab_size"]
    values = {"FIGURES_TABLE": figures_table(found), "PHOTO_COUNT": found["photos"], "TOKEN_COUNT": words}
    values |= {"PEOPLE_TABLE": people_table(people), "FAULTS_LIST": faults_list(people)}
    card = CARD.read_text(encoding="utf-8")
    for place, value in (values | {"WEIGHT_SIZE": f"{size / 1e6:.1f}"}).items():
        card = card.replace(place, str(value))
    (target / "README.md").write_text(card, encoding="utf-8")
    print(f"{target}: {size / 2**20:.1f} MiB of weights, figures of {found['photos']} photos")
