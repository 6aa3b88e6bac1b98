"""Images are looked at once and remembered; damaged ones are found, and left out where that is asked for."""

import logging
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.training.runs import RATINGS, Data, make_data, rating, require_training

require_training()

import qsit_plugin  # noqa: E402
from qsit_plugin.chat import stop_ids  # noqa: E402
from qsit_plugin.training import run as finetune  # noqa: E402
from qsit_plugin.training.config import ConfigError, RunConfig  # noqa: E402
from qsit_plugin.training.data import image_checks  # noqa: E402
from qsit_plugin.training.data.dataset import DamagedImage, QualityDataset  # noqa: E402
from qsit_plugin.training.data.image_checks import check_images  # noqa: E402
from qsit_plugin.training.data.rows import write_rows  # noqa: E402


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three pictures, and a cache that nothing is in."""
    monkeypatch.setenv("QSIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.effect_noise((40 + number, 30), 50).convert("RGB").save(tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


NAMES = ["0.png", "1.png", "2.png"]
SIZES = {"0.png": (40, 30), "1.png": (41, 30), "2.png": (42, 30)}


def overwrite(path: Path, content: bytes, *, at: int | None = None) -> None:
    """``at``: the time of the last change, in ns; by default the one that it had."""
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns if at is None else at))


def cut(path: Path) -> None:
    """Keep the first half of a file: its head is whole."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("verify", [False, True])
def test_a_file_that_did_not_change_is_not_opened_again(folder: Path, verify: bool) -> None:
    assert check_images(folder, NAMES, verify=verify) == (SIZES, {})
    overwrite(folder / "1.png", b"x" * (folder / "1.png").stat().st_size)
    assert check_images(folder, NAMES, verify=verify) == (SIZES, {})


@pytest.mark.parametrize("changed", ["size", "time"])
def test_a_file_that_was_replaced_is_looked_at_again(folder: Path, changed: str) -> None:
    check_images(folder, NAMES)
    content = b"x" * ((folder / "1.png").stat().st_size + (changed == "size"))
    overwrite(folder / "1.png", content, at=1 if changed == "time" else None)
    sizes, faults = check_images(folder, NAMES)
    assert list(sizes) == ["0.png", "2.png"]
    assert faults["1.png"][0] == "unreadable image"


def test_a_head_that_was_read_does_not_count_as_decoded(folder: Path) -> None:
    cut(folder / "1.png")
    assert check_images(folder, NAMES) == (SIZES, {})
    _, faults = check_images(folder, NAMES, verify=True)
    assert list(faults) == ["1.png"]
    assert "cannot be decoded" in faults["1.png"][1]


def test_several_processes_find_what_one_finds(folder: Path) -> None:
    names = [f"{number}.png" for number in range(100)]
    for name in names[3:]:
        Image.new("RGB", (20, 10)).save(folder / name)
    cut(folder / "1.png")
    (folder / "50.png").unlink()
    found = check_images(folder, names, verify=True, workers=2)
    assert found == check_images(folder, names, verify=True)
    assert {name: kind for name, (kind, _) in found[1].items()} == {
        "50.png": "missing image",
        "1.png": "unreadable image",
    }


@pytest.fixture(params=["a file in its place", "damaged", "locked"])
def unusable(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    check_images(folder, NAMES)
    (file,) = (folder.parent / "cache" / "images").iterdir()
    if request.param == "locked":
        monkeypatch.setattr(image_checks, "WAIT", 0.05)
        with sqlite3.connect(file, isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
        return
    if request.param == "damaged":
        file.write_bytes(b"no database" * 1000)
    else:
        (folder.parent / "taken").touch()
        monkeypatch.setenv("QSIT_CACHE", str(folder.parent / "taken"))
    yield


def test_a_cache_that_cannot_be_used_is_gone_without_and_said_once(folder: Path, unusable: None) -> None:
    said: list[str] = []
    assert check_images(folder, NAMES, say=said.append) == (SIZES, {})
    assert len(said) == 1
    assert "cannot be kept in" in said[0] and "let QSIT_CACHE name a folder that can be written" in said[0]


def test_the_run_of_a_program_is_not_disturbed_by_the_checks(folder: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    check_images(folder, NAMES, verify=True)
    assert torch.equal(torch.rand(3), expected)


# ---- a run ----


@pytest.fixture
def damaged(tmp_path: Path) -> Data:
    """Ten ratings of five pictures, of which 3.png is cut off behind its head."""
    data = make_data(tmp_path)
    again = [replace(rating(f"{n}.png", mos, data.profile), id=f"again {n}") for n, mos in enumerate(RATINGS)]
    rows = (*data.rows, *again)
    write_rows(tmp_path / "rows.jsonl", rows)
    cut(tmp_path / "3.png")
    return replace(data, rows=rows)


OPTIONS = {"batch_size": 1, "save_every": 3, "skip_damaged": True}


def dataset_of(data: Data, rows, **options) -> QualityDataset:
    model = qsit_plugin.load(data.base, device="cpu")
    opened = model.checkpoint
    return QualityDataset(
        rows,
        data.folder,
        conversation=model.conversation,
        profile=opened.profile,
        tiling=opened.tiling,
        stop_ids=stop_ids(opened.model, opened.tokenizer),
        max_tokens=32768,
        **options,
    )


def weights_of(config: RunConfig, **options) -> dict[str, torch.Tensor]:
    return load_file(next(finetune.run(config, say=print, **options).glob("*.safetensors")))


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_verify_images_lists_damaged_images_before_the_first_step(damaged: Data, tmp_path: Path) -> None:
    finetune.prepare(damaged.config(tmp_path / "a"), say=print)
    with pytest.raises(ConfigError) as caught:
        finetune.prepare(damaged.config(tmp_path / "b", verify_images=True), say=print)
    lines = str(caught.value).splitlines()
    assert lines[0] == "unreadable image: 2:"
    assert lines[1].startswith(f"  3.png->30.0: {damaged.folder / '3.png'}: cannot be decoded")
    assert lines[-1].endswith("(skip_damaged: true leaves out missing and damaged images)")


def test_damaged_and_missing_images_are_left_out_with_their_number_and_names(damaged: Data) -> None:
    (damaged.folder / "1.png").unlink()
    said: list[str] = []
    dataset = dataset_of(damaged, damaged.rows, verify=True, skip_damaged=True, say=said.append)
    assert said[0] == "missing image: 2:"
    assert said[1] == f"  1.png->75.0: 1.png is not in {damaged.folder}"
    assert said[3] == "unreadable image: 2:"
    assert said[-1] == "skip_damaged: 4 of 11 rows are left out; others of their sources take their places"
    samples = [dataset[index] for index in range(len(dataset))]
    assert not {"1.png", "3.png"} & {sample.row.image for sample in samples}
    for row, sample in zip(damaged.rows, samples, strict=True):
        assert (sample.row.source, sample.row.task) == (row.source, row.task)
        assert row.image in ("1.png", "3.png") or sample.row is row


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_found_damaged_in_its_turn_is_skipped_counted_and_said_once(
    damaged: Data, tmp_path: Path, workers: int
) -> None:
    prepared = finetune.prepare(damaged.config(tmp_path / "out", epochs=2, workers=workers, **OPTIONS), say=print)
    assert prepared.dataset.skipped() == []
    handler, logger = logging.FileHandler(tmp_path / "said.log"), logging.getLogger("qsit_plugin")
    logger.addHandler(handler)  # a file, as workers are other processes
    try:
        finetune.train(prepared)
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert prepared.loop.done == 2 * len(damaged.rows)
    assert prepared.dataset.skipped() == ["3.png"]
    assert (tmp_path / "said.log").read_text(encoding="utf-8").count("3.png: cannot be decoded") == 1


def test_verified_or_not_the_same_rows_take_the_places_of_damaged_ones(damaged: Data, tmp_path: Path) -> None:
    lazy = weights_of(damaged.config(tmp_path / "lazy", **OPTIONS))
    assert same(lazy, weights_of(damaged.config(tmp_path / "verified", verify_images=True, workers=2, **OPTIONS)))


def test_a_run_that_a_damaged_image_ended_goes_on_with_skip_damaged(damaged: Data, tmp_path: Path) -> None:
    whole = damaged.config(tmp_path / "whole", **OPTIONS)
    ended = replace(whole, output=str(tmp_path / "ended"), skip_damaged=False, save_every=1)
    with pytest.raises(DamagedImage, match="give skip_damaged: true; a run that has begun then goes on with --resume"):
        finetune.run(ended, say=print)
    assert same(weights_of(whole), weights_of(replace(ended, skip_damaged=True), resume=True))


def test_a_run_whose_damaged_row_was_taken_out_says_what_to_do_instead(damaged: Data, tmp_path: Path) -> None:
    config = damaged.config(tmp_path / "out", **OPTIONS)
    finetune.train(finetune.prepare(replace(config, max_steps=3), say=print))
    write_rows(tmp_path / "rows.jsonl", [row for row in damaged.rows if row.image != "3.png"])
    with pytest.raises(ConfigError, match="for a damaged image take no row out, but give skip_damaged: true"):
        finetune.run(replace(config, max_steps=3), resume=True, say=print)


def test_a_source_without_a_whole_image_is_refused(damaged: Data) -> None:
    rows = [rating("3.png", 30.0, damaged.profile), rating("0.png", 95.0, damaged.profile, source="other")]
    message = "no row of the source 'mine' with the task score has whole images"
    with pytest.raises(ConfigError, match=message):
        dataset_of(damaged, rows, verify=True, skip_damaged=True)
    with pytest.raises(DamagedImage, match=message):
        dataset_of(damaged, rows, skip_damaged=True)[0]


def test_validation_images_are_never_left_out(damaged: Data, tmp_path: Path) -> None:
    config = damaged.config(tmp_path / "out", validation=str(tmp_path / "rows.jsonl"), verify_images=True, **OPTIONS)
    with pytest.raises(ConfigError, match="validation, .*rows.jsonl:\nunreadable image: 2"):
        finetune.prepare(config, say=print)


def test_a_dataset_of_text_alone_needs_no_images(damaged: Data) -> None:
    row = damaged.rows[5]
    text = [{**turn, "content": [part for part in turn["content"] if part["type"] == "text"]} for turn in row.messages]
    dataset = dataset_of(damaged, [replace(row, image=None, messages=text)], verify=True, skip_damaged=True)
    assert len(dataset[0].tiles) == 0
