"""The hosts' examples, each run by the host's own runner: the scores are the library's, a broken image is an error.

Long, and each needs its host, which the tests' environment has not got: pytest -m slow tests/examples/test_hosts.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qsit_plugin.bulk import Scorer
from tests.bulk.conftest import picture

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ROOT / "examples" / "hosts"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HOSTS.is_dir(), reason="examples/ is not part of an installed package"),
]


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three pictures and, between them, a file that is none."""
    for number in range(3):
        picture(tmp_path / "album" / f"{number}.png", number)
    (tmp_path / "album" / "1b.png").write_bytes(b"this is no picture")
    return tmp_path / "album"


@pytest.fixture
def expected(album: Path) -> dict[str, float | None]:
    """Name -> score as the library gives it; None for the broken one."""
    paths = sorted(album.iterdir())
    return {path.name: record.get("score") for path, record in zip(paths, Scorer().records(paths), strict=True)}


def run(*command: object, cwd: Path, **variables: str) -> None:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_datasets_map_scores_in_two_processes(album, expected, tmp_path) -> None:
    pytest.importorskip("datasets", reason="needs pip install datasets")
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "scored.parquet"
    cache = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    run(sys.executable, HOSTS / "datasets_map.py", album, "--out", out, "--processes", 2, cwd=tmp_path, **cache)
    table = parquet.read_table(out).to_pylist()
    assert [row["qsit_score"] for row in table] == list(expected.values())
    assert [row["qsit_error"] is None for row in table] == [value is not None for value in expected.values()]


def test_data_juicer_keeps_what_scores_high_enough_and_never_a_broken_image(album, expected, tmp_path) -> None:
    pytest.importorskip("data_juicer", reason="needs pip install py-data-juicer")
    names = list(expected)
    samples = [*([name] for name in names), [names[0], "1b.png"], []]
    lines = [{"text": str(at), "images": [str(album / n) for n in own]} for at, own in enumerate(samples)]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    lowest, middle, _ = sorted(value for value in expected.values() if value is not None)
    least = (lowest + middle) / 2
    recipe = {
        "project_name": "qsit", "dataset_path": "samples.jsonl", "export_path": "out/kept.jsonl", "np": 1,
        "custom_operator_paths": [str(HOSTS / "data_juicer_filter.py")],
        "process": [{"qsit_quality_filter": {"min_score": least, "any_or_all": "all"}}],
        "open_tracer": False, "keep_stats_in_res_ds": True,
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML
    program = Path(sys.executable).with_name("dj-process")
    run(program, "--config", "recipe.yaml", cwd=tmp_path, HF_HUB_OFFLINE="1")
    kept = [json.loads(line) for line in (tmp_path / "out" / "kept.jsonl").read_text("utf-8").splitlines()]
    passing = [str(at) for at, name in enumerate(names) if (expected[name] or 0.0) >= least]
    assert [row["text"] for row in kept] == [*passing, "5"]
    stats = [json.loads(line) for line in next((tmp_path / "out").glob("*stats*")).read_text("utf-8").splitlines()]
    found = [row["__dj__stats__"]["qsit_scores"] for row in stats]
    assert found[-1] == []
    for values, text in zip(found[:-1], passing, strict=True):
        assert values == pytest.approx([expected[names[int(text)]]], abs=1e-9)  # its JSON has ten digits


_FIFTYONE = """
import importlib.util, json, sys
from fiftyone import Dataset
spec = importlib.util.spec_from_file_location("fiftyone_model", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
samples = Dataset.from_images_dir(sys.argv[2])
samples.apply_model(module.QsitModel(), label_field="quality", batch_size=3, num_workers=0, skip_failures=False)
rows = {s.filename: [s.quality.label, s.quality.has_field("score") and s.quality.score] for s in samples}
open(sys.argv[3], "w").write(json.dumps(rows))
"""


def test_fiftyone_apply_model_labels_every_sample(album, expected, tmp_path) -> None:
    if importlib.util.find_spec("fiftyone") is None:  # importing it starts its database
        pytest.skip("needs pip install fiftyone")
    out = tmp_path / "rows.json"
    own = {"FIFTYONE_DATABASE_DIR": str(tmp_path / "db"), "FIFTYONE_DO_NOT_TRACK": "1", "HOME": str(tmp_path)}
    run(sys.executable, "-c", _FIFTYONE, HOSTS / "fiftyone_model.py", album, out, cwd=tmp_path, **own)
    rows = json.loads(out.read_text("utf-8"))
    assert {name: score if label != "error" else None for name, (label, score) in rows.items()} == expected
    assert rows["1b.png"][0] == "error" and not rows["1b.png"][1]
