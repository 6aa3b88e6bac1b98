"""A real ComfyUI server in a separate process, with its own base directory and this checkout as a custom node."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image

from tests.nodes.hosts import CHECKOUT

COMFYUI = os.environ.get("COMFYUI_PATH")
PATIENCE = 600
"""Seconds that a start or a run may take: on a machine where others compute, much longer than on an idle one."""
PARTS = ("qsit_plugin", "nodes", "weights", "training", "web", "locales", "example_workflows")


class Running:
    def __init__(self, base: Path, port: int, process: subprocess.Popen):
        self.base, self.url, self.process = base, f"http://127.0.0.1:{port}", process

    def get(self, path: str):
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
            content = answer.read()
        return json.loads(content) if "json" in answer.headers.get("Content-Type", "") else content.decode("utf-8")

    def post(self, path: str, content) -> tuple[int, dict]:
        data = json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    def run(self, prompt: dict) -> dict:
        """Queue a prompt and wait for its entry in the history."""
        status, answer = self.post("/prompt", {"prompt": prompt})
        assert status == 200 and not answer["node_errors"], answer
        return self.history(answer["prompt_id"])

    def history(self, prompt_id: str) -> dict:
        """Wait for a prompt's entry, which comes after its last event."""
        for _ in range(PATIENCE * 10):
            found = self.get(f"/history/{prompt_id}")
            if found:
                return found[prompt_id]
            time.sleep(0.1)
        raise AssertionError("the prompt did not finish")

    def watched(self, prompt: dict, when=lambda event: None) -> list[dict]:
        """Queue a prompt as a page does; what the server sends until the run is over. ``when`` gets each event."""
        return asyncio.run(asyncio.wait_for(self._watched(prompt, when), PATIENCE))

    async def _watched(self, prompt, when):
        import aiohttp  # ComfyUI's own websocket library

        url, found = self.url.replace("http", "ws") + "/ws?clientId=test", []
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            async with session.post(self.url + "/prompt", json={"prompt": prompt, "client_id": "test"}) as answer:
                assert answer.status == 200, await answer.text()
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    found.append(json.loads(message.data))
                    when(found[-1])
                    if found[-1]["type"] in ("execution_success", "execution_interrupted", "execution_error"):
                        return found
        raise AssertionError("the server hung up")

    def resident(self) -> int:
        """Bytes of memory that the server holds."""
        import psutil  # as ComfyUI

        return psutil.Process(self.process.pid).memory_info().rss

    def log(self) -> str:
        return (self.base / "log.txt").read_text(encoding="utf-8", errors="replace")


def put_pack(base: Path) -> Path:
    """Copy what a clone has into custom_nodes, under a name with a dot and dashes as registries make them."""
    pack = base / "custom_nodes" / "comfyui-q-sit.v1"
    pack.mkdir(parents=True)
    for part in ("__init__.py", "pyproject.toml", "requirements.txt"):
        shutil.copy(CHECKOUT / part, pack / part)
    for part in PARTS:
        if (CHECKOUT / part).is_dir():
            shutil.copytree(CHECKOUT / part, pack / part, ignore=shutil.ignore_patterns("__pycache__"))
    return pack


def put_example(base: Path) -> None:
    (base / "input").mkdir(exist_ok=True)
    with Image.open(CHECKOUT / "qsit_plugin" / "demo" / "astronaut.jpg") as photo:
        photo.resize((256, 256)).save(base / "input" / "example.png")


@contextlib.contextmanager
def started(base: Path, *options: str, **environment: str):
    """ComfyUI on the CPU with `base` as its base directory; `options` go to its command line."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(Path(COMFYUI, "main.py")), "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
    command += ["--base-directory", str(base), "--database-url", "sqlite:///:memory:", *options]
    with (base / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=COMFYUI, env=os.environ | environment
        )
    running = Running(base, port, process)
    try:
        for _ in range(PATIENCE * 2):
            try:
                running.get("/system_stats")
                break
            except OSError:
                assert process.poll() is None, running.log()
                time.sleep(0.5)
        else:
            raise AssertionError(f"ComfyUI did not start: {running.log()}")
        yield running
    finally:
        process.terminate()
        process.wait(PATIENCE)
