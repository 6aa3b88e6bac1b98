"""``qsit bench accuracy``: files, exit status, messages, going on after a stop."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.rated_ladder import make_ladder


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image folder; ratings.csv lies in it."""
    return make_ladder(tmp_path_factory.mktemp("ladder"), photos=("astronaut", "cat", "coffee"), side=96).parent


@pytest.fixture
def bench(qsit, ladder: Path, tiny_folder: Path, tmp_path: Path):
    def run(*arguments: object, images: Path = ladder, model: tuple = ("--model", tiny_folder)) -> Any:
        return qsit(
            "bench", "accuracy", "--dataset", "csv", "--images", images, "--annotations", images / "ratings.csv",
            "--group-column", "photo", "--distortion-column", "distortion", "--out", tmp_path / "run.json",
            "--resamples", 20, *model, *arguments,
        )  # fmt: skip

    return run


def test_json_and_markdown_are_written_and_the_markdown_is_shown(bench, tmp_path: Path) -> None:
    result = bench()
    assert result.exit_code == 0, result.stderr
    content = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert list(content) == ["dataset", "metrics", "unavailable_metrics", "bootstrap", "versions"]
    figures = content["metrics"]["tiny"]
    assert figures["n"] == 45
    assert list(figures["by_distortion"]) == ["blur", "noise", "jpeg"]
    assert {"srcc", "plcc", "krcc", "plcc_logistic4", "rmse_logistic4", "intervals", "failed"} <= figures.keys()
    assert result.stdout == (tmp_path / "run.md").read_text(encoding="utf-8")
    assert f"| tiny | 45 | {figures['srcc']:.3f} [" in result.stdout
    assert "45 of 45 images to score" in result.stderr


def test_a_second_run_scores_nothing_again_and_gives_the_same_result(bench, tmp_path: Path) -> None:
    bench()
    first, journal = (tmp_path / "run.json").read_bytes(), (tmp_path / "run.scores.jsonl").read_bytes()
    again = bench()
    assert "0 of 45 images to score" in again.stderr
    assert (tmp_path / "run.json").read_bytes() == first
    assert (tmp_path / "run.scores.jsonl").read_bytes() == journal


def test_an_image_that_was_replaced_is_scored_again_and_said(bench, ladder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(ladder, tmp_path / "copy")
    bench(images=copy)
    shutil.copy(copy / "cat_blur_5.png", copy / "cat_noise_1.png")
    again = bench(images=copy)
    assert "1 of 45 images to score" in again.stderr
    assert "tiny: 1 of them changed since they were scored: scored again" in again.stderr
    journal = tmp_path / "run.scores.jsonl"
    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    scores = {line["image"]: line["score"] for line in lines if "image" in line}
    first = next(line["score"] for line in lines if line.get("image") == "cat_noise_1.png")
    assert scores["cat_noise_1.png"] == pytest.approx(scores["cat_blur_5.png"], abs=1e-6) != first
    for line in lines:
        line.pop("mtime_ns", None)  # as an earlier version wrote it
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    old = bench(images=copy)
    assert "0 of 45 images to score" in old.stderr
    assert f"45 scores in {journal} are of an earlier version" in old.stderr


@pytest.mark.skipif(not hasattr(__import__("signal"), "SIGXFSZ"), reason="needs a limit on the size of files")
def test_a_full_disk_keeps_the_scores_and_says_how_to_go_on(bench, tmp_path: Path) -> None:
    import resource
    import signal

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
        full = bench()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    journal = tmp_path / "run.scores.jsonl"
    rows = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    done = sum("score" in row for row in rows)
    assert full.exit_code == 1
    assert f"the scores so far are whole in {journal}; the same command goes on there" in full.stderr
    assert 0 < done < 45
    again = bench()
    assert (again.exit_code, f"{45 - done} of 45 images to score" in again.stderr) == (0, True)


def test_ctrl_c_keeps_the_scores_and_says_how_to_go_on(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qsit_plugin.cli.progress import Progress

    def stop_at_ten(self: Progress) -> None:
        self.done += 1
        if self.done == 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", stop_at_ten)
        stopped = bench()
    assert stopped.exit_code == 130
    assert "the same command goes on there" in stopped.stderr
    assert not (tmp_path / "run.json").exists()
    result = bench()
    assert result.exit_code == 0
    assert "35 of 45 images to score" in result.stderr


@pytest.mark.parametrize("change", [("--dtype", "bfloat16"), ("--profile", "training.json")])
def test_a_changed_model_setting_is_refused_with_the_cure(
    bench, tiny_folder: Path, tmp_path: Path, change: tuple[str, str]
) -> None:
    bench()
    if change[0] == "--profile":
        profile = json.loads((tiny_folder / "qsit.json").read_text(encoding="utf-8"))
        change = (change[0], str(tmp_path / change[1]))
        Path(change[1]).write_text(json.dumps({**profile, "question": "How good is this?"}), encoding="utf-8")
    result = bench(*change)
    assert result.exit_code == 2
    assert "differed: " + change[0][2:] in result.stderr
    assert "give --out another name" in result.stderr


def test_a_broken_image_is_named_and_the_status_is_1(bench, ladder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(ladder, tmp_path / "copy")
    (copy / "cat_noise_3.png").write_bytes(b"no picture")
    result = bench(images=copy)
    assert result.exit_code == 1
    assert any(line.startswith("qsit: tiny: cat_noise_3.png: ") for line in result.stderr.splitlines())
    content = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert content["metrics"]["tiny"]["n"] == 44
    assert [item["image"] for item in content["metrics"]["tiny"]["failed"]] == ["cat_noise_3.png"]


def test_missing_images_stop_the_run_and_partial_goes_on(bench, ladder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(ladder, tmp_path / "copy")
    (copy / "cat_noise_3.png").unlink()
    stopped = bench(images=copy)
    assert stopped.exit_code == 2
    assert "1 of 45 images are not in" in stopped.stderr
    assert bench("--partial", images=copy).exit_code == 0
    content = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert content["dataset"]["n"] == 44
    assert content["dataset"]["missing_images"] == ["cat_noise_3.png"]


def test_two_ratings_of_one_image_are_refused_with_both_names(bench, ladder: Path, tmp_path: Path) -> None:
    table = tmp_path / "twice.csv"
    lines = (ladder / "ratings.csv").read_text(encoding="utf-8").splitlines()
    name, rest = lines[1].split(",", 1)
    table.write_text("\n".join([*lines, f"{name.upper()},{rest}"]) + "\n", encoding="utf-8")
    result = bench("--annotations", table)
    assert result.exit_code == 2
    assert f"the rows {name} (rated" in result.stderr
    assert f"and {name.upper()} (rated" in result.stderr


def test_a_baseline_runs_beside_our_model_and_one_that_cannot_is_reported(
    bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyiqa")
    monkeypatch.setattr("pyiqa.utils.download_util.DEFAULT_CACHE_DIR", str(tmp_path))
    result = bench("--metrics", "brisque,piqe,qsit-nano")
    assert result.exit_code == 1
    content = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert list(content["metrics"]) == ["tiny", "qsit-nano", "piqe"]
    assert content["metrics"]["piqe"]["lower_is_better"] is True
    assert content["metrics"]["piqe"]["by_distortion"]["blur"]["srcc"] > 0.5
    assert content["metrics"]["qsit-nano"]["n"] == content["metrics"]["piqe"]["n"] == 45
    assert "brisque cannot be created" in content["unavailable_metrics"]["brisque"]
    assert result.stdout.startswith("# Accuracy on ratings\n")  # pyiqa's own prints are elsewhere


def test_a_model_that_is_not_there_is_reported_and_the_others_go_on(bench, tmp_path: Path) -> None:
    result = bench("--model", "qsit-nanno")
    assert result.exit_code == 1
    content = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert list(content["metrics"]) == ["tiny"]
    assert "qsit-nanno" in content["unavailable_metrics"]["qsit-nanno"]


def test_a_model_whose_logits_are_not_finite_is_reported_and_the_others_go_on(
    bench, tiny_folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(tiny_folder, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    name = next(name for name in weights if name.endswith("norm.weight"))
    save_file({**weights, name: weights[name] * 1e38}, broken / "model.safetensors", {"format": "pt"})
    result = bench(model=("--model", broken, "--model", tiny_folder))
    assert result.exit_code == 1
    content = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert list(content["metrics"]) == ["tiny"]
    assert "not finite" in content["unavailable_metrics"]["broken"]


def test_two_models_of_one_name_are_refused(bench, tiny_folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_folder, tmp_path / "other" / "tiny")
    result = bench("--model", other)
    assert result.exit_code == 2
    assert "two models are called tiny" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "koniq10k"), "no dataset 'koniq10k'"),
        (("--dataset", "koniq"), "the columns of koniq are known"),
        (("--out", "run.csv"), "must end in .json"),
        (("--out", "no/such/folder/run.json"), "does not exist"),
        (("--mos-column", "rating"), "no column 'rating'; its header holds 'image', 'mos'"),
        (("--split", "test"), "has no splits"),
        (("--device", "toaster"), "toaster"),
        (("--metrics", "ssim"), "ssim needs a reference image"),
        (("--metrics", "niqee"), "no metric 'niqee'"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(bench, arguments: tuple[str, str], message: str) -> None:
    if "--metrics" in arguments:
        pytest.importorskip("pyiqa")
    result = bench(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("qsit: ")]
    assert message in line


@pytest.mark.parametrize("missing", ["scipy", "pyiqa"])
def test_a_library_that_is_missing_is_one_line_with_the_command(
    bench, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, missing, None)
    result = bench("--metrics", "piqe")
    assert result.exit_code == 2
    extra = "bench" if missing == "scipy" else "pyiqa"
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("qsit: ")]
    assert f'pip install "qsit-plugin[{extra}]"' in line


def test_a_spreadsheet_without_openpyxl_is_one_line_with_the_command(
    qsit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    (tmp_path / "scores.xlsx").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    result = qsit(
        "bench", "accuracy", "--dataset", "spaq", "--images", tmp_path, "--annotations", tmp_path / "scores.xlsx",
        "--out", tmp_path / "run.json",
    )  # fmt: skip
    assert result.exit_code == 2
    assert 'openpyxl is needed for this file and not installed: pip install "qsit-plugin[bench]"' in result.stderr


def test_figures_by_any_column_of_the_table_are_in_both_files(bench, tmp_path: Path) -> None:
    result = bench("--group-by", "photo", "--group-by", "distortion")
    assert result.exit_code == 0, result.stderr
    figures = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["metrics"]["tiny"]
    assert list(figures["by_group"]) == ["photo", "distortion"]
    assert list(figures["by_group"]["photo"]["groups"]) == ["astronaut", "cat", "coffee"]
    assert figures["by_group"]["distortion"]["groups"]["blur"]["srcc"] == figures["by_distortion"]["blur"]["srcc"]
    assert "## SRCC by photo" in result.stdout
    assert f"| mean of 3 |  | {figures['by_group']['photo']['mean_srcc']:.3f}" in result.stdout


def test_an_unknown_column_is_refused_before_anything_is_scored(bench, tmp_path: Path) -> None:
    result = bench("--group-by", "camera")
    assert result.exit_code == 2
    assert "no image has a value in a column 'camera'; there are" in result.stderr
    assert not (tmp_path / "run.scores.jsonl").exists()


def test_photos_that_are_held_out_are_what_is_evaluated(bench, tmp_path: Path) -> None:
    result = bench("--holdout", "0.4")
    assert result.exit_code == 0, result.stderr
    content = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (content["dataset"]["split"], content["dataset"]["n"]) == ("validation", 15)


def test_biq2021_shows_its_subsets_and_the_figures_without_twins_unasked(
    qsit, tiny_folder: Path, tmp_path: Path
) -> None:
    import numpy as np
    from PIL import Image

    from qsit_plugin.evaluation.datasets.biq2021 import FILES

    names = [f"ss0{subset} ({number}).jpg" for subset in (1, 3) for number in (151, 1329, 5648, 5667, 1, 2)]
    ratings = [f"{name},0.{3 + number}" for number, name in enumerate(names[:7])]
    (tmp_path / FILES["test"]).write_text("\n".join(["Image Name,MOS", *ratings, ""]))
    rng = np.random.default_rng(0)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / name)
    result = qsit(
        "bench", "accuracy", "--dataset", "biq2021", "--images", tmp_path, "--annotations", tmp_path / FILES["test"],
        "--out", tmp_path / "run.json", "--resamples", 20, "--partial", "--model", tiny_folder,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    content = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    figures = content["metrics"]["tiny"]
    assert (content["dataset"]["split"], figures["n"], figures["without_twins"]["n"]) == ("test", 7, 5)
    assert list(figures["by_group"]["subset"]["groups"]) == ["ss01", "ss03"]
    assert "EXIF orientation is not applied" in result.stdout
