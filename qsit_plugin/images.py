"""Any picture that a user may hold -> one loaded 8-bit RGB Pillow image.

The only place where a bad image becomes an :class:`ImageError`. Safe to call from several threads at once.

Rules (``docs/DESIGN.md``, "Faithful first"): alpha is dropped as Pillow's ``convert("RGB")`` drops it, EXIF rotation is
not applied unless asked for, floats lie in [0, 1] and are rounded, 16-bit values keep their high byte (which is what
Pillow itself does with 16-bit colour; only 16-bit grey would be saturated to white).
"""

from __future__ import annotations

import io
import logging
import os
import struct
import sys
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    import torch

ImageInput: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray | torch.Tensor"

MAX_PIXELS = 2**28
"""Default limit on width x height: 268 million pixels, 805 MB as RGB. Guards against decompression bombs."""

CHANNELS = (1, 3, 4)
FLOAT_SLACK = 1e-6
"""A float this far outside [0, 1] is a rounding error of somebody's arithmetic: clipped, not refused."""

_NOT_ANIMATIONS = ("MPO", "PSD")
"""Formats whose further "frames" are previews or layers of the same picture: no warning for every phone photo."""

_OPENING = threading.Lock()
_SHARED_PIL = threading.Lock()
_log = logging.getLogger("qsit_plugin")


class _Strict:
    """While a picture is decoded, Pillow raises for a truncated file, whatever anybody set before.

    pyiqa sets Pillow's global ``LOAD_TRUNCATED_IMAGES`` when it is imported; the missing part of a photo would then be
    scored as grey. The setting of the process comes back when the last of our threads has decoded.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, False

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = self.before


_TRUNCATION_IS_AN_ERROR = _Strict()


def _finish_before_fork() -> None:
    """A forked process inherits locks that threads hold which it does not inherit: it would wait for them for ever."""
    for lock in (_SHARED_PIL, _OPENING, _TRUNCATION_IS_AN_ERROR.lock):  # in the order in which they are nested
        lock.acquire()


def _go_on_after_fork() -> None:
    for lock in (_TRUNCATION_IS_AN_ERROR.lock, _OPENING, _SHARED_PIL):
        lock.release()


def _begin_in_fork() -> None:
    if _TRUNCATION_IS_AN_ERROR.inside:  # threads of the parent were decoding
        _TRUNCATION_IS_AN_ERROR.inside = 0
        ImageFile.LOAD_TRUNCATED_IMAGES = _TRUNCATION_IS_AN_ERROR.before
    _go_on_after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_finish_before_fork, after_in_parent=_go_on_after_fork, after_in_child=_begin_in_fork)


class ImageError(ValueError):
    """An input that cannot be used as an image. ``str(error)`` is one line: what was given, why not, and the cure."""

    def __init__(self, source: str, reason: str) -> None:
        source, reason = " ".join(source.split()), " ".join(reason.split())
        super().__init__(source, reason)  # both in args, so that the error survives pickling between processes
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


def read_image(source: ImageInput, *, exif_rotation: bool = False, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture as a new, loaded Pillow image of mode RGB; nothing stays open and nothing is shared with the input.

    Args:
        source: a path, the bytes of an image file, a Pillow image, a NumPy array or a torch tensor. Arrays and tensors
            hold uint8, uint16, or floats in [0, 1], with 1, 3 or 4 channels, as (H, W), (H, W, C) or (C, H, W), or
            a batch of one of these. Where both first and last axis could be channels, as in (3, H, 3), a NumPy array
            is read as (H, W, C) and a tensor as (C, H, W). Of an animation the first frame is taken, with a warning
            in the log (of a Pillow image: the frame it stands at).
        exif_rotation: turn the picture as its EXIF orientation says. The released procedure does not.
        max_pixels: refuse pictures with more pixels, before they are decoded. Replaces Pillow's own limit.

    Raises:
        ImageError: the input is missing, unreadable, damaged, too large, empty, or not of a supported kind.
    """
    name = describe(source)
    if isinstance(source, Image.Image):
        # Two threads must not decode, or seek in, the same lazily opened file: a list may hold an image twice.
        with _SHARED_PIL:
            return _from_pil(source, name, exif_rotation, max_pixels)
    if isinstance(source, np.ndarray):
        return _from_array(source, name, max_pixels, channels_first=False)
    if _is_tensor(source):
        return _from_array(_tensor_to_array(source, name), name, max_pixels, channels_first=True)
    if isinstance(source, (bytes, bytearray, memoryview)):
        if not len(source):
            raise ImageError(name, "empty; give the whole content of an image file")
        return _decode(io.BytesIO(source), name, exif_rotation, max_pixels)
    if isinstance(source, (str, os.PathLike)):
        return _from_file(os.fsdecode(source), name, exif_rotation, max_pixels)
    raise ImageError(
        name, "not an image; give a path, the bytes of an image file, a Pillow image, a NumPy array or a torch tensor"
    )


def is_many(images: Any) -> bool:
    """Whether this is several images: a list, a tuple, or a 4-D array or tensor (a batch, even of one)."""
    if isinstance(images, np.ndarray) or _is_tensor(images):
        return images.ndim == 4
    return isinstance(images, (list, tuple))


def as_items(images: Any) -> list[ImageInput]:
    """The single images: a list or tuple as a list, a 4-D array or tensor split along its first axis, else one item."""
    return list(images) if is_many(images) else [images]


def describe(source: Any) -> str:
    """Short name of an input for messages: its path, ``bytes (1,234)``, ``PIL image 640x480``, ``tensor (3, 4, 5)``."""
    if isinstance(source, Image.Image):
        return f"PIL image {source.width}x{source.height}"
    if isinstance(source, np.ndarray):
        return f"array {tuple(source.shape)}"
    if _is_tensor(source):
        return f"tensor {tuple(source.shape)}"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"bytes ({len(source):,})"
    if isinstance(source, (str, os.PathLike)):
        text = os.fsdecode(source)
        text = text if text.isprintable() and text.strip() else ascii(text)
        return text if len(text) <= 300 else f"{text[:140]} … {text[-140:]}"  # someone's base64, not a path
    return f"object of type {type(source).__name__}"


def _is_tensor(source: Any) -> bool:
    """A torch tensor, without importing torch: nobody can hold one before torch is imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, getattr(torch, "Tensor", ()))


def _from_file(path: str, name: str, exif_rotation: bool, max_pixels: int) -> Image.Image:
    if path.startswith(("http://", "https://")):
        raise ImageError(name, "web addresses are not read; download the file and give its path")
    file = Path(path)
    try:
        if path and file.is_dir():
            raise ImageError(name, "a folder, not an image; give the files in it")
        if path and file.exists() and not file.is_file():
            raise ImageError(name, "not a regular file; read it and give its bytes")
        with open(path, "rb") as handle:
            if not handle.peek(1):  # also brings the header into memory before _open takes its lock
                raise ImageError(name, "empty file; get it again")
            return _decode(handle, name, exif_rotation, max_pixels)
    except FileNotFoundError:
        raise ImageError(name, "no such file; check the spelling and the folder") from None
    except PermissionError:
        raise ImageError(name, "may not be read (permission denied); change its permissions or owner") from None
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # a name too long, a null character, a failing disk
        raise ImageError(name, f"cannot be opened ({_why(error)}); check the path") from error


def _decode(handle: BinaryIO, name: str, exif_rotation: bool, max_pixels: int) -> Image.Image:
    """Decode an open image file; the caller closes the handle."""
    try:
        with _open(handle) as image:
            _check_size(image.width, image.height, name, max_pixels)
            if image.format == "PNG":
                _check_png(handle, name)
            return _from_pil(image, name, exif_rotation, max_pixels)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ImageError(
            name, "not an image that can be read, or its beginning is damaged; convert it to PNG or get it again"
        ) from None
    except Exception as error:  # Pillow's decoders raise nearly every type on damaged files
        raise _damaged(name, error) from error


def _open(handle: BinaryIO) -> Image.Image:
    """``Image.open`` without Pillow's own pixel limit, whose place ours takes.

    Pillow's limit is a global that warns from 89 million pixels on and raises from 179 million on. It is put aside for
    the moment in which the header is read, under a lock, and put back.
    """
    with _OPENING:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(handle)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_png(handle: BinaryIO, name: str) -> None:
    """Raise ImageError where a chunk of pixel data fails its checksum: Pillow does not look at it while decoding."""
    position = handle.tell()
    handle.seek(8)
    while len(header := handle.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        if kind != b"IDAT":
            if kind == b"IEND":
                break
            handle.seek(length + 4, os.SEEK_CUR)
            continue
        checksum = zlib.crc32(kind)
        while length and (piece := handle.read(min(length, 1 << 20))):
            checksum = zlib.crc32(piece, checksum)
            length -= len(piece)
        stored = handle.read(4)
        if len(stored) == 4 and stored != struct.pack(">I", checksum):  # a short file is left for Pillow to report
            raise ImageError(name, "damaged (wrong checksum in the pixel data); get the file again or save it anew")
    handle.seek(position)


def _from_pil(image: Image.Image, name: str, exif_rotation: bool, max_pixels: int) -> Image.Image:
    """A new RGB image of what a Pillow image shows at its current frame."""
    try:
        _check_size(image.width, image.height, name, max_pixels)
        kind = image.format
        if getattr(image, "is_animated", False) and kind not in _NOT_ANIMATIONS:
            frame = image.tell() + 1
            which = "its first frame" if frame == 1 else f"frame {frame}, where it stands,"
            _log.warning("%s: holds several frames or pages; only %s is looked at", name, which)
        with _TRUNCATION_IS_AN_ERROR:
            image.load()
        if exif_rotation:
            image = ImageOps.exif_transpose(image)
        return _to_rgb(image, kind, name)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # as in _decode; a lazily opened Pillow image decodes here, or its file is closed
        raise _damaged(name, error) from error


def _to_rgb(image: Image.Image, kind: str | None, name: str) -> Image.Image:
    """``convert("RGB")``, save for the modes with more than 8 bits, which Pillow would saturate."""
    if image.mode.startswith("I;16") or image.mode == "F":
        return _from_array(np.asarray(image), name, image.width * image.height, channels_first=False)
    if image.mode == "I":
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise ImageError(name, f"32-bit integers from {low} to {high}; scale them to 8 or 16 bits")
        if high > 255 or kind in ("PNG", "PPM"):  # how older Pillow opens 16-bit grey, however dark
            values = values >> 8
        image = Image.fromarray(values.astype(np.uint8))
    if "transparency" in image.info:  # dropped either way; Pillow would warn about some palettes
        image = image.copy()
        del image.info["transparency"]
    try:
        return image.convert("RGB")
    except ValueError:
        raise ImageError(name, f"colour mode {image.mode} has no conversion to RGB; convert it first") from None


def _from_array(array: np.ndarray, name: str, max_pixels: int, *, channels_first: bool) -> Image.Image:
    """``channels_first``: which layout to believe where both fit."""
    shape = tuple(array.shape)
    if 0 in shape:
        raise ImageError(name, "zero-sized; an image needs at least one pixel")
    if array.ndim == 4:
        if shape[0] != 1:
            raise ImageError(name, f"holds {shape[0]} images where one is expected; give them one by one or as a list")
        array = array[0]
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3:
        raise ImageError(name, f"has {len(shape)} axes; an image is (H, W), (H, W, C) or (C, H, W)")
    first, last = array.shape[0] in CHANNELS, array.shape[2] in CHANNELS
    if not (first or last):
        raise ImageError(name, f"shape {shape} has no axis of channels; 1, 3 or 4 channels must come first or last")
    if first and (channels_first or not last):
        array = array.transpose(1, 2, 0)
    _check_size(array.shape[1], array.shape[0], name, max_pixels)
    pixels = _to_uint8(array[:, :, :3], name)
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    return Image.fromarray(np.ascontiguousarray(pixels))


def _to_uint8(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return (values >> 8).astype(np.uint8)
    if values.dtype.kind != "f":
        raise ImageError(name, f"values of type {values.dtype}; use uint8, uint16, or floats in [0, 1]")
    if values.dtype == np.float16:
        values = values.astype(np.float32)  # 255 times a half is not exact in half precision
    low, high = float(values.min()), float(values.max())  # NaN wherever there is one
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(name, "holds NaN or infinite values; mend what made them")
    if low < -FLOAT_SLACK or high > 1 + FLOAT_SLACK:
        cure = "divide by 255" if low >= 0 and 2 < high <= 255 else "clip or rescale"
        raise ImageError(name, f"floats from {low:.6g} to {high:.6g}, outside [0, 1]; {cure} first")
    return np.rint(values * 255).clip(0, 255).astype(np.uint8)


def _tensor_to_array(tensor: Any, name: str) -> np.ndarray:
    """The values of a tensor on any device, in any strided layout, with or without gradient."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ImageError(name, "a sparse or quantised tensor; give a plain one")
    if tensor.is_meta:
        raise ImageError(name, "a tensor on the meta device holds no pixels; give one with values")
    tensor = tensor.detach()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()  # bfloat16 and the 8-bit floats have no NumPy type; the conversion is exact
    return tensor.cpu().resolve_conj().resolve_neg().numpy()


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(name, f"zero-sized ({width}x{height}); an image needs at least one pixel")
    if width * height > max_pixels:
        raise ImageError(
            name, f"{width}x{height} is over the limit of {max_pixels:,} pixels; reduce the image or raise max_pixels"
        )


def _damaged(name: str, error: Exception) -> ImageError:
    return ImageError(
        name, f"cannot be decoded ({_why(error)}); damaged, truncated or closed: get it again or save it anew"
    )


def _why(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text or type(error).__name__
