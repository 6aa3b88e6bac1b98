"""Open files and streams as images: what is read of them, where they stand afterwards, and what is refused."""

import io
import tempfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from qsit_plugin.images.reading import as_items, describe, is_many, read_image
from tests.core.pictures import PIXELS, encoded, reason, values

PNG = encoded(Image.fromarray(PIXELS), "PNG")


class Pipe(io.RawIOBase):
    """A stream that cannot be rewound, such as ``sys.stdin.buffer`` or a web response; it gives little at a time."""

    def __init__(self, data: bytes, error: Exception | None = None):
        self.rest, self.error = data, error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        if self.error is not None:
            raise self.error
        piece, self.rest = self.rest[:7], self.rest[7:]
        buffer[: len(piece)] = piece
        return len(piece)


def zip_member(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", PNG)
    return zipfile.ZipFile(tmp_path / "a.zip").open("a.png")


def temporary(tmp_path):
    file = tempfile.NamedTemporaryFile(dir=tmp_path)  # noqa: SIM115
    file.write(PNG)
    return file


def spooled(tmp_path):
    file = tempfile.SpooledTemporaryFile()  # noqa: SIM115
    file.write(PNG)
    return file


def on_disk(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    return open(tmp_path / "a.png", "rb")


def unbuffered(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    return open(tmp_path / "a.png", "rb", buffering=0)


def in_memory(tmp_path):
    return io.BytesIO(PNG)


@pytest.mark.parametrize("opened", [in_memory, on_disk, unbuffered, temporary, spooled, zip_member])
def test_an_open_file_is_read_from_its_beginning_and_stands_where_it_stood(tmp_path, opened):
    with opened(tmp_path) as file:
        for position in (0, 5, len(PNG)):  # at the end is where saving into it leaves it
            file.seek(position)
            assert np.array_equal(values(read_image(file)), PIXELS)
            assert file.tell() == position


def test_a_stream_that_cannot_be_rewound_is_read_from_where_it_stands_to_its_end():
    stream = io.BufferedReader(Pipe(b"header" + PNG))
    stream.read(6)
    assert np.array_equal(values(read_image(stream)), PIXELS)
    assert np.array_equal(values(read_image(Pipe(PNG))), PIXELS)


def test_an_object_with_nothing_but_read_is_enough():
    class Body:
        def read(self):
            return PNG

    assert np.array_equal(values(read_image(Body())), PIXELS)


def test_an_open_file_is_one_image_and_its_lines_are_not_many():
    file = io.BytesIO(PNG)
    assert not is_many(file)
    assert as_items(file) == [file]
    assert file.tell() == 0


def test_a_file_that_stands_in_a_list_many_times_is_read_whole_each_time():
    from concurrent.futures import ThreadPoolExecutor

    file = io.BytesIO(PNG)
    with ThreadPoolExecutor(8) as pool:
        assert all(np.array_equal(values(image), PIXELS) for image in pool.map(read_image, [file] * 64))


@pytest.mark.parametrize("file", [io.StringIO("text"), io.TextIOWrapper(io.BytesIO(PNG), encoding="latin-1")])
def test_the_error_of_a_file_opened_as_text_says_to_open_it_in_binary_mode(file):
    assert 'open(path, "rb")' in reason(file)


def test_an_empty_file_in_memory_is_an_image_error():
    assert "empty" in reason(io.BytesIO())


def test_what_is_no_image_in_an_open_file_is_an_image_error():
    assert "not an image" in reason(io.BytesIO(b"no picture"))
    assert "truncated" in reason(io.BytesIO(encoded(Image.fromarray(PIXELS), "JPEG")[:-300]))


def test_a_closed_file_and_one_for_writing_are_image_errors_with_their_cause(tmp_path):
    closed = io.BytesIO(PNG)
    closed.close()
    assert "closed file" in reason(closed)
    with open(tmp_path / "a.png", "wb") as writing:
        assert "open for reading" in reason(writing)


def test_a_stream_that_breaks_off_is_an_image_error_with_the_reason():
    assert "connection reset" in reason(Pipe(PNG, ConnectionResetError("connection reset")))


def test_the_limits_and_the_name_of_an_open_file(tmp_path):
    assert "over the limit" in reason(io.BytesIO(PNG), max_pixels=599)
    with on_disk(tmp_path) as file:
        assert describe(file) == f"open file {tmp_path / 'a.png'}"
    assert describe(io.BytesIO(PNG)) == "open file BytesIO"


def test_a_score_of_an_open_file_is_that_of_its_bytes(nano):
    picture = encoded(Image.fromarray(np.repeat(np.repeat(PIXELS, 4, 0), 4, 1)), "PNG")
    assert nano.score(io.BytesIO(picture)).value == nano.score(picture).value
