"""Scorer: one record an image, whatever the image, in whatever process."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qsit_plugin.bulk import Scorer
from qsit_plugin.errors import WeightsError


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer("qsit-nano", device="cpu")


def test_a_record_is_the_score_of_the_library_for_a_path_its_bytes_and_its_pixels(scorer, album: Path, nano) -> None:
    path = album / "a.png"
    with Image.open(path) as image:
        pixels = np.asarray(image)
    records = scorer.records([path, path.read_bytes(), pixels])
    expected = nano.score(path)
    for record in records:
        assert record["score"] == pytest.approx(expected.value, abs=1e-6)
        assert (record["level"], record["width"], record["height"]) == (expected.level, 16, 12)
        assert record["fingerprint"] == nano.fingerprint and record["profile"] == "training"
        assert "error" not in record


def test_every_broken_image_is_an_error_record_in_its_place_and_never_a_number(scorer, album: Path) -> None:
    broken = [album / "bad.png", album / "gone.png", b"", b"no image", None, 7, "", "a\0b", album, np.zeros((2, 2, 9))]
    records = scorer.records([album / "a.png", *broken, album / "b.png"])
    assert ["error" in record for record in records] == [False, *[True] * len(broken), False]
    for record in records[1:-1]:
        assert list(record) == ["error"] and record["error"]["type"] and record["error"]["message"]


def test_a_pickled_scorer_carries_its_settings_and_no_weights(scorer, album: Path) -> None:
    assert "error" not in scorer.record(album / "a.png")  # the model is loaded
    data = pickle.dumps(scorer)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert repr(again) == repr(scorer) == "Scorer('qsit-nano', device='cpu')"
    assert again.record(album / "a.png") == scorer.record(album / "a.png")


def test_a_process_loads_the_model_once_however_often_the_scorer_arrives(scorer) -> None:
    one, two = pickle.loads(pickle.dumps(scorer)), pickle.loads(pickle.dumps(scorer))
    assert one.model is two.model
    assert Scorer("qsit-nano", device="cpu", max_pixels=9).model is not one.model


def test_a_worker_process_gives_the_same_record(scorer, album: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(scorer.record, [album / "a.png"]) == [scorer.record(album / "a.png")]


def test_a_model_that_cannot_be_loaded_is_an_error_of_the_run_not_of_each_image(album: Path) -> None:
    with pytest.raises(WeightsError, match="no-such-model"):
        Scorer("no-such-model").record(album / "a.png")


def test_records_are_lazy_and_only_a_few_images_are_taken_ahead(scorer, album: Path) -> None:
    taken = 0

    def images():
        nonlocal taken
        for _ in range(10_000):
            taken += 1
            yield album / "bad.png" if taken % 2 else album / "a.png"

    records = scorer.iter_records(images())
    next(records)
    assert taken < 300
    records.close()
