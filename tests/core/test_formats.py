"""HEIC, JPEG XL, AVIF and raw files: read where Pillow can be taught to, named with the cure where not."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from qsit_plugin.images.reading import formats, read_image
from tests.core.pictures import GREY, PIXELS, encoded, reason, values

ROOT = Path(__file__).resolve().parents[2]


def heic(image: Image.Image, **options) -> bytes:
    plugin = pytest.importorskip("pillow_heif", reason='needs pip install "qsit-plugin[formats]"')
    plugin.register_heif_opener()
    return encoded(image, "HEIF", **options)


def jpeg_xl(image: Image.Image, **options) -> bytes:
    pytest.importorskip("pillow_jxl", reason='needs pip install "qsit-plugin[formats]"')
    return encoded(image, "JXL", **options)


def in_a_fresh_process(code: str, *arguments: object) -> str:
    """What the code prints in a process that has registered nothing yet."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


WAVES = Image.fromarray(np.uint8(127 + 120 * np.sin(np.arange(96 * 128 * 3) / 999)).reshape(96, 128, 3))
READ = """
import sys
from PIL import Image
from concurrent.futures import ThreadPoolExecutor
before = set(Image.OPEN)
from qsit_plugin.images.reading import read_image
assert not {"pillow_heif", "pillow_jxl"} & set(sys.modules)
with ThreadPoolExecutor(8) as pool:
    print({image.resize((1, 1)).getpixel((0, 0)) for image in pool.map(read_image, sys.argv[1:] * 8)})
"""


@pytest.mark.parametrize("encode", [heic, jpeg_xl])
def test_a_picture_of_either_format_is_read_by_many_threads_of_a_process_that_has_registered_nothing(tmp_path, encode):
    path = tmp_path / "a.jpg"  # the first bytes say what it is, whatever its name
    path.write_bytes(encode(WAVES))
    expected = read_image(path).resize((1, 1)).getpixel((0, 0))
    assert in_a_fresh_process(READ, path) == str({expected})


def test_a_heic_file_gives_the_pixels_of_its_plugin():
    data = heic(WAVES)
    assert np.array_equal(values(read_image(data)), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert np.abs(values(read_image(data)).astype(int) - np.asarray(WAVES)).mean() < 3


@pytest.mark.parametrize("container", [False, True])
def test_a_lossless_jpeg_xl_file_gives_the_pixels_that_were_saved(container):
    assert np.array_equal(values(read_image(jpeg_xl(WAVES, lossless=True, use_container=container))), np.asarray(WAVES))


def test_a_16_bit_grey_jpeg_xl_file_is_scaled_and_not_saturated():
    data = jpeg_xl(Image.fromarray(GREY.astype(np.uint16) * 257), lossless=True)
    assert np.array_equal(values(read_image(data)), np.dstack([GREY] * 3))


@pytest.mark.parametrize("encode", [heic, jpeg_xl])
def test_a_healthy_file_without_its_package_names_the_package_and_the_extra(tmp_path, encode):
    path = tmp_path / "a.heic"
    path.write_bytes(encode(WAVES))
    module, package, _ = formats.PLUGINS["HEIC" if encode is heic else "JPEG XL"]
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from qsit_plugin.images.reading import ImageError, read_image\n"
        "try:\n    read_image(sys.argv[1])\n"
        "except ImageError as error:\n    print(error, type(error.__cause__).__name__)"
    )
    said = in_a_fresh_process(code, path)
    assert f"{package} is needed" in said
    assert 'pip install "qsit-plugin[formats]"' in said
    assert "damaged" not in said
    assert said.endswith("ModuleNotFoundError")


@pytest.mark.parametrize("encode", [heic, jpeg_xl])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_file_of_either_format_is_an_image_error(encode, part):
    data = encode(WAVES)
    assert "pip install" not in reason(data[: int(len(data) * part)])


@pytest.mark.parametrize("encode", [heic, jpeg_xl])
def test_the_pixel_limit_holds_for_either_format(encode):
    assert "128x96 is over the limit of 12,287 pixels" in reason(encode(WAVES), max_pixels=12_287)
    assert read_image(encode(WAVES), max_pixels=12_288).size == (128, 96)


def test_a_jpeg_xl_bomb_is_refused_before_its_plugin_decodes_it():
    """The plugin decodes while it opens. This header of 2**30 x 2**30 pixels has nothing behind it."""
    bits, at = 0, 0
    for value, width in ((0, 1), (3, 2), (2**30 - 1, 30), (1, 3)):  # not small, 30 bits of height, as wide as high
        bits, at = bits | value << at, at + width
    bomb = b"\xff\x0a" + bits.to_bytes(16, "little")
    assert "1073741824x1073741824 is over the limit" in reason(bomb)


@pytest.mark.parametrize("size", [(8, 8), (64, 48), (257, 255), (300, 200), (1600, 900), (700, 1), (1, 3000)])
@pytest.mark.parametrize("container", [False, True])
def test_the_size_in_a_jpeg_xl_header_is_that_of_the_picture(size, container):
    data = jpeg_xl(Image.new("RGB", size), use_container=container)
    assert formats.jxl_size(io.BytesIO(data)) == size


def test_the_turn_of_a_jpeg_xl_file_is_its_decoders_and_not_its_exif():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = jpeg_xl(WAVES, exif=exif.tobytes(), use_container=True, lossless=True)
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6
    assert np.array_equal(values(read_image(data, exif_rotation=True)), np.asarray(WAVES))


@pytest.mark.skipif(not ("AVIF" in features.get_supported() or features.check("avif")), reason="needs Pillow with AVIF")
def test_an_avif_file_on_a_pillow_without_avif_names_the_pillow_that_reads_it(tmp_path):
    path = tmp_path / "a.avif"
    path.write_bytes(encoded(WAVES, "AVIF"))
    assert read_image(path).size == (128, 96)
    code = (
        "import sys\nfrom PIL import Image\nImage.init()\n"
        "del Image.OPEN['AVIF']; Image.ID.remove('AVIF')\n"  # as Pillow before 11.3 is
        "from qsit_plugin.images.reading import ImageError, read_image\n"
        "try:\n    read_image(sys.argv[1])\nexcept ImageError as error:\n    print(error)"
    )
    assert "an AVIF picture" in (said := in_a_fresh_process(code, path)) and "pip install -U pillow" in said


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "HEIC"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic", "HEIC"),
        (b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1avifmiaf", "AVIF"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isommp42", None),
        (b"\xff\xd8\xff\xe0", None),
        (b"", None),
    ],
)
def test_a_format_is_known_by_its_first_bytes(head, kind):
    assert formats.format_of(head) == kind


def test_a_raw_file_is_not_judged_by_the_preview_that_pillow_finds_in_it(tmp_path):
    path = tmp_path / "a.NEF"
    path.write_bytes(encoded(Image.fromarray(PIXELS), "TIFF"))  # what Pillow takes a NEF or DNG for
    assert "a camera's raw file" in reason(path)
    path.write_bytes(b"FUJIFILMCCD-RAW 0201")
    assert "a camera's raw file" in reason(path)
    path.with_suffix(".tif").write_bytes(encoded(Image.fromarray(PIXELS), "TIFF"))
    assert read_image(path.with_suffix(".tif")).size == (30, 20)


def test_what_was_left_out_is_counted_once_by_suffix_and_texts_are_no_pictures():
    names = ["a.CR2", "b.cr2", "c.mov", "notes.txt", "a.json", "a.xmp", "README"]
    assert formats.left_out(names) == "3 files left out (.cr2, .mov)"
    assert formats.left_out(["a.dng"]) == "1 file left out (.dng)"
    assert formats.left_out(["notes.txt"]) == ""
    assert not formats.SUFFIXES & formats.LEFT_OUT


def test_every_face_finds_the_same_files(tmp_path):
    from qsit_plugin.cli.inputs import read
    from qsit_plugin.nodes.files import image_files

    for suffix in sorted(formats.SUFFIXES | formats.LEFT_OUT):
        (tmp_path / f"a{suffix}").touch()
    found = {path.suffix for path in image_files(tmp_path, tmp_path, recursive=True).files}
    assert found == {Path(item).suffix for item in read([str(tmp_path)])} == formats.SUFFIXES


def test_nothing_else_keeps_a_list_of_suffixes():
    folders = ("qsit_plugin", "nodes", "weights", "training", "examples")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(found) > 100
    lists = {path.name for path in found if re.search(r"""["'][*]?[.](jpeg|webp|tiff)["']""", path.read_text("utf-8"))}
    assert lists == {"formats.py"}
