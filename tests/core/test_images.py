"""Every kind of input becomes one RGB image, every bad one an ImageError of one line."""

import io
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, features

from qsit_plugin.images.reading import ImageError, as_items, describe, is_many, read_image
from tests.core.pictures import GREY, PIXELS, encoded, reason, values

# ---- files and bytes ----


@pytest.mark.parametrize("as_given", [str, Path, Path.read_bytes, lambda p: bytearray(p.read_bytes()), Image.open])
def test_a_png_reads_the_same_in_every_form(tmp_path, as_given):
    path = tmp_path / "a photo – ü.png"
    Image.fromarray(PIXELS).save(path)
    source = as_given(path)
    assert np.array_equal(values(read_image(source)), PIXELS)
    if isinstance(source, Image.Image):
        source.close()


def test_a_jpeg_reads_as_pillow_decodes_it():
    data = encoded(Image.fromarray(PIXELS), "JPEG", quality=80)
    assert np.array_equal(values(read_image(data)), np.asarray(Image.open(io.BytesIO(data))))


def test_no_file_stays_open(tmp_path):
    path = tmp_path / "a.gif"
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    image = read_image(path)
    path.rename(tmp_path / "b.gif")  # on Windows an open file cannot be renamed
    if Path("/proc/self/fd").is_dir():
        held = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
        assert not [name for name in held if name.startswith(str(tmp_path))]
    assert image.size == (30, 20)


def test_a_missing_file_is_an_image_error(tmp_path):
    assert "no such file" in reason(tmp_path / "none.png")


def test_an_empty_path_is_an_image_error():
    assert "no such file" in reason("")


def test_a_folder_is_an_image_error(tmp_path):
    assert "a folder" in reason(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_an_unreadable_file_is_an_image_error(tmp_path):
    path = tmp_path / "locked.png"
    Image.fromarray(PIXELS).save(path)
    path.chmod(0)
    assert "permission denied" in reason(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_an_image_error_and_not_an_endless_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in reason(tmp_path / "pipe.png")


@pytest.mark.parametrize("path", ["x" * 5000, "nul\0.png", "two\nlines.png"])
def test_an_impossible_path_is_an_image_error_of_one_short_line(path):
    assert reason(path)
    assert len(describe(path)) <= 300


def test_the_error_of_a_web_address_says_to_download_it():
    assert "download" in reason("https://example.org/a.jpg")


@pytest.mark.parametrize("data", [b"", bytearray()])
def test_empty_bytes_are_an_image_error(data):
    assert "empty" in reason(data)


def test_an_empty_file_is_an_image_error(tmp_path):
    (tmp_path / "a.jpg").touch()
    assert "empty" in reason(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "content", [b"not an image at all", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", bytes(4096)]
)
def test_what_is_not_an_image_is_an_image_error(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert "image" in reason(path)
    assert reason(content)


KINDS = [kind for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP") if kind != "WEBP" or features.check("webp")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_truncated_file_is_an_image_error(kind, part):
    noise = np.random.default_rng(1).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    assert reason(data[: int(len(data) * part)])


def test_a_truncated_jpeg_says_so(tmp_path):
    path = tmp_path / "half.jpg"
    data = encoded(Image.fromarray(np.repeat(PIXELS, 20, axis=0)), "JPEG")
    path.write_bytes(data[: len(data) // 2])
    assert "truncated" in reason(path)


def test_a_truncated_file_is_an_error_even_where_the_process_tolerates_them(monkeypatch):
    """pyiqa switches Pillow's tolerance on for the whole process."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    content = encoded(Image.fromarray(PIXELS), "JPEG")
    assert "damaged" in reason(content[: len(content) // 2])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True, "the setting is the process's own and must come back"


def test_a_png_with_a_wrong_checksum_in_its_pixels_is_an_image_error():
    data = bytearray(encoded(Image.fromarray(PIXELS), "PNG"))
    end = data.index(b"IEND") - 4
    data[end - 1] ^= 0xFF  # the last byte of the last IDAT's checksum
    assert "checksum" in reason(bytes(data))


def test_an_opened_pil_image_of_a_damaged_file_is_an_image_error(tmp_path):
    path = tmp_path / "half.jpg"
    data = encoded(Image.fromarray(np.repeat(PIXELS, 20, axis=0)), "JPEG")
    path.write_bytes(data[: len(data) // 2])
    with Image.open(path) as image:
        assert "truncated" in reason(image)


def test_a_closed_pil_image_is_an_image_error(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    image.close()
    assert "closed" in reason(image)


# ---- the size limit ----


def test_an_image_over_the_limit_is_refused_with_the_numbers():
    data = encoded(Image.fromarray(PIXELS), "PNG")
    assert "30x20 is over the limit of 599 pixels" in reason(data, max_pixels=599)
    assert read_image(data, max_pixels=600).size == (30, 20)


@pytest.mark.parametrize("source", [Image.fromarray(PIXELS), PIXELS, torch.from_numpy(PIXELS)])
def test_the_limit_holds_for_images_in_memory(source):
    assert "over the limit" in reason(source, max_pixels=599)


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    assert "60000x60000 is over the limit" in reason(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def test_pillows_own_limit_neither_stops_nor_warns_and_is_left_as_it_was(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = encoded(Image.fromarray(PIXELS), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(data).size == (30, 20)
    assert reason(b"not an image")
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("kind", ["TIFF", "GIF"])
def test_pillows_limit_does_not_hold_while_pages_and_frames_are_decoded_either(kind, monkeypatch):
    file, picture = io.BytesIO(), Image.fromarray(PIXELS)
    options = {"disposal": 2} if kind == "GIF" else {}
    picture.save(file, kind, save_all=True, append_images=[picture.rotate(180)], **options)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(file.getvalue()).size == (30, 20)
    assert Image.MAX_IMAGE_PIXELS == 100


# ---- modes ----


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "RGBX", "PA", "RGBa"])
def test_every_8_bit_mode_becomes_what_pillow_converts_it_to(mode):
    image = Image.fromarray(PIXELS)
    image = image.convert("RGBA").convert(mode) if mode == "RGBa" else image
    image = image.convert("L").convert("LA").convert("PA") if mode == "PA" else image
    image = image if image.mode == mode else image.convert(mode)
    assert np.array_equal(values(read_image(image)), np.asarray(image.convert("RGB")))


def test_alpha_is_dropped_not_composited():
    rgba = np.dstack([PIXELS, np.zeros_like(GREY)])
    assert np.array_equal(values(read_image(Image.fromarray(rgba))), PIXELS)
    assert np.array_equal(values(read_image(encoded(Image.fromarray(rgba), "PNG"))), PIXELS)


@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255])])
def test_a_transparent_palette_loses_its_transparency_without_a_warning(transparency):
    image = Image.fromarray(PIXELS).quantize(8)
    data = encoded(image, "PNG", transparency=transparency)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(values(read_image(data)), np.asarray(image.convert("RGB")))


def test_a_cmyk_jpeg_is_read():
    data = encoded(Image.fromarray(PIXELS).convert("CMYK"), "JPEG")
    assert np.array_equal(values(read_image(data)), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_saturated(kind):
    data = encoded(Image.fromarray(GREY.astype(np.uint16) * 257), kind)
    assert np.array_equal(values(read_image(data)), np.dstack([GREY] * 3))


def test_a_dark_16_bit_png_stays_dark():
    data = encoded(Image.fromarray(np.full((4, 4), 200, dtype=np.uint16)), "PNG")
    assert values(read_image(data)).max() == 0


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bit_pil_images_of_either_byte_order_are_scaled(mode):
    order = "<u2" if mode == "I;16" else ">u2"
    image = Image.frombytes(mode, (30, 20), (GREY.astype(np.uint16) * 257).astype(order).tobytes())
    assert np.array_equal(values(read_image(image)), np.dstack([GREY] * 3))


@pytest.mark.parametrize("scale", [1, 256])
def test_integer_pil_images_of_8_or_16_bits_are_read(scale):
    image = Image.fromarray(GREY.astype(np.int32) * scale)
    assert np.array_equal(values(read_image(image))[:, :, 0], GREY)


@pytest.mark.parametrize("value", [-1, 70_000])
def test_integer_pil_images_beyond_16_bits_are_an_image_error(value):
    assert "32-bit integers" in reason(Image.fromarray(np.full((2, 2), value, dtype=np.int32)))


def test_float_pil_images_follow_the_rule_for_floats():
    assert np.array_equal(values(read_image(Image.fromarray(GREY.astype(np.float32) / 255)))[:, :, 0], GREY)
    assert "outside [0, 1]" in reason(Image.fromarray(GREY.astype(np.float32)))


def test_a_mode_without_conversion_is_an_image_error():
    assert "colour mode La" in reason(Image.new("La", (4, 4)))


def test_a_zero_sized_pil_image_is_an_image_error():
    assert "zero-sized" in reason(Image.new("RGB", (0, 5)))


def test_the_result_shares_nothing_with_a_pil_input():
    image = Image.fromarray(PIXELS)
    result = read_image(image)
    image.putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(values(result), PIXELS)


# ---- animation and rotation ----


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_taken_and_said_so(kind, caplog):
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "lime")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with caplog.at_level("WARNING", logger="qsit_plugin"):
        image = read_image(data)
    assert image.getpixel((3, 3)) == (255, 0, 0)
    assert [record.name for record in caplog.records] == ["qsit_plugin"]
    assert "first frame" in caplog.text


def test_of_an_animated_pil_image_the_frame_it_stands_at_is_taken(caplog):
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "lime")]
    with Image.open(io.BytesIO(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]))) as image:
        image.seek(1)
        assert read_image(image).getpixel((3, 3)) == (0, 255, 0)
        assert "frame 2" in caplog.text
        assert image.tell() == 1


def test_a_still_image_is_read_without_a_word(caplog):
    for kind in ("GIF", "PNG", "JPEG", "TIFF"):
        read_image(encoded(Image.fromarray(PIXELS), kind))
    assert not caplog.records


def _sideways() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    return encoded(Image.fromarray(PIXELS), "PNG", exif=exif)


def test_exif_rotation_is_left_alone_by_default():
    assert np.array_equal(values(read_image(_sideways())), PIXELS)


def test_exif_rotation_is_applied_when_asked_for():
    upright = values(read_image(_sideways(), exif_rotation=True))
    assert np.array_equal(upright, np.rot90(PIXELS, -1))


def test_exif_rotation_of_an_image_without_exif_changes_nothing():
    data = encoded(Image.fromarray(PIXELS), "PNG")
    assert np.array_equal(values(read_image(data, exif_rotation=True)), PIXELS)


# ---- several at once ----


def test_lists_tuples_and_batches_are_many():
    assert all(is_many(many) for many in ([], ("a", "b"), np.zeros((1, 3, 4, 4)), torch.zeros(2, 3, 4, 4)))
    assert not any(
        is_many(one) for one in ("a.png", b"x", PIXELS, torch.zeros(3, 4, 4), Image.new("L", (2, 2)), Path("a"))
    )


def test_items_of_lists_batches_and_single_images():
    assert as_items(("a", b"b")) == ["a", b"b"]
    assert as_items("a.png") == ["a.png"]
    assert as_items(torch.zeros(0, 3, 4, 4)) == []
    batch = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    assert [torch.equal(item, expected) for item, expected in zip(as_items(batch), batch, strict=True)] == [True, True]
    assert [item.shape for item in as_items(np.zeros((3, 5, 6, 3)))] == [(5, 6, 3)] * 3


def test_short_descriptions(tmp_path):
    assert describe(tmp_path / "a.png") == str(tmp_path / "a.png")
    assert describe(bytes(1234)) == "bytes (1,234)"
    assert describe(Image.new("RGB", (640, 480))) == "PIL image 640x480"
    assert describe(torch.zeros(3, 48, 64)) == "tensor (3, 48, 64)"
    assert describe(np.zeros((48, 64, 3))) == "array (48, 64, 3)"


def test_an_image_error_survives_pickling():
    error = pickle.loads(pickle.dumps(ImageError("a.png", "truncated")))
    assert (error.source, error.reason, str(error)) == ("a.png", "truncated", "a.png: truncated")


def test_threads_may_read_the_same_pil_image_and_the_same_file(tmp_path):
    path = tmp_path / "big.png"
    pixels = np.random.default_rng(3).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    limit = Image.MAX_IMAGE_PIXELS
    with Image.open(path) as lazy, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(read_image, [lazy, path] * 12))
    assert all(np.array_equal(values(result), pixels) for result in results)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_torch_is_not_imported():
    root = Path(__file__).resolve().parents[2]
    read = "qsit_plugin.images.reading.read_image(numpy.zeros((4, 4, 3), 'u1'))"
    code = f"import sys, numpy, qsit_plugin.images.reading; {read}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
