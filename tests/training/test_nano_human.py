"""The human stage: ratings become turns whose words fit them, and a whole run on a few photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import qsit_plugin
from qsit_plugin.checkpoint.onnx_record import FILES
from qsit_plugin.training.nano import publish
from qsit_plugin.training.nano.human import batches, imitation, measure, people, teacher
from qsit_plugin.training.nano.human.efficientnet import EfficientNetLite0
from qsit_plugin.training.nano.human.rated import Rated
from qsit_plugin.training.nano.language import learner
from qsit_plugin.training.nano.tower import load_result
from qsit_plugin.training.synthetic.detail import encoded
from qsit_plugin.training.synthetic.distortions import KINDS
from tests.conftest import NANO

data = pytest.importorskip("skimage.data", reason="test photos come from scikit-image")


def rated(mos: float) -> Rated:
    return Rated(Path("a.png"), mos, "training", "ss01")


def shares(**kinds: float) -> np.ndarray:
    return np.array([kinds.get(name.replace(" ", "_"), 0.0) for name in KINDS])


def test_nothing_is_blamed_in_a_photo_that_people_call_good():
    assert batches.blamed(rated(0.7), shares(blur=5.0)) == ()


def test_the_kind_that_the_tower_sees_most_is_blamed_for_a_low_rating_the_more_the_lower():
    poor, bad = (batches.blamed(rated(mos), shares(noise=5.0, blur=1.0)) for mos in (0.4, 0.1))
    assert poor[0].name == bad[0].name == "noise"
    assert poor[0].visible < bad[0].visible


def test_what_no_camera_does_is_blamed_for_no_rating():
    assert batches.blamed(rated(0.1), shares(stripes=5.0, blur=1.0))[0].name == "blur"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Six rated photos of 512 pixels, and three clean ones."""
    rated_folder, clean = tmp_path / "rated", tmp_path / "photos"
    rated_folder.mkdir(), clean.mkdir()
    photo = Image.fromarray(data.astronaut())
    rows = ["path,mos,std,split,subset,twin"]
    for n in range(6):
        turned = photo.transpose(Image.Transpose(n))
        turned.save(rated_folder / f"{n * 100}.png")
        rows.append(f"{n * 100}.png,{0.15 * n},,training,ss0{1 + n % 2},0")
    for n in range(3):
        photo.resize((520, 520)).save(clean / f"clean{n}.png")
    (rated_folder / "ratings.csv").write_text("\n".join(rows) + "\n")
    return rated_folder, clean


@pytest.fixture
def towered(tmp_path: Path) -> tuple[Path, Path]:
    torch.manual_seed(0)
    imitation.save(imitation.Imitator(0), tmp_path / "tower.safetensors")
    teacher.save(teacher.Teacher(EfficientNetLite0()), tmp_path / "teacher.safetensors")
    return tmp_path / "tower.safetensors", tmp_path / "teacher.safetensors"


def rated_batches(scoring: float, folder: Path) -> batches.RatedBatches:
    made = learner()
    some = [Rated(folder / f"{n * 100}.png", 0.15 * n, "training", f"ss0{1 + n % 2}") for n in range(6)]
    blamed = {photo.path.name: batches.blamed(photo, shares(noise=1.0)) for photo in some}
    return batches.RatedBatches(some, blamed, made.conversation, made.engine.tiling, 0, scoring, count=4)


def test_a_batch_of_scores_has_one_turn_an_image_and_peoples_level(folders):
    batch = rated_batches(1.0, folders[0])[0]
    assert len(batch.scores) == 4
    assert batch.turn.max() == 0 and (batch.role == 1).sum() == 4
    assert {round(score, 3) for score in batch.scores.tolist()} <= {round(1 + 4 * 0.15 * n, 3) for n in range(6)}


def test_a_batch_with_words_has_five_turns_an_image(folders):
    batch = rated_batches(0.0, folders[0])[0]
    assert batch.turn.max() == 4 and (batch.role == 3).any()


def test_a_batch_follows_from_its_seed_and_number(folders):
    first, again, other = (rated_batches(0.5, folders[0])[n] for n in (3, 3, 4))
    assert torch.equal(first.tiles, again.tiles) and torch.equal(first.ids, again.ids)
    assert first.tiles.shape != other.tiles.shape or not torch.equal(first.tiles, other.tiles)


def test_a_stopped_human_stage_goes_on_to_the_nano_of_an_uninterrupted_one(folders, towered, tmp_path):
    def run(name: str, *until: int) -> dict[str, torch.Tensor]:
        for steps in until:
            stage = people.HumanStage(steps=steps, aligning=2, save_every=1, frozen=0.3)
            people.train(*folders, *towered, tmp_path / name, stage)
        return load_file(tmp_path / name / "model.safetensors")

    whole, stopped = run("whole", 3), run("stopped", 2, 3)
    assert all(torch.equal(whole[key], stopped[key]) for key in whole)
    assert 0 <= qsit_plugin.load(tmp_path / "whole").score(folders[0] / "100.png").value <= 1


def test_the_projector_learns_to_say_what_the_old_one_said(folders, towered, capsys):
    images = [Image.open(folders[0] / "100.png").convert("RGB")]
    stage = people.HumanStage(aligning=50)
    people.begin(load_result(towered[0]), images, stage, aligned=False)
    assert float(capsys.readouterr().out.split("unexplained ")[1].split()[0]) < 1.5


def test_faults_count_photos_whose_file_scores_above_them():
    model, photo = qsit_plugin.load("qsit-nano"), Image.fromarray(data.astronaut())
    found = measure.faults(model, [photo])
    jpeg = model.score(encoded(photo, "JPEG", quality=95)).value - model.score(photo).value
    assert found["JPEG 95 above lossless"] == int(jpeg > measure.GAIN)
    grey = model.score(photo).value - model.score(photo.convert("L").convert("RGB")).value
    assert found["black and white"]["mean drop"] == pytest.approx(grey, abs=1e-3)


def test_words_count_photos_by_the_level_of_their_score(tmp_path):
    photo = Image.fromarray(data.astronaut())
    photo.save(tmp_path / "clean.png")
    encoded(photo.resize((64, 64)).resize((512, 512)), "JPEG", quality=3).save(tmp_path / "bad.png")
    found = measure.words(qsit_plugin.load("qsit-nano"), [tmp_path / "clean.png", tmp_path / "bad.png"])
    assert found["photos"] == 2 and found["poor or bad"] == 1
    assert found["of them nothing"] == 0


def test_publishing_exports_the_graphs_of_the_new_weights_over_those_of_the_old(tmp_path):
    pytest.importorskip("onnx", reason="publishing exports graphs")
    row = {"ladder": 0.9, "named": 0.8, "yes_no": 0.7}
    figures = {"per_distortion": dict.fromkeys(KINDS, row), "mean": row, "order": {"blur": 1.0}, "photos": 35}
    figures |= {"level_mass": {"mean": 1.0, "lowest": 0.9}, "pooled": {"views": 9, "srcc": 0.9}}
    figures["yes_no"] = {"questions": 9, "accuracy": 0.9}
    drops = {"mean drop": 0.0, "largest": 0.1}
    faults = {"photos": 35, "JPEG 95 above lossless": 0, "WEBP 90 above lossless": 0}
    words = {"photos": 9, "fair": 4, "fair and nothing": 1, "poor or bad": 3, "of them nothing": 0}
    words |= {"excellent": 2, "of them strong": 0}
    rated = dict.fromkeys(("all", "ss01", "mean"), 0.7)
    found = {"rated": rated, "without twins": rated, "unseen": 0.6, "words": words}
    found["faults"] = faults | {"black and white": drops, "framed": drops}
    for name, content in (("figures.json", figures), ("measured.json", found)):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    out = tmp_path / "nano"
    out.mkdir()
    for name in FILES:
        (out / name).write_text("of the weights before", encoding="utf-8")
    publish.publish(NANO, tmp_path / "figures.json", tmp_path / "measured.json", out)
    model = qsit_plugin.load(out, engine="onnx")  # refuses graphs that do not belong to the weights
    (golden, _) = json.loads((out / "golden.json").read_text(encoding="utf-8"))["goldens"]
    assert model.score(out / golden["image"]).value == pytest.approx(golden["score"], abs=1e-5)


def test_the_card_says_what_measure_found_on_the_test_parts():
    found = {"rated": {"all": 0.8, "ss01": 0.9, "mean": 0.7}, "without twins": {"all": 0.7, "ss01": 0.85, "mean": 0.6}}
    table = publish.people_table(found | {"unseen": 0.66})
    assert "| BIQ2021, official test | 0.80 | 0.70 |" in table
    assert "| its subset ss01 | 0.90 | 0.85 |" in table
    assert "| **mean of its subsets** | 0.70 | 0.60 |" in table
    assert "never trained on | 0.66 |" in table


def test_the_card_counts_words_that_contradict_the_score_and_files_above_their_originals():
    drops = {"mean drop": 0.012, "largest": 0.1}
    faults = {"photos": 35, "JPEG 95 above lossless": 3, "WEBP 90 above lossless": 2}
    words = {"photos": 2000, "fair": 600, "fair and nothing": 50, "poor or bad": 300, "of them nothing": 4}
    words |= {"excellent": 9, "of them strong": 1}
    said = publish.faults_list({"faults": faults | {"black and white": drops, "framed": drops}, "words": words})
    assert "Of 35 clean photos 3 score higher" in said and "2 as a WebP of 90" in said
    assert "4 of the 300 scored poor or bad are said to show nothing, 50 of the 600 scored fair; 1 of the 9" in said
