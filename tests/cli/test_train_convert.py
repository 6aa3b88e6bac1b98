"""qsit train convert: votes, containers and the forms of other trainers on the command line."""

import io
import json
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.test_train import assert_refused


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Votes of two raters on two photos."""
    (tmp_path / "photos").mkdir()
    for name in ("1.png", "2.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name)
    lines = ["photo,who,stars", "1.png,a,1", "1.png,b,2", "2.png,a,5", "2.png,b,4"]
    (tmp_path / "study.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_votes_become_rows_and_what_was_done_with_them_is_said(qsit, study: Path) -> None:
    columns = ["--image-column", "photo", "--rater-column", "who", "--mos-column", "stars"]
    command = ["train", "convert", "votes", study / "study.csv", "--images", study / "photos", "--range", 1, 5]
    result = qsit(*command, *columns, "--out", study / "rows.jsonl")
    assert result.exit_code == 0, result.stderr
    assert "4 votes of 2 raters on 2 images, 2 to 2 an image, averaged as they are" in result.stderr
    rows = rows_of(study / "rows.jsonl")
    assert [(row["image"], row["mos"], row["quality"]) for row in rows] == [
        ("photos/1.png", 1.5, 0.125),
        ("photos/2.png", 4.5, 0.875),
    ]
    refused = qsit(*command, "--out", study / "rows.jsonl")
    assert refused.exit_code == 2
    assert "has no column 'image', 'rating'" in refused.stderr


def test_a_tar_becomes_rows_and_an_image_folder(qsit, tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    with tarfile.open(tmp_path / "mine.tar", "w") as file:
        for name, content in (("1.png", picture.getvalue()), ("1.json", b'{"mos": 4}')):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    command = ["train", "convert", "csv", tmp_path / "mine.tar", "--images", tmp_path / "data" / "mine"]
    result = qsit(*command, "--range", 1, 5, "--out", tmp_path / "rows.jsonl")
    assert result.exit_code == 0, result.stderr
    assert rows_of(tmp_path / "rows.jsonl")[0]["image"] == "mine/1.png"
    assert (tmp_path / "data" / "mine" / "1.png").read_bytes() == picture.getvalue()


@pytest.mark.parametrize(("file", "package"), [("mine.parquet", "pyarrow"), ("hf:owner/name", "datasets")])
def test_a_missing_library_is_named_with_the_command(
    qsit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.parquet").write_bytes(b"")
    result = qsit("train", "convert", "swift", file, "--images", "images", "--out", "rows.jsonl")
    assert result.exit_code == 2
    assert f'{package} is needed for {file} and not installed: pip install "qsit-plugin[datasets]"' in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["csv", "--rater-column", "who"], "--rater-column is for votes"),
        (["votes", "--sd-column", "sd"], "votes have no column of deviations"),
        (["votes"], "needs the range of its ratings"),
        (["swift", "--range", "1", "5"], "swift has no ratings: leave --range out"),
        (["deqa", "--lower-is-better"], "with --range for qsit, qalign, deqa and jsonl"),
        (["qalign", "--mos-column", "score"], "the form of qalign is known"),
        (["swift", "--split", "test"], "leave --split and --partial out"),
        (["qalign", "--profile", "official"], "ends in a space"),
    ],
)
def test_options_that_mean_nothing_to_a_form_are_refused(qsit, study: Path, arguments: list[str], message: str) -> None:
    assert_refused(qsit, study / "study.csv", arguments, message)


def test_ratings_of_q_align_can_be_trained_on_at_once(qsit, study: Path, tiny_folder: Path) -> None:
    """Their ten questions would be refused: a score is read after one question alone."""
    from tests.training.runs import require_training

    require_training()
    yaml = pytest.importorskip("yaml", reason="settings are YAML")
    said = {"from": "gpt", "value": "The quality of the image is good."}
    asked = {"from": "human", "value": "Rate the quality of this image.\n<|image|>"}
    records = [{"id": f"{n}.png->7.5", "image": f"{n}.png", "conversations": [asked, said]} for n in (1, 2)]
    (study / "qalign.json").write_text(json.dumps(records), encoding="utf-8")
    command = ["train", "convert", "qalign", study / "qalign.json", "--images", study / "photos", "--range", 0, 10]
    assert qsit(*command, "--out", study / "rows.jsonl").exit_code == 0
    run = {"base": str(tiny_folder), "data": "rows.jsonl", "images": "photos", "output": "out", "method": "full"}
    run |= {"max_steps": 1, "workers": 0, "device": "cpu", "learning_rate": 0.001, "log_every": 1}
    (study / "run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    result = qsit("train", "run", study / "run.yaml")
    assert result.exit_code == 0, result.stderr
