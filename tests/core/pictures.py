"""What the tests of images share: known pixels, and the message of a refusal."""

import io

import numpy as np
import pytest
from PIL import Image

from qsit_plugin.images.reading import ImageError, describe, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY = PIXELS[:, :, 0]


def values(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reason(source, **options) -> str:
    """The message of the ImageError that reading must raise; always one line that begins with the source."""
    with pytest.raises(ImageError) as caught:
        read_image(source, **options)
    message = str(caught.value)
    assert message == f"{caught.value.source}: {caught.value.reason}"
    assert "\n" not in message
    assert caught.value.source == " ".join(describe(source).split())
    return caught.value.reason
