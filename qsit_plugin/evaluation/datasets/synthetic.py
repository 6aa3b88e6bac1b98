"""Datasets of reference photos with synthetic distortions: KADID-10k, TID2013, CSIQ."""

from __future__ import annotations

import math
import re
from pathlib import Path

from .ratings import DatasetError, RatedImage
from .tables import Record, as_number, is_absent, rated, read_lines, read_table

KADID_TYPES = (
    "Gaussian blur", "lens blur", "motion blur", "color diffusion", "color shift", "color quantization",
    "color saturation 1", "color saturation 2", "JPEG2000 compression", "JPEG compression", "white noise",
    "white noise in color component", "impulse noise", "multiplicative noise", "denoise", "brighten", "darken",
    "mean shift", "jitter", "non-eccentricity patch", "pixelate", "quantization", "color block", "high sharpen",
    "contrast change",
)  # fmt: skip
"""The 25 distortions by their number in the file name, from 01 (Lin, Hosu and Saupe, 2019)."""

TID2013_TYPES = (
    "additive Gaussian noise", "additive noise in color components", "spatially correlated noise", "masked noise",
    "high frequency noise", "impulse noise", "quantization noise", "Gaussian blur", "image denoising",
    "JPEG compression", "JPEG2000 compression", "JPEG transmission errors", "JPEG2000 transmission errors",
    "non eccentricity pattern noise", "local block-wise distortions of different intensity",
    "mean shift (intensity shift)", "contrast change", "change of color saturation", "multiplicative Gaussian noise",
    "comfort noise", "lossy compression of noisy images", "image color quantization with dither",
    "chromatic aberrations", "sparse sampling and reconstruction",
)  # fmt: skip
"""The 24 distortions by their number in the file name, from 01 (Ponomarenko et al., 2015)."""

CSIQ_TYPES = {
    "noise": ("awgn", "AWGN"),
    "blur": ("blur", "BLUR"),
    "contrast": ("contrast", "contrast"),
    "fnoise": ("fnoise", "fnoise"),
    "jpeg": ("jpeg", "JPEG"),
    "jpeg 2000": ("jpeg2000", "jpeg2000"),
}
"""``dst_type`` of the DMOS table -> folder below ``dst_imgs``, and the token in the file name."""

_NUMBERED = re.compile(r"(?:.*/)?(?P<source>I\d+)_(?P<type>\d+)_(?P<level>\d+)\.\w+", re.IGNORECASE)
_CSIQ_NAME = re.compile(r"(?:.*/)?(?P<source>.+)\.(?P<type>\w+)\.(?P<level>\d)\.png", re.IGNORECASE)


def read_kadid10k(path: Path, bad: list[str] | None = None) -> list[RatedImage]:
    """KADID-10k: ``dmos.csv``, or tab-separated lines without a header, ``path  MOS  SD`` or ``path  MOS  names …``.

    Higher is better, 1-5: the column ``dmos`` is a mean of degradation category ratings in which 5 is imperceptible.
    ``var`` is a variance, so ``sd`` is its root.
    """
    if path.suffix.lower() != ".csv":
        return rated(read_lines(path, "\t"), _kadid_line, bad)
    return rated(read_table(path, ["dist_img", "dmos"]), _kadid_record, bad)


def _kadid_record(record: Record) -> RatedImage:
    variance = record.number_if_any("var")
    if variance is not None and variance < 0:
        raise DatasetError(f"{record.place}: a variance cannot be {variance}")
    sd = None if variance is None else math.sqrt(variance)
    return _numbered(record.text("dist_img"), record.number("dmos"), sd, KADID_TYPES, record.place)


def _kadid_line(line: tuple[str, list[str]]) -> RatedImage:
    place, fields = line
    if len(fields) < 2:
        raise DatasetError(f"{place}: expected a path, a MOS and more, separated by tabs; got {fields}")
    sd = as_number(fields[2], place) if len(fields) == 3 and not is_absent(fields[2]) else None
    return _numbered(fields[0], as_number(fields[1], place), sd, KADID_TYPES, place)


def read_tid2013(path: Path, bad: list[str] | None = None) -> list[RatedImage]:
    """TID2013: ``mos_with_names.txt``, lines such as ``5.51429 I01_01_1.bmp``. Higher is better, 0-9."""
    return rated(read_lines(path), _tid2013_line, bad)


def _tid2013_line(line: tuple[str, list[str]]) -> RatedImage:
    place, fields = line
    if len(fields) != 2:
        raise DatasetError(f"{place}: expected a MOS and a file name, got {' '.join(fields)!r}")
    return _numbered(fields[1], as_number(fields[0], place), None, TID2013_TYPES, place)


def _numbered(image: str, mos: float, sd: float | None, types: tuple[str, ...], place: str) -> RatedImage:
    """A row whose file name says reference, distortion and level: ``I01_02_03.png``."""
    match = _NUMBERED.fullmatch(image.strip().replace("\\", "/"))
    if match is None or not 1 <= int(match["type"]) <= len(types):
        raise DatasetError(f"{place}: {image!r} is not named like I01_02_3, with a distortion from 1 to {len(types)}")
    name, level = types[int(match["type"]) - 1], int(match["level"])
    return RatedImage(image, mos, mos, sd, source=match["source"].upper(), distortion=name, level=level)


def read_csiq(path: Path, bad: list[str] | None = None) -> list[RatedImage]:
    """CSIQ: ``csiq.DMOS.xlsx`` (sheet ``all_by_image``) or a csv with its columns, or lines ``1600.AWGN.1.png  DMOS``.

    DMOS on 0-1, lower is better, so ``quality`` is its negative.
    """
    if path.suffix.lower() == ".txt":
        return rated(read_lines(path), _csiq_line, bad)
    return rated(read_table(path, ["image", "dst_type", "dst_lev", "dmos"]), _csiq_record, bad)


def _csiq_record(record: Record) -> RatedImage:
    source, kind, level = record.text("image"), record.text("dst_type"), int(record.number("dst_lev"))
    if kind not in CSIQ_TYPES:
        raise DatasetError(f"{record.place}: no distortion {kind!r} in CSIQ; it has {', '.join(CSIQ_TYPES)}")
    folder, token = CSIQ_TYPES[kind]
    dmos = record.number("dmos")
    sd = record.number_if_any("dmos_std")
    image = f"{folder}/{source}.{token}.{level}.png"
    return RatedImage(image, dmos, -dmos, sd, source=source, distortion=kind, level=level)


def _csiq_line(line: tuple[str, list[str]]) -> RatedImage:
    place, fields = line
    match = _CSIQ_NAME.fullmatch(fields[0].replace("\\", "/"))
    kinds = {token.lower(): kind for kind, (_, token) in CSIQ_TYPES.items()}
    if match is None or match["type"].lower() not in kinds or len(fields) < 2:
        raise DatasetError(f"{place}: expected a name like 1600.AWGN.1.png and a DMOS, got {' '.join(fields)!r}")
    dmos, kind = as_number(fields[1], place), kinds[match["type"].lower()]
    return RatedImage(fields[0], dmos, -dmos, source=match["source"], distortion=kind, level=int(match["level"]))
