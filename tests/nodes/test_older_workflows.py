"""Workflows as the first edition of the pack shipped them, which users have saved: they run as they are.

``older_workflows/`` has both forms of each. test_browser.py opens them in the page.
"""

import pytest

from tests.nodes import live
from tests.nodes.graphs import shipped, shown_by, small
from tests.nodes.hosts import CHECKOUT

pytestmark = pytest.mark.skipif(not live.COMFYUI, reason="needs COMFYUI_PATH, the folder of a ComfyUI checkout")
FOLDER = CHECKOUT / "tests" / "nodes" / "older_workflows" / "api"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_saved_with_the_first_edition_runs(server, checkpoints, name):
    prompt = small(shipped(name, FOLDER), checkpoints)
    shown = shown_by(server.run(prompt))
    for node, about in prompt.items():
        if about["class_type"].startswith("QSiT_") and node in shown:
            assert shown[node]["text"][0] and not any("error" in record for record in shown[node]["qsit"])
    assert any(about["class_type"].startswith("QSiT_") for node, about in prompt.items() if node in shown)
