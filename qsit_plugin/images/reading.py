"""Any picture that a user may hold -> one loaded 8-bit RGB Pillow image.

The only place where a bad image becomes an ``ImageError``. Safe to call from several threads at once. Arrays and
tensors: ``arrays.py``; suffixes, and formats that need a package beside Pillow: ``formats.py``.

Rules ("Faithful first" in CONTRIBUTING.md): alpha is dropped as Pillow's ``convert("RGB")`` drops it, EXIF rotation is
not applied unless asked for, floats lie in [0, 1] and are rounded, 16-bit values keep their high byte (which is what
Pillow itself does with 16-bit colour; only 16-bit grey would be saturated to white).
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError, features

from . import formats
from .arrays import from_array, is_tensor, tensor_to_array, warn_of_few_bits
from .errors import MAX_PIXELS, ImageError, check_size, pixel_limit

if TYPE_CHECKING:
    import torch

__all__ = ["MAX_PIXELS", "ImageError", "ImageInput", "as_items", "describe", "is_file", "is_many", "read_image"]

ImageInput: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | np.ndarray | torch.Tensor"

_NOT_ANIMATIONS = ("MPO", "PSD")
"""Formats whose further "frames" are previews or layers of the same picture: no warning for every phone photo."""

_OPENING = threading.Lock()
_SHARED_PIL = threading.Lock()
_log = logging.getLogger("qsit_plugin")


class Content(io.BytesIO):
    """Bytes of a file, which nobody changes, with its name, which the message about a camera's raw file goes by."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name


class _Setting:
    """A global of Pillow that holds our value while any of our threads is inside, whatever anybody set before.

    The setting of the process comes back when the last of them leaves.
    """

    def __init__(self, module: Any, name: str, ours: Any) -> None:
        self.module, self.name, self.ours = module, name, ours
        self.lock, self.inside, self.before = threading.Lock(), 0, None

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.before = getattr(self.module, self.name)
                setattr(self.module, self.name, self.ours)
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                setattr(self.module, self.name, self.before)

    def forget(self) -> None:
        """For a forked process, which has none of the threads that were inside."""
        if self.inside:
            self.inside = 0
            setattr(self.module, self.name, self.before)


_TRUNCATION_IS_AN_ERROR = _Setting(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
"""While a picture is decoded. pyiqa lets truncated files pass, for the whole process, when it is imported; the missing
part of a photo would then be scored as grey."""

_OUR_PIXEL_LIMIT = _Setting(Image, "MAX_IMAGE_PIXELS", None)
"""While a header is read, and while a TIFF or GIF is decoded, where Pillow looks at its limit again. That warns from 89
million pixels on and raises from 179 million on; ours takes its place, see ``read_image``."""

_SETTINGS = (_TRUNCATION_IS_AN_ERROR, _OUR_PIXEL_LIMIT)


def _finish_before_fork() -> None:
    """A forked process inherits locks that threads hold which it does not inherit: it would wait for them for ever."""
    for lock in (_SHARED_PIL, _OPENING, *(setting.lock for setting in _SETTINGS)):  # in the order of their nesting
        lock.acquire()


def _go_on_after_fork() -> None:
    for lock in (*(setting.lock for setting in _SETTINGS), _OPENING, _SHARED_PIL):
        lock.release()


def _begin_in_fork() -> None:
    for setting in _SETTINGS:
        setting.forget()
    _go_on_after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_finish_before_fork, after_in_parent=_go_on_after_fork, after_in_child=_begin_in_fork)


def read_image(source: ImageInput, *, exif_rotation: bool = False, max_pixels: int | None = MAX_PIXELS) -> Image.Image:
    """The picture as a new, loaded Pillow image of mode RGB; nothing stays open and nothing is shared with the input.

    Args:
        source: a path, the bytes of an image file, an open binary file, a Pillow image, a NumPy array or a torch
            tensor. A file is read as Pillow reads it: from its beginning where it can be rewound, and its position is
            then as it was; a stream (``sys.stdin.buffer``, a web response) is read to its end from where it stands.
            Arrays and tensors hold uint8, uint16, or floats in [0, 1], with 1, 3 or 4 channels, as (H, W), (H, W, C)
            or (C, H, W), or a batch of one of these. Where both first and last axis could be channels, as in
            (3, 50, 3), a NumPy array is read as (H, W, C) and a tensor as (C, H, W), with a warning. Of an animation
            the first frame is taken, with a warning in the log (of a Pillow image: the frame it stands at).
        exif_rotation: turn the picture as its EXIF orientation says. The released procedure does not. HEIC and JPEG XL
            say it outside EXIF, as part of decoding, so theirs is always followed.
        max_pixels: refuse pictures with more pixels, before they are decoded; None for no limit. Replaces Pillow's own
            limit.

    Raises:
        ImageError: the input is missing, unreadable, damaged, too large, empty, or not of a supported kind; or of a
            format (HEIC, JPEG XL) whose package is not installed.
        ValueError: ``max_pixels`` is no whole number from 1 on.
    """
    max_pixels = pixel_limit(max_pixels)
    name = describe(source)
    if isinstance(source, Image.Image):
        # Two threads must not decode, or seek in, the same lazily opened file: a list may hold an image twice.
        with _SHARED_PIL:
            return _from_pil(source, name, exif_rotation, max_pixels)
    if isinstance(source, np.ndarray):
        return from_array(source, name, max_pixels, channels_first=False)
    if is_tensor(source):
        return from_array(tensor_to_array(source, name), name, max_pixels, channels_first=True)
    if isinstance(source, (str, os.PathLike)):
        return _from_file(os.fsdecode(source), name, exif_rotation, max_pixels)
    if is_file(source):
        source = _content(source, name)
    if isinstance(source, (bytes, bytearray, memoryview)):
        if not len(source):
            raise ImageError(name, "empty; give the whole content of an image file")
        return _decode(io.BytesIO(source), name, exif_rotation, max_pixels)
    raise ImageError(
        name,
        "not an image; give a path, the bytes of an image file, an open file, a Pillow image, a NumPy array or a torch "
        "tensor",
    )


def is_many(images: Any) -> bool:
    """Whether this is several images: a list, a tuple, or a 4-D array or tensor (a batch, even of one)."""
    if isinstance(images, np.ndarray) or is_tensor(images):
        return images.ndim == 4
    return isinstance(images, (list, tuple))


def is_file(source: Any) -> bool:
    """Whether this is an open file or a stream: one image, although its lines can be gone through."""
    return callable(getattr(source, "read", None))


def as_items(images: Any) -> list[ImageInput]:
    """The single images: a list or tuple as a list, a 4-D array or tensor split along its first axis, else one item."""
    return list(images) if is_many(images) else [images]


def describe(source: Any) -> str:
    """Short name of an input for messages: its path, ``bytes (1,234)``, ``PIL image 640x480``, ``tensor (3, 4, 5)``."""
    if isinstance(source, Image.Image):
        return f"PIL image {source.width}x{source.height}"
    if isinstance(source, np.ndarray):
        return f"array {tuple(source.shape)}"
    if is_tensor(source):
        return f"tensor {tuple(source.shape)}"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"bytes ({len(source):,})"
    if isinstance(source, (str, os.PathLike)):
        return _shown(os.fsdecode(source))
    if is_file(source):
        opened = getattr(source, "name", None)
        return f"open file {_shown(opened) if isinstance(opened, str) else type(source).__name__}"
    return f"object of type {type(source).__name__}"


def _shown(text: str) -> str:
    text = text if text.isprintable() and text.strip() else ascii(text)
    return text if len(text) <= 300 else f"{text[:140]} … {text[-140:]}"  # someone's base64, not a path


def _content(file: Any, name: str) -> bytes:
    """What an open file holds; see ``read_image`` for where it begins, and where it stands afterwards."""
    try:
        if hasattr(file, "seekable") and file.seekable():
            with _SHARED_PIL:  # the same file may stand twice in a list, or under a Pillow image beside it
                before = file.tell()
                file.seek(0)
                try:
                    content = file.read()
                finally:
                    file.seek(before)
        else:
            content = file.read()  # not under the lock: a web response takes its time
    except Exception as error:  # closed, opened for writing, or whatever the other end of a stream raises
        raise ImageError(name, f"cannot be read ({_why(error)}); give a file that is open for reading") from error
    if isinstance(content, str):
        raise ImageError(name, 'opened as text; open it in binary mode, as open(path, "rb") does')
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise ImageError(name, f"its read() gave {type(content).__name__}, not bytes; give the bytes of an image file")
    return bytes(content)


def _from_file(path: str, name: str, exif_rotation: bool, max_pixels: int | None) -> Image.Image:
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
        if path and os.path.islink(path):
            raise ImageError(name, f"a link to {os.readlink(path)}, which is not there; remove or renew it") from None
        raise ImageError(name, "no such file; check the spelling and the folder") from None
    except PermissionError:
        raise ImageError(name, "may not be read (permission denied); change its permissions or owner") from None
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # a name too long, a null character, a failing disk
        if getattr(error, "errno", None) == errno.ELOOP:
            raise ImageError(name, "a link that leads back to itself; remove it or name the file itself") from error
        raise ImageError(name, f"cannot be opened ({_why(error)}); check the path") from error


def _decode(handle: BinaryIO, name: str, exif_rotation: bool, max_pixels: int | None) -> Image.Image:
    """Decode an open image file; the caller closes the handle."""
    head = handle.read(64)
    handle.seek(0)
    kind = formats.format_of(head)
    try:
        if kind in formats.PLUGINS:
            _enable(kind, name)
        if kind == "JPEG XL" and (size := formats.jxl_size(handle)) is not None:
            check_size(*size, name, max_pixels)
        with _open(handle, kind) as image:
            if image.format in formats.PROGRAMS:
                raise ImageError(name, f"{image.format}, a vector format that another program renders; save it as PNG")
            check_size(image.width, image.height, name, formats.decoded_limit(max_pixels, image.format, image.mode))
            if image.format == "PNG":
                _check_png(handle, name)
            if image.format == "TIFF" and formats.suffix(name) in formats.RAW_SUFFIXES:
                raise ImageError(
                    name, "a camera's raw file, of which Pillow sees a preview; develop it to TIFF or JPEG"
                )
            return _from_pil(image, name, exif_rotation, max_pixels)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        if kind == "AVIF" and not ("AVIF" in Image.OPEN and features.check("avif")):
            raise ImageError(
                name, "an AVIF picture, which this Pillow cannot read; Pillow 11.3 does: pip install -U pillow"
            ) from error
        if formats.suffix(name) in formats.RAW_SUFFIXES:
            raise ImageError(name, "a camera's raw file, which is not read; develop it to TIFF or JPEG") from None
        raise ImageError(
            name, "not an image that can be read, or its beginning is damaged; convert it to PNG or get it again"
        ) from None
    except Exception as error:  # Pillow's decoders raise nearly every type on damaged files
        raise _damaged(name, error) from error


def _enable(kind: str, name: str) -> None:
    """Let Pillow read HEIC or JPEG XL. Raises ImageError, with the cure, where the package for it is missing."""
    module, package, _ = formats.PLUGINS[kind]
    try:
        with _OPENING:  # Pillow goes through its list of formats under this lock
            formats.enable(kind)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == module
        why = "is not installed" if missing else f"cannot be imported ({error})"
        raise ImageError(
            name, f'a {kind} picture, for which {package} is needed, which {why}: pip install "qsit-plugin[formats]"'
        ) from error


def _open(handle: BinaryIO, kind: str | None) -> Image.Image:
    """``Image.open`` without Pillow's own pixel limit, whose place ours takes."""
    if kind == "JPEG XL":  # decodes while it opens, hence not under the lock; opened directly, it knows no limit
        return Image.OPEN["JXL"][0](handle, "")
    with _OPENING, _OUR_PIXEL_LIMIT:
        return Image.open(handle)


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


def _from_pil(image: Image.Image, name: str, exif_rotation: bool, max_pixels: int | None) -> Image.Image:
    """A new RGB image of what a Pillow image shows at its current frame."""
    try:
        check_size(image.width, image.height, name, max_pixels)
        kind = image.format
        with _TRUNCATION_IS_AN_ERROR, _OUR_PIXEL_LIMIT if kind in ("TIFF", "GIF") else contextlib.nullcontext():
            if getattr(image, "is_animated", False) and kind not in _NOT_ANIMATIONS:
                frame = image.tell() + 1
                which = "its first frame" if frame == 1 else f"frame {frame}, where it stands,"
                _log.warning("%s: holds several frames or pages; only %s is read", name, which)
            image.load()
        if exif_rotation and (kind != "JXL" or getattr(image, "jpeg", False)):  # JPEG XL is turned by its decoder
            image = ImageOps.exif_transpose(image)
        return _to_rgb(image, kind, name)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # as in _decode; a lazily opened Pillow image decodes here, or its file is closed
        raise _damaged(name, error) from error


def _to_rgb(image: Image.Image, kind: str | None, name: str) -> Image.Image:
    """``convert("RGB")``, save for the modes with more than 8 bits, which Pillow would saturate."""
    if image.mode.startswith("I;16") or image.mode == "F":
        return from_array(np.asarray(image), name, image.width * image.height, channels_first=False)
    if image.mode == "I":
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise ImageError(name, f"32-bit integers from {low} to {high}; scale them to 8 or 16 bits")
        if high > 255 or kind in ("PNG", "PPM"):  # how older Pillow opens 16-bit grey, however dark
            warn_of_few_bits(high, name)
            values = values >> 8
        image = Image.fromarray(values.astype(np.uint8))
    if "transparency" in image.info:  # dropped either way; Pillow would warn about some palettes
        image = image.copy()
        del image.info["transparency"]
    try:
        return image.convert("RGB")
    except ValueError:
        raise ImageError(name, f"colour mode {image.mode} has no conversion to RGB; convert it first") from None


def _damaged(name: str, error: Exception) -> ImageError:
    return ImageError(
        name, f"cannot be decoded ({_why(error)}); damaged, truncated or closed: get it again or save it anew"
    )


def _why(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text or type(error).__name__
