"""Hugging Face datasets: score the images of a dataset with ``map``, in as many processes as you like.

    pip install "qsit-plugin[onnx]" datasets
    python examples/hosts/datasets_map.py album/ --out scored.parquet --processes 2

A broken image gets a row with an error and without a number; ``map`` goes on.
"""

from __future__ import annotations

import argparse
from typing import Any

from datasets import Dataset, Features, Image, Value, load_dataset

from qsit_plugin.bulk import Scorer

COLUMNS = Features({"qsit_score": Value("float64"), "qsit_level": Value("string"), "qsit_error": Value("string")})


def scores(images: list[dict[str, Any]], scorer: Scorer) -> dict[str, list[Any]]:
    """Three columns for a batch of images as ``Image(decode=False)`` gives them: the file's bytes, or its path."""
    records = scorer.records(image["bytes"] or image["path"] for image in images)
    return {
        "qsit_score": [record.get("score") for record in records],
        "qsit_level": [record.get("level") for record in records],
        "qsit_error": [record["error"]["message"] if "error" in record else None for record in records],
    }


def scored(dataset: Dataset, scorer: Scorer, *, column: str = "image", processes: int | None = None) -> Dataset:
    """The dataset with ``qsit_score`` in [0, 1], ``qsit_level`` and ``qsit_error``. The images stay as they are."""
    kept = dataset.features[column]
    files = dataset.cast_column(column, Image(decode=False))  # else one broken image ends the run
    result = files.map(
        scores,
        input_columns=column,
        fn_kwargs={"scorer": scorer},
        batched=True,
        batch_size=64,
        num_proc=processes,
        features=Features({**files.features, **COLUMNS}),
    )
    return result.cast_column(column, kept)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a folder of images")
    parser.add_argument("--out", required=True, metavar="FILE.parquet")
    parser.add_argument("--model", default="qsit-nano")
    parser.add_argument("--processes", type=int, default=None)
    given = parser.parse_args()
    images = load_dataset("imagefolder", data_dir=given.folder, split="train")
    table = scored(images, Scorer(given.model), processes=given.processes)
    table.remove_columns("image").to_parquet(given.out)
