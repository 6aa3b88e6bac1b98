"""The host that runs the nodes: our stand-in of ComfyUI's interface, or the ComfyUI at COMFYUI_PATH, never both."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.nodes import live

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


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A running ComfyUI of its own, with the pack as a clone in custom_nodes and nothing else."""
    base = tmp_path_factory.mktemp("server")
    live.put_pack(base)
    live.put_example(base)
    with live.started(base) as running:
        yield running


@pytest.fixture(scope="session")
def made_checkpoints(tmp_path_factory):
    """Two Stable Diffusion checkpoints that know nothing."""
    folder = tmp_path_factory.mktemp("checkpoints")
    script, names = live.CHECKOUT / "tests" / "nodes" / "tiny_diffusion.py", ["one.safetensors", "two.safetensors"]
    for seed, name in enumerate(names):
        subprocess.run([sys.executable, str(script), live.COMFYUI, str(folder / name), str(seed)], check=True)
    yield [folder / name for name in names]
    shutil.rmtree(folder)  # 600 MB: the size of the text encoder is fixed


@pytest.fixture(scope="module")
def checkpoints(server, made_checkpoints):
    """Their names, where ComfyUI looks for them."""
    folder = server.base / "models" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    for path in made_checkpoints:
        (folder / path.name).hardlink_to(path)
    return [path.name for path in made_checkpoints]


@pytest.fixture(scope="session")
def nano(nano_torch):
    """What the nodes give is held against the library on their own engine."""
    return nano_torch
