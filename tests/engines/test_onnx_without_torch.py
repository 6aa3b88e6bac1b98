"""A fresh process that cannot import torch or transformers scores, explains and answers."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
POISON = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"

LIBRARY = """
import json
import qsit_plugin as qsit

folder, photo = sys.argv[1:]
model = qsit.load(folder, device="cpu")
look = model.encode(photo)
print(json.dumps({
    "engine": model.engine.name,
    "score": model.score(photo).value,
    "scores": [score.value for score in model.score([photo, photo])],
    "answer": look.ask("Is it blurry?", max_new_tokens=8).text,
    "explained": [answer.text for answer in model.explain([photo, photo], max_new_tokens=8)],
    "pieces": list(look.stream(max_new_tokens=4)),
    "shares": look.choose("Which?", ["blur", "noise"]),
    "attributes": len(look.attributes()),
    "better": model.compare(photo, photo).probability_a_better,
    "map": model.quality_map(photo, window=64).shape,
}))
"""
COMMAND = "from qsit_plugin.cli import main; main()"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    array = np.random.default_rng(0).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def run(code: str, *arguments: object) -> str:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", POISON + code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_poison_works(photo):
    out = run("try:\n    import torch\nexcept ImportError:\n    print('not to be had')")
    assert out.strip() == "not to be had"


def test_the_library_does_everything_without_torch_and_transformers(small_folder, photo):
    import qsit_plugin

    found = json.loads(run(LIBRARY, small_folder, photo))
    model = qsit_plugin.load(small_folder, engine="torch", device="cpu")
    assert found["engine"] == "onnx"
    assert found["score"] == pytest.approx(model.score(photo).value, abs=1e-5)
    assert found["scores"] == pytest.approx([found["score"]] * 2, abs=1e-6)
    assert found["answer"] == model.ask(photo, "Is it blurry?", max_new_tokens=8).text
    assert found["explained"] == [model.explain(photo, max_new_tokens=8).text] * 2
    assert found["shares"] == pytest.approx(model.choose(photo, "Which?", ["blur", "noise"]), abs=1e-5)
    assert (found["attributes"], found["better"], found["map"]) == (6, 0.5, [100, 150])


def test_the_command_scores_and_asks_without_torch_and_transformers(small_folder, photo):
    row = json.loads(run(COMMAND, "score", photo, "--model", small_folder, "--device", "cpu", "--format", "jsonl"))
    assert (row["engine"], row["dtype"]) == ("onnx", "float32")
    asked = ("ask", photo, "-q", "Is it blurry?", "--engine", "onnx", "--model", small_folder)
    answer = json.loads(run(COMMAND, *asked, "--format", "jsonl", "--max-new-tokens", "4"))
    assert (answer["engine"], answer["tokens"]) == ("onnx", 4)


def test_the_demo_and_the_self_check_need_neither(photo):
    said = run(COMMAND, "demo", "--device", "cpu")
    assert said.count("astronaut") >= 2 and "blur" in said.lower()
    assert run(COMMAND, "info", "--device", "cpu").splitlines()[-1].endswith("all good")


def test_a_folder_becomes_a_table_and_two_photos_are_compared(photo, tmp_path):
    run(COMMAND, "score", photo.parent, "--device", "cpu", "--out", tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as table:
        assert [row["engine"] for row in csv.DictReader(table)] == ["onnx"]
    found = json.loads(run(COMMAND, "compare", photo, photo, "--device", "cpu", "--format", "jsonl"))
    assert found["probability_a_better"] == 0.5
