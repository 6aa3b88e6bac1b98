"""FiftyOne: ``apply_model`` with Q-SiT. The level becomes a label, with its score, to sort and filter in the app.

    pip install "qsit-plugin[onnx]" fiftyone torch
    python examples/hosts/fiftyone_model.py album/

An image that cannot be scored has the label ``error``, the message, and no score.
"""

from __future__ import annotations

import argparse
from typing import Any

from fiftyone import Classification, Dataset, launch_app
from fiftyone.core.models import Model, SupportsGetItem, TorchModelMixin
from fiftyone.utils.torch import GetItem

from qsit_plugin.bulk import Scorer


class _Path(GetItem):
    """FiftyOne hands over paths: it would decode images its own way, and skip the batch of a broken one."""

    required_keys = ["filepath"]

    def __call__(self, sample: dict[str, Any]) -> str:
        return sample["filepath"]


class QsitModel(Model, SupportsGetItem, TorchModelMixin):
    """``samples.apply_model(QsitModel(), label_field="quality", batch_size=32)``; arguments as ``Scorer``."""

    media_type, transforms, preprocess, ragged_batches, has_collate_fn = "image", None, False, True, True

    def __init__(self, model: str = "qsit-nano", **settings: Any):
        self.scorer = Scorer(model, **settings)

    def build_get_item(self, field_mapping: dict[str, str] | None = None) -> _Path:
        return _Path(field_mapping=field_mapping)

    def predict(self, image: Any) -> Classification:
        """The label of one image: a path, or RGB uint8 (H, W, 3)."""
        return _label(self.scorer.record(image))

    def predict_all(self, images: list[Any]) -> list[Classification]:
        return [_label(record) for record in self.scorer.records(images)]


def _label(record: dict[str, Any]) -> Classification:
    if "error" in record:
        return Classification(label="error", message=record["error"]["message"])
    shares = record["probabilities"]
    return Classification(label=record["level"], confidence=shares[record["level"]], score=record["score"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a folder of images")
    parser.add_argument("--model", default="qsit-nano")
    given = parser.parse_args()
    samples = Dataset.from_images_dir(given.folder)
    samples.apply_model(QsitModel(given.model), label_field="quality", batch_size=32)
    launch_app(samples.sort_by("quality.score")).wait()
