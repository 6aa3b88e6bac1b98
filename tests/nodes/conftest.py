"""The host that runs the nodes: our stand-in of ComfyUI's interface, or the ComfyUI at COMFYUI_PATH, never both."""

import os
import shutil

import pytest

COMFYUI = os.environ.get("COMFYUI_PATH")


@pytest.fixture(scope="session", params=["stand-in", "ComfyUI"])
def session_host(request, tmp_path_factory):
    if request.param == "ComfyUI":
        if not COMFYUI:
            pytest.skip("needs COMFYUI_PATH, the folder of a ComfyUI checkout")
        from tests.nodes.real_host import Host

        return Host(COMFYUI, tmp_path_factory.mktemp("comfyui"))
    if COMFYUI:
        pytest.skip("COMFYUI_PATH is set, so the real one is used")
    from tests.nodes.stand_in import Host

    return Host(tmp_path_factory.mktemp("stand-in"))


@pytest.fixture
def host(session_host):
    from tests.nodes import around, helpers

    session_host.fresh()
    for node in (around.Give, around.Keep):
        session_host.register(node)
    helpers.ARRIVED.clear()
    helpers.RAN.clear()
    helpers.IMAGES.clear()
    yield session_host
    session_host.fresh()


@pytest.fixture
def output(host):
    """ComfyUI's output folder, emptied when the test is over."""
    folder = host.base / "output"
    yield folder
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture(scope="session")
def nano(nano_torch):
    """What the nodes give is held against the library on their own engine."""
    return nano_torch
