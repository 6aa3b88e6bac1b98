"""Data-Juicer: an operator that keeps samples whose images score high enough, and leaves the scores in the stats.

    pip install "qsit-plugin[onnx]" py-data-juicer
    dj-process --config recipe.yaml

with this in recipe.yaml:

    dataset_path: samples.jsonl         # {"text": "", "images": ["a.jpg"]}
    export_path: kept.jsonl
    np: 2
    custom_operator_paths: [examples/hosts/data_juicer_filter.py]
    process:
      - qsit_quality_filter: {min_score: 0.6, any_or_all: all}

An image that cannot be scored has the score null and its error beside it, and never passes; one without images does.
"""

from __future__ import annotations

from typing import Any

from data_juicer.ops.base_op import OPERATORS, Filter
from data_juicer.utils.constant import Fields

from qsit_plugin.bulk import Scorer


@OPERATORS.register_module("qsit_quality_filter")
class QsitQualityFilter(Filter):
    """``min_score``, ``max_score``: in [0, 1]. ``any_or_all``: of a sample's images. ``settings``: of ``Scorer``."""

    _batched_op = True

    def __init__(
        self,
        model: str = "qsit-nano",
        min_score: float = 0.5,
        max_score: float = 1.0,
        any_or_all: str = "any",
        settings: dict[str, Any] | None = None,
        *args: Any,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        if any_or_all not in ("any", "all"):
            raise ValueError(f"any_or_all must be any or all, got {any_or_all!r}")
        self.scorer = Scorer(model, **(settings or {}))  # pickled into each process, where it loads its model once
        self.min_score, self.max_score = min_score, max_score
        self.enough = any if any_or_all == "any" else all

    def compute_stats_batched(self, samples: dict[str, list[Any]], *args: Any, **kwargs: Any) -> dict[str, list[Any]]:
        images = samples.get(self.image_key) or [None] * len(samples[Fields.stats])
        todo = [at for at, stats in enumerate(samples[Fields.stats]) if stats.get("qsit_scores") is None]
        records = self.scorer.iter_records(path for at in todo for path in images[at] or [])
        for at in todo:
            own = [next(records) for _ in images[at] or []]
            samples[Fields.stats][at]["qsit_scores"] = [record.get("score") for record in own]
            errors = [record["error"]["message"] if "error" in record else None for record in own]
            samples[Fields.stats][at]["qsit_errors"] = errors
        return samples

    def process_single(self, sample: dict[str, Any]) -> bool:
        values = sample[Fields.stats]["qsit_scores"]
        return not values or self.enough(
            value is not None and self.get_keep_boolean(value, self.min_score, self.max_score) for value in values
        )
