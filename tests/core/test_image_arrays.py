"""Arrays and tensors of every layout and type become one RGB image; the others are refused."""

import io
import warnings

import numpy as np
import pytest
import torch

from qsit_plugin.images.reading import read_image
from tests.core.pictures import GREY, PIXELS, reason, values

CHW = np.ascontiguousarray(PIXELS.transpose(2, 0, 1))
LAYOUTS = {
    "HWC": PIXELS,
    "CHW": CHW,
    "1HWC": PIXELS[None],
    "1CHW": CHW[None],
    "reversed view": PIXELS[::-1, ::-1].copy()[::-1, ::-1],
    "RGBA": np.dstack([PIXELS, GREY]),
    "ARGB planes": np.concatenate([CHW, GREY[None]]),
    "float32": PIXELS / np.float32(255),
    "float64": PIXELS / 255.0,
    "float16": (PIXELS / 255.0).astype(np.float16),
    "uint16": PIXELS.astype(np.uint16) * 257,
    "big-endian uint16": (PIXELS.astype(np.uint16) * 257).astype(">u2"),
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_an_array_of_any_layout_and_type_gives_the_same_image(layout):
    assert np.array_equal(values(read_image(LAYOUTS[layout])), PIXELS)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("reversed view", "big-endian uint16")])
def test_a_tensor_of_any_layout_and_type_gives_the_same_image(layout):
    assert np.array_equal(values(read_image(torch.from_numpy(LAYOUTS[layout].copy()))), PIXELS)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (1, 20, 30), (1, 1, 20, 30), (1, 20, 30, 1)])
def test_one_channel_becomes_grey(shape):
    grey = np.dstack([GREY] * 3)
    assert np.array_equal(values(read_image(GREY.reshape(shape))), grey)
    assert np.array_equal(values(read_image(torch.from_numpy(GREY.reshape(shape).copy()))), grey)


def test_where_both_layouts_fit_arrays_are_hwc_and_tensors_chw():
    array = PIXELS[:3, :, :].copy()  # (3, 30, 3)
    assert np.array_equal(values(read_image(array)), array)
    assert np.array_equal(values(read_image(torch.from_numpy(array))), array.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (PIXELS[:3].copy(), r"array \(3, 30, 3\): .* \(H, W, C\), as NumPy has it, 30 wide and 3 high.*transpose"),
        (
            torch.from_numpy(PIXELS[:3].copy()),
            r"tensor \(3, 30, 3\): .* \(C, H, W\), as torch has it, 3 wide and 30 high",
        ),
    ],
)
def test_where_both_layouts_fit_a_warning_says_how_it_was_read_and_the_cure_in_it_reads_the_other_way(source, said):
    with pytest.warns(UserWarning, match=said):
        taken = read_image(source)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = read_image(source.transpose(1, 2, 0) if isinstance(source, np.ndarray) else source.permute(2, 0, 1))
    assert other.size == taken.size[::-1]


def test_a_layout_that_cannot_be_mistaken_is_read_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for pixels in (PIXELS, CHW, GREY, GREY[:3], PIXELS[None], CHW[None]):
            read_image(pixels)
            read_image(torch.from_numpy(pixels.copy()))


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_a_grey_picture_of_as_few_rows_as_channels_stays_grey(rows):
    grey = np.dstack([GREY[:rows]] * 3)
    assert np.array_equal(values(read_image(GREY[:rows])), grey)
    assert np.array_equal(values(read_image(torch.from_numpy(GREY[:rows].copy()))), grey)


def test_a_batch_of_tensors_follows_the_same_rule_with_a_gradient_as_without(nano_torch):
    from qsit_plugin.engines.gradients import level_probabilities

    batch = torch.rand(2, 3, 40, 3)
    with pytest.warns(UserWarning, match=r"tensor \(3, 40, 3\): .* \(C, H, W\)"):
        read_image(batch[0])
    with pytest.warns(UserWarning, match=r"tensor \(3, 40, 3\): .* \(C, H, W\)"):
        level_probabilities(nano_torch, list(batch.requires_grad_()))


def test_a_one_line_array_and_a_one_channel_tensor_of_the_same_shape():
    array = PIXELS[:1].copy()  # (1, 30, 3)
    assert read_image(array).size == (30, 1)
    assert read_image(torch.from_numpy(array)).size == (3, 30)


def test_tensors_with_gradient_and_of_half_precisions_are_read():
    tensor = torch.from_numpy(CHW) / 255
    assert np.array_equal(values(read_image(tensor.requires_grad_())), PIXELS)
    coarse = (tensor.detach() > 0.5).float()
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        expected = coarse.permute(1, 2, 0).numpy().astype(np.uint8) * 255
        assert np.array_equal(values(read_image(coarse.to(dtype))), expected)


def test_floats_are_rounded_not_cut():
    floats = np.array([[0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.0]], dtype=np.float32)
    assert values(read_image(floats))[0, :, 0].tolist() == [0, 0, 1, 255, 255]


def test_an_array_and_its_tensor_round_alike():
    floats = np.random.default_rng(2).random((50, 60, 3), dtype=np.float32)
    assert np.array_equal(values(read_image(floats)), values(read_image(torch.from_numpy(floats))))


def test_a_rounding_error_outside_the_range_is_clipped():
    assert values(read_image(np.array([[1.0000005, -5e-7]])))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_an_image_error(value):
    array = np.full((5, 5, 3), 0.5, dtype=np.float32)
    array[2, 2, 1] = value
    assert "NaN or infinite" in reason(array)
    assert "NaN or infinite" in reason(torch.from_numpy(array).to(torch.bfloat16))


@pytest.mark.parametrize("value, cure", [(255.0, "divide by 255"), (1.01, "clip"), (-0.5, "clip"), (1e9, "clip")])
def test_floats_outside_the_range_are_an_image_error_with_a_cure(value, cure):
    assert cure in reason(np.array([[0.0, value]]))


@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "bool", "complex64", "uint32", "object", "U1"])
def test_other_types_of_values_are_an_image_error(dtype):
    assert "use uint8" in reason(np.ones((4, 4, 3)).astype(dtype))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_other_types_of_tensors_are_an_image_error(dtype):
    assert "use uint8" in reason(torch.ones(3, 4, 4).to(dtype))


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0), (3, 0, 4), (0, 3, 4, 4), (0,)])
def test_zero_sized_arrays_are_an_image_error(shape):
    assert "zero-sized" in reason(np.zeros(shape, dtype=np.uint8))
    assert "zero-sized" in reason(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(10, 20, 2), (5, 10, 20), (2, 10, 20), (10, 20, 6)])
def test_a_wrong_number_of_channels_is_an_image_error(shape):
    assert "channels" in reason(np.zeros(shape, dtype=np.uint8))


@pytest.mark.parametrize("shape", [(), (5,), (1, 1, 3, 8, 8)])
def test_a_wrong_number_of_axes_is_an_image_error(shape):
    assert "axes" in reason(np.zeros(shape, dtype=np.uint8))


def test_a_batch_of_several_is_not_one_image():
    assert "holds 2 images" in reason(torch.zeros(2, 3, 8, 8))


def test_sparse_and_meta_tensors_are_an_image_error():
    assert "sparse" in reason(torch.ones(4, 4).to_sparse())
    assert "meta device" in reason(torch.zeros(3, 4, 4, device="meta"))


@pytest.mark.parametrize("source", [None, 5, {"a": 1}, ["a.png"], io.BytesIO(b"x")])
def test_an_object_that_is_no_image_is_an_image_error(source):
    assert "not an image" in reason(source)


def test_16_bit_values_that_use_12_bits_are_read_and_said_to_be_dark():
    values = np.full((6, 8), 4095, dtype=np.uint16)
    with pytest.warns(UserWarning, match="16-bit values up to 4,095, read as nearly black since 65,535 is white"):
        assert read_image(values).getpixel((0, 0)) == (15, 15, 15)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(np.full((6, 8), 4096, dtype=np.uint16))
