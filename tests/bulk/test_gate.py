"""``qsit gate``: which images pass, where they go, and how they come back."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from qsit_plugin.bulk.gate import Gate, keep_share
from qsit_plugin.bulk.manifest import carry_out, plan, undo
from qsit_plugin.bulk.sidecar import sidecar_path
from qsit_plugin.bulk.store import open_to_read
from qsit_plugin.bulk.stored import stored
from qsit_plugin.protocol import LEVELS
from tests.bulk.brightness import score
from tests.bulk.conftest import picture
from tests.bulk.test_manifest import state


def test_the_best_share_passes_whatever_it_scores() -> None:
    scores = np.random.default_rng(1).random(100)
    for share, count in ((0.2, 20), (0.07, 7), (0.001, 1), (1.0, 100), (0.205, 21)):
        assert (scores >= keep_share(scores, share).value).sum() == count
    assert keep_share([0.3, 0.5, 0.5], 0.2).value == 0.5


def test_the_interval_of_a_threshold_is_that_of_samples_drawn_whole() -> None:
    rng = np.random.default_rng(2)
    scores = rng.normal(0.5, 0.1, 200)
    found = keep_share(scores, 0.2)
    samples = np.sort(rng.choice(scores, (4000, 200)))[:, 160]
    assert found.interval == pytest.approx(np.quantile(samples, [0.025, 0.975]), abs=0.004)
    assert found == keep_share(scores[::-1], 0.2), "seeded, and the order of the images does not matter"


@pytest.mark.parametrize(("scores", "share"), [([], 0.2), ([0.5], 0.0), ([0.5], 1.1), ([0.5], float("nan"))])
def test_no_share_of_nothing(scores: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        keep_share(scores, share)


def test_a_level_is_asked_for_beside_the_threshold() -> None:
    gate = Gate("/a", 0.5, "good")
    assert [level for level in LEVELS if gate.passes({"score": 0.6, "level": level})] == ["excellent", "good"]
    assert not gate.passes({"score": 0.4, "level": "excellent"})


def test_an_image_takes_its_own_sidecar_along_and_gets_none_over_it(album: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.sqlite"
    (album / "bad.png").unlink()
    Path(sidecar_path(album / "a.png")).write_text("rated by hand")
    (album / "a.xmp").write_text("of a raw file")
    score(store, album)
    before = state(album)
    gate = Gate(str(album), 0.0, do="move", passed=str(tmp_path / "good"), sidecars=True)
    with closing(open_to_read(store)) as file:
        plan(tmp_path / "m.jsonl", gate.steps(stored(file, 1)), within=gate.within())
    assert all(outcome.done for outcome in carry_out(tmp_path / "m.jsonl"))
    good = state(tmp_path / "good")
    assert set(good) == {b"a.png", b"a.png.xmp", b"b.png", b"b.png.xmp", b"inner", b"inner/c.png", b"inner/c.png.xmp"}
    assert good[b"a.png.xmp"] == b"rated by hand" and b'xmp:Rating="3"' in good[b"b.png.xmp"]
    assert (album / "a.xmp").exists()
    assert all(outcome.done for outcome in undo(tmp_path / "m.jsonl"))
    assert state(album) == before and not (tmp_path / "good").exists()


def manifest_in(folder: Path) -> Path:
    (found,) = folder.glob("*-gate-*.jsonl")
    return found


def test_a_folder_is_parted_and_put_together_again(qsit, album: Path, tmp_path: Path) -> None:
    before = state(album)
    store, good, rest = tmp_path / "s.sqlite", tmp_path / "out" / "good", tmp_path / "out" / "rest"
    where = ("--pass", good, "--fail", rest, "--store", store)
    shown = qsit("gate", album, "--keep", "30%", "--dry-run", *where)
    assert shown.exit_code == 1 and "3 scored, 0 known, 1 failed" not in shown.stdout
    assert sorted(line.split()[0] for line in shown.stdout.splitlines()) == ["fail", "fail", "pass"]
    assert "95 % interval" in shown.stderr and "1 of 3 images pass" in shown.stderr
    assert state(album) == before and not good.parent.exists()
    result = qsit("gate", album, "--keep", "30%", "--move", "--yes", "--xmp", *where)
    assert result.exit_code == 1 and "1 images have no score and stay" in result.stderr
    kept = [line.rsplit(maxsplit=1)[1] for line in shown.stdout.splitlines() if line.startswith("pass")]
    assert set(state(album)) == {b"bad.png", b"inner"}
    moved = state(good) | state(rest)
    assert len([name for name in moved if name.endswith(b".png")]) == 3
    assert (good / Path(kept[0]).relative_to(album)).is_file()
    rejected = {name for name, content in moved.items() if b'Rating="-1"' in content}
    assert rejected == {name for name in state(rest) if name.endswith(b".xmp")} and len(rejected) == 2
    manifest = manifest_in(tmp_path)
    assert str(manifest) in result.stderr
    back = qsit("gate", "--undo", manifest)
    assert back.exit_code == 0 and "6 files taken back" in back.stderr
    assert state(album) == before and not good.parent.exists()


def test_what_was_sorted_into_a_folder_inside_is_not_looked_at_again(qsit, album: Path) -> None:
    (album / "bad.png").unlink()
    options = ("--min", 0, "--copy", "--pass", album / "good")
    assert qsit("gate", album, *options).exit_code == 0
    again = qsit("gate", album, *options)
    assert again.exit_code == 2 and "a.png is there already" in again.stderr, "the same once more overwrites nothing"
    assert "3 of 3 images pass" in again.stderr
    assert len(list((album / "good").rglob("*.png"))) == 3


def test_what_was_undone_may_be_done_again_at_once_with_a_manifest_of_its_own(
    qsit, album: Path, tmp_path: Path
) -> None:
    (album / "bad.png").unlink()
    options = ("--min", 0, "--copy", "--pass", tmp_path / "good")
    assert qsit("gate", album, *options).exit_code == 0
    assert qsit("gate", "--undo", manifest_in(tmp_path)).exit_code == 0
    assert qsit("gate", album, *options).exit_code == 0
    assert len(list(tmp_path.glob("good-gate-*.jsonl"))) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names, and another shell")
@pytest.mark.parametrize("name", ["two  blanks", "it's $HOME", "line\nend"])
def test_the_command_that_undoes_can_be_pasted_into_a_shell_whatever_the_folder_is_called(
    qsit, album: Path, tmp_path: Path, name: str
) -> None:
    place = tmp_path / name
    place.mkdir()
    said = qsit("gate", album, "--min", 0, "--copy", "--pass", place / "good").stderr
    command = said[said.index("qsit gate --undo ") : said.rindex(".jsonl'") + len(".jsonl'")]
    shown = ["sh", "-c", f'qsit() {{ printf %s "$3"; }}; {command}']
    assert subprocess.run(shown, capture_output=True, text=True, check=True).stdout == str(manifest_in(place))


def test_undo_says_what_it_leaves(qsit, album: Path, tmp_path: Path) -> None:
    (album / "bad.png").unlink()
    assert qsit("gate", album, "--min", 0, "--move", "--yes", "--pass", tmp_path / "good").exit_code == 0
    picture(album / "a.png", 99)
    back = qsit("gate", "--undo", manifest_in(tmp_path))
    assert back.exit_code == 1 and "2 files taken back, 1 left as they are" in back.stderr
    assert f"{tmp_path / 'good' / 'a.png'}: left here, since its old place is taken" in back.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--min .5 --keep 20% --dry-run", "give one of them"),
        ("--dry-run", "say what passes"),
        ("--keep 20 --dry-run", "no share"),
        ("--keep 0% --dry-run", "no share"),
        ("--level fine --dry-run", "no level 'fine'"),
        ("--min .5 --pass good", "--copy, --move, --link"),
        ("--min .5 --pass good --copy --move", "--copy, --move, --link"),
        ("--min .5 --copy", "say where"),
        ("--min .5 --pass x --fail x --copy", "one folder"),
        ("--min .5 --pass album --copy", "lies in"),
        ("--min .5 --pass good --move", "--yes"),
        ("--min .5 --pass good --copy --store no/such/s.sqlite", "cannot write"),
        ("--undo m.jsonl", "goes alone"),
    ],
)
def test_a_wrong_choice_is_one_line_and_status_2_before_a_model_is_loaded(
    qsit, album: Path, monkeypatch, options: str, words: str
) -> None:
    monkeypatch.chdir(album.parent)
    result = qsit("gate", "album", *options.split(), "--model", "no-such-model")
    assert result.exit_code == 2 and words in result.stderr and "no-such-model" not in result.stderr


def test_without_a_folder_and_with_a_file_that_is_no_manifest(qsit, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{}\n")
    for arguments in (
        ("--min", ".5"),
        (tmp_path / "gone",),
        ("--undo", tmp_path / "gone"),
        ("--undo", tmp_path / "x.jsonl"),
    ):
        assert qsit("gate", *arguments).exit_code == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are no UTF-8")
def test_odd_names_go_and_come_back(qsit, tmp_path: Path) -> None:
    for seed, name in enumerate((b"caf\xe9.png", b"a\nb.png")):
        picture(tmp_path / "album" / os.fsdecode(name), seed)
    before = state(tmp_path / "album")
    assert qsit("gate", tmp_path / "album", "--min", 0, "--move", "--yes", "--pass", tmp_path / "good").exit_code == 0
    assert state(tmp_path / "good") == before
    assert qsit("gate", "--undo", manifest_in(tmp_path)).exit_code == 0
    assert state(tmp_path / "album") == before
