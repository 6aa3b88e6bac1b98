"""The tables of inference.py, and how much arithmetic a pass really needs."""

from __future__ import annotations

import statistics
from typing import Any


def useful_flops(config: dict[str, Any], crops: int, tokens: int, images: int) -> float:
    """Multiplications and additions of the vision tower and the language model, heads and newlines left out.

    ``tokens`` are those of all images together; attention counts the causal half, images of equal length assumed.
    """
    vision, text = config["vision_config"], config["text_config"]
    width, inner = vision["hidden_size"], vision["intermediate_size"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    layer = patches * (8 * width**2 + 4 * width * inner) + 4 * patches**2 * width
    total = crops * (vision["num_hidden_layers"] * layer + 6 * patches * width * vision["patch_size"] ** 2)
    out = text["hidden_size"]
    total += crops * patches * 2 * (width * out + out * out)
    narrow = out * text["num_key_value_heads"] / text["num_attention_heads"]
    linear = 2 * (2 * out * out + 2 * out * narrow + 3 * out * text["intermediate_size"])
    total += text["num_hidden_layers"] * (tokens * linear + 2 * tokens * tokens / max(images, 1) * out)
    return total


def document(about: str, results: list[dict[str, Any]]) -> str:
    lines = ["# Inference: ours against the released procedure", "", about, ""]
    lines += [
        "Ratio: time of the released procedure by time of this contender, median over the rounds; above 1 is faster.",
        "Work: the same of the processor time of all threads, which other programs hardly touch.",
    ]
    for result in results:
        lines += ["", f"## {result['shape']}", "", f"{result['threads']} threads.", *_times(result), *_errors(result)]
    return "\n".join(lines) + "\n"


def _times(result: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "| task | contender | ratio (lowest–highest) | work | s, p50 | p99 | model only, s | images/s | roofline |",
    ]
    lines[-1] += " peak MiB | vision passes | crops | LLM tokens | head rows | host reads |"
    lines += ["|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"]
    vocabulary = result["config"]["text_config"]["vocab_size"]
    ours = {row["task"]: row["counts"] for row in result["rows"] if row["contender"] == "ours"}
    for row in result["rows"]:
        counts, middle = row["counts"], statistics.median(row["seconds"])
        inner = statistics.median(row["model_seconds"]) if row["model_seconds"] else None
        share = ""
        if inner:
            dtype = next((d for d in result["peak_flops"] if d in row["contender"]), None)
            peak = result["peak_flops"][dtype or next(reversed(result["peak_flops"]))]
            need = ours[row["task"]]
            flops = useful_flops(result["config"], need["crops"], need["llm_tokens"], row["images"])
            share = f"{flops / inner / peak:.0%}"
        rows = counts["head_rows"]
        head = f"{rows / vocabulary:.0f} × all" if rows > vocabulary else str(rows)
        if 0 < rows % vocabulary < 1000 and rows > vocabulary:
            head = f"{rows // vocabulary} × all + {rows % vocabulary}"
        waits = counts.get("device_syncs", counts["host_reads"])
        low, high = min(row["ratios"]), max(row["ratios"])
        cells = [row["task"], row["contender"], f"{row['ratio']:.2f} ({low:.2f}–{high:.2f})"]
        cells += [
            f"{row['work_ratio']:.2f}",
            f"{middle:.3f}",
            f"{quantile(row['seconds'], 0.99):.3f}",
            f"{inner:.3f}" if inner else "",
            f"{row['images'] / middle:.2f}",
        ]
        cells += [share, f"{row['peak_mib']:.0f}" if row["peak_mib"] else "", str(counts["vision_passes"])]
        cells += [str(counts["crops"]), f"{counts['llm_tokens']:,}", head, str(waits)]
        lines.append(f"| {' | '.join(cells)} |")
    peaks = ", ".join(f"{dtype} {flops / 1e9:,.0f} GFLOP/s" for dtype, flops in result["peak_flops"].items())
    return [*lines, "", f"Roofline: what a large matrix product reaches in the same process: {peaks}."]


def _errors(result: dict[str, Any]) -> list[str]:
    if not result["errors"]:
        return []
    about, *rows = result["errors"]
    lines = ["", f"Scores against the released procedure in {result['exact']}, {rows[0]['photos']} photos "]
    lines[-1] += f"(standard deviation of the scores {about['spread']:.3f}):"
    lines += ["", "| contender | mean absolute error | largest | tiles equal to the released ones, bit by bit |"]
    lines += ["|---|---:|---:|---:|"]
    for row in rows:
        same = "" if row["pixels_equal"] is None else f"{row['pixels_equal']} of {row['photos']}"
        lines.append(f"| {row['contender']} | {row['mean']:.2e} | {row['largest']:.2e} | {same} |")
    return lines


def quantile(values: list[float], share: float) -> float:
    """The value below which this share lies, nearest rank; with few values the largest."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
