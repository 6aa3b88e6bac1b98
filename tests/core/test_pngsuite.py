"""The edge cases and the broken files of PNGSuite."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qsit_plugin.images.reading import read_image
from tests.core.pictures import reason, values

PNGSUITE = Path(__file__).resolve().parents[3] / "shared" / "data" / "pngsuite"


needs_pngsuite = pytest.mark.skipif(not PNGSUITE.is_dir(), reason="needs ../shared/data/pngsuite")


@needs_pngsuite
def test_every_valid_file_of_pngsuite_opens():
    valid = sorted(path for path in PNGSUITE.glob("*.png") if not path.name.startswith("x"))
    assert len(valid) > 150
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in valid:
            with Image.open(path) as image:
                assert read_image(path).size == image.size


@needs_pngsuite
def test_every_invalid_file_of_pngsuite_is_an_image_error():
    invalid = sorted(PNGSUITE.glob("x*.png"))
    assert len(invalid) == 14
    for path in invalid:
        assert reason(path)
        assert reason(path.read_bytes())


@needs_pngsuite
def test_16_bit_grey_of_pngsuite_keeps_its_high_bytes():
    with Image.open(PNGSUITE / "basn0g16.png") as image:
        expected = np.asarray(image).astype(np.int64) >> 8
    assert len(np.unique(expected)) > 100
    assert np.array_equal(values(read_image(PNGSUITE / "basn0g16.png")), np.dstack([expected] * 3))
