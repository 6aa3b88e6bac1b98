"""Processes that fork (DataLoader workers, a web server): no child waits for locks or threads it did not inherit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image, ImageFile

from qsit_plugin.images.reading import read_image
from tests.conftest import NANO

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]
CHILDREN = 40
PATIENCE = 20.0
"""Seconds after which a child counts as hanging; it takes milliseconds."""

AFTER_A_LOOK = """
import os, torch, qsit_plugin
torch.set_num_threads(2)
model = qsit_plugin.load("qsit-nano", engine="torch", device="cpu")
picture = torch.rand(3, 400, 500, generator=torch.Generator().manual_seed(0))
before = model.score(picture)
for threads in (2, 1):
    child = os.fork()
    if child == 0:
        torch.set_num_threads(threads)
        try:
            print(threads, abs(model.score(picture).value - before.value) < 1e-6, flush=True)
        except RuntimeError as error:
            print(threads, error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def ended(child: int) -> int | None:
    """The exit status of a child, None if it hangs; it is ended then."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def test_children_that_are_forked_while_threads_decode_read_images_and_find_pillows_settings(tmp_path):
    file = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(file)
    expected, going_on = read_image(file).tobytes(), threading.Event()
    settings = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)

    def decode():
        while not going_on.is_set():
            read_image(file)
            with Image.open(file) as lazily:
                read_image(lazily)

    def child():
        with Image.open(file) as lazily:
            same = read_image(lazily).tobytes() == read_image(file).tobytes() == expected
        return same and settings == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        statuses = []
        for _ in range(CHILDREN):
            pid = os.fork()
            if pid == 0:
                try:
                    os._exit(0 if child() else 1)
                finally:
                    os._exit(2)
            statuses.append(ended(pid))
            if statuses[-1] is None:
                break  # one is enough to know
    finally:
        going_on.set()
        for thread in threads:
            thread.join()
    assert statuses == [0] * CHILDREN


@pytest.mark.skipif(not (NANO / "config.json").is_file(), reason="weights/nano is not there")
def test_a_fork_of_a_process_that_has_scored_on_two_threads_gets_an_error_with_the_cure_and_scores_on_one():
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", AFTER_A_LOOK],
        capture_output=True, text=True, encoding="utf-8", timeout=120, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    two, one = done.stdout.splitlines()
    assert two.startswith("2 this process was forked from one that has looked at images on several CPU threads")
    assert "'spawn', or call torch.set_num_threads(1)" in two
    assert one == "1 True"
