"""Common to all tests: no network, the embedded model, and the data folder beside the checkout."""

import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, hence before everything else
os.environ["QSIT_CACHE"] = os.path.join(tempfile.gettempdir(), f"qsit-tests-{os.getpid()}")  # never the user's own

import socket
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NANO = Path(__file__).resolve().parents[1] / "weights" / "nano"
LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(scope="session", autouse=True)
def closed_sockets():
    """Every connection out of this machine fails, so that a test that needs the network cannot pass."""
    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex"):
        patch.setattr(socket.socket, name, _only_local(getattr(socket.socket, name)))
    yield
    patch.undo()


def _only_local(connect):
    def guarded(self, address):
        if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
            raise RuntimeError(f"a test tried to reach {address}: tests must pass without a network")
        return connect(self, address)

    return guarded


@pytest.fixture(scope="session")
def nano():
    """The embedded model, loaded once; do not change it."""
    if not (NANO / "config.json").is_file():
        pytest.skip("weights/nano is not there yet: training/nano makes it")
    import qsit_plugin

    return qsit_plugin.load("qsit-nano")


@pytest.fixture(scope="session")
def nano_torch():
    """The embedded model on torch, for tests that look into its weights or need gradients; do not change it."""
    if not (NANO / "config.json").is_file():
        pytest.skip("weights/nano is not there yet: training/nano makes it")
    import qsit_plugin

    return qsit_plugin.load("qsit-nano", engine="torch")


GRAPHS = ("*.onnx", "onnx.json")
"""What ``shutil.ignore_patterns`` takes to copy a checkpoint that only the torch engine opens."""


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real photos, fixtures and vocabularies beside the checkout; a user has not got it."""
    if not DATA.is_dir():
        pytest.skip("needs ../shared/data beside the checkout")
    return DATA
