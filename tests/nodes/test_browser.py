"""ComfyUI's page with the pack: what a user sees who opens an example workflow and presses Run."""

import importlib.util
import json
import os

import pytest

from tests.nodes import live, page
from tests.nodes.graphs import api_form
from tests.nodes.hosts import CHECKOUT

FRONTEND = os.environ.get("COMFYUI_FRONTEND")
WORKFLOWS = sorted((CHECKOUT / "example_workflows").glob("*.json"))
MISSING = [
    what
    for what, there in (
        ("COMFYUI_PATH, the folder of a ComfyUI checkout", live.COMFYUI),
        ("playwright", importlib.util.find_spec("playwright")),
        ("chromium", page.CHROMIUM),
    )
    if not there
]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")


@pytest.fixture(scope="module", params=["the page that ComfyUI pins", "the page at COMFYUI_FRONTEND"])
def browser(request, tmp_path_factory):
    options = []
    if request.param == "the page at COMFYUI_FRONTEND":
        if not FRONTEND:
            pytest.skip("needs COMFYUI_FRONTEND, the folder `static` of an unpacked comfyui-frontend-package")
        options = ["--front-end-root", FRONTEND]
    base = tmp_path_factory.mktemp("browser")
    live.put_pack(base)
    live.put_example(base)
    with live.started(base, *options) as server, page.opened(server) as browser:
        yield browser


def load(browser, path):
    browser.complaints.clear()
    browser.load(json.loads(path.read_text(encoding="utf-8")), path.stem)


def test_opening_the_page_brings_no_error_that_names_the_pack(browser):
    named = [line for line in browser.complaints_at_start if "qsit" in line.lower() or "q-sit" in line.lower()]
    assert not named


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_example_workflow_opens_with_all_its_nodes_and_no_error(browser, path):
    load(browser, path)
    nodes = browser.tab.evaluate(
        """() => window.app.graph._nodes.map(n => [n.type, n.type in window.LiteGraph.registered_node_types])"""
    )
    assert sorted(kind for kind, _ in nodes) == sorted(
        node["type"] for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]
    )
    assert all(known for _, known in nodes), nodes
    assert not browser.complaints


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_page_sends_what_the_api_form_of_the_workflow_says(browser, path):
    """Widgets are stored by position: one input added in between would shift every value behind it."""
    load(browser, path)
    sent = browser.tab.evaluate("async () => (await window.app.graphToPrompt()).output")
    stored = json.loads(api_form(path).read_text(encoding="utf-8"))
    for node in sent.values():
        if node["class_type"] == "PreviewAny":  # the page of 0.3.64 sends along what it shows
            node["inputs"] = {"source": node["inputs"]["source"]}
    assert {key: (node["class_type"], node["inputs"]) for key, node in sent.items()} == {
        key: (node["class_type"], node["inputs"]) for key, node in stored.items()
    }


def test_a_queued_workflow_shows_its_results_on_the_nodes(browser):
    load(browser, CHECKOUT / "example_workflows" / "First good enough of two.json")
    history = browser.queue()
    assert history["status"]["status_str"] == "success", history["status"]
    text = history["outputs"]["5"]["text"][0]
    assert text.startswith("candidate_1: 0.") and text.endswith("taken: candidate_2")
    assert browser.texts(5) == [text]
    assert browser.preview(7) == text
    browser.tab.wait_for_function("window.app.graph.getNodeById(6).imgs?.[0]?.naturalWidth === 512", timeout=20_000)
    assert not browser.complaints


@pytest.mark.parametrize(
    ("name", "node", "preview"),
    [("Explain one image", 5, 7), ("Gate good and bad", 6, 10), ("Keep the best", 6, 9), ("Compare two images", 5, 7)],
)
def test_the_words_of_a_node_are_still_there_when_the_run_is_over(browser, name, node, preview):
    load(browser, CHECKOUT / "example_workflows" / f"{name}.json")
    history = browser.queue()
    assert browser.preview(preview) == history["outputs"][str(node)]["text"][0]
