"""A small dataset from clean photos."""

from pathlib import Path

import pytest
from PIL import Image

from qsit_plugin.training.synthetic import rows

data = pytest.importorskip("skimage.data", reason="test photos come from scikit-image")


def test_rows_from_photos_can_be_trained_on(tmp_path: Path) -> None:
    photo = Image.fromarray(data.astronaut())
    (tmp_path / "photos").mkdir()
    for i in range(12):
        photo.rotate(30 * i).save(tmp_path / "photos" / f"{i}.png")
    files = rows.dataset(tmp_path / "photos", tmp_path / "rows", images=6, validation=4)
    assert [len(files[name]) for name in ("scoring", "quality", "general", "validation")] == [6, 6, 6, 8]
    assert all((tmp_path / "rows" / "images" / row.image).is_file() for row in files["scoring"])
    assert all("\nA. " in row.messages[0]["content"][1]["text"] for row in files["validation"] if row.task != "score")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [([(200, 200)], "has 1 photos, of which one in eight is held out"), ([(100, 200)] * 20, "fewer than 128 pixels")],
)
def test_photos_of_which_no_dataset_can_be_made_are_said_in_one_line(tmp_path: Path, sizes, message: str) -> None:
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (number, 90, 200)).save(tmp_path / f"{number}.png")
    with pytest.raises(ValueError, match=message):
        rows.dataset(tmp_path, tmp_path / "out", images=2, validation=1)
