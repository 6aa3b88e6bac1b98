"""ComfyUI's page with the pack: what a user sees who opens an example workflow and presses Run."""

import importlib.util
import json
import os
import re

import pytest

from tests.nodes import live, page
from tests.nodes.graphs import api_form
from tests.nodes.hosts import CHECKOUT

FRONTEND = os.environ.get("COMFYUI_FRONTEND")
WORKFLOWS = sorted((CHECKOUT / "example_workflows").glob("*.json"))
OLDER = sorted((CHECKOUT / "tests" / "nodes" / "older_workflows" / "page").glob("*.json"))
"""As the first edition of the pack shipped them, and users have saved them."""
STORED = {path: api_form(path) for path in WORKFLOWS} | {path: path.parents[1] / "api" / path.name for path in OLDER}
"""Browser form -> API form."""
IDS = [path.stem for path in WORKFLOWS] + [f"older {path.stem}" for path in OLDER]
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


@pytest.fixture(params=["old", "Vue"])
def rendering(request, browser):
    browser.render(request.param)
    yield request.param
    browser.render("old")


def load(browser, path):
    browser.complaints.clear()
    browser.load(read(path), path.stem)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_opening_the_page_brings_no_error_that_names_the_pack(browser):
    named = [line for line in browser.complaints_at_start if "qsit" in line.lower() or "q-sit" in line.lower()]
    assert not named


@pytest.mark.parametrize("path", STORED, ids=IDS)
def test_an_example_workflow_opens_with_all_its_nodes_and_no_error(browser, path):
    load(browser, path)
    nodes = browser.tab.evaluate(
        """() => window.app.graph._nodes.map(n => [n.type, n.type in window.LiteGraph.registered_node_types])"""
    )
    assert sorted(kind for kind, _ in nodes) == sorted(node["type"] for node in read(path)["nodes"])
    assert all(known for _, known in nodes), nodes
    assert not browser.complaints


@pytest.mark.parametrize("path", STORED, ids=IDS)
def test_the_page_sends_what_the_api_form_of_the_workflow_says(browser, path):
    """Widgets are stored by position: one input added in between would shift every value behind it."""
    load(browser, path)
    sent = browser.tab.evaluate("async () => (await window.app.graphToPrompt()).output")
    stored = read(STORED[path])
    for node in sent.values():
        if node["class_type"] == "PreviewAny":  # the page of 0.3.64 sends along what it shows
            node["inputs"] = {"source": node["inputs"]["source"]}
    for key, node in sent.items():  # inputs that are newer than the workflow have their defaults
        kind = node["class_type"]
        about = browser.server.get(f"/object_info/{kind}")[kind]["input"].get("optional", {})
        newer = node["inputs"].keys() & about.keys() - stored[key]["inputs"].keys()
        assert all(node["inputs"].pop(name) == about[name][1]["default"] for name in newer)
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
    browser.tab.wait_for_function("window.app.graph.getNodeById(6).imgs?.[0]?.naturalWidth === 512")
    assert not browser.complaints


@pytest.mark.parametrize(
    ("name", "node", "preview"),
    [("Explain one image", 5, 7), ("Gate good and bad", 6, 10), ("Keep the best", 6, 9), ("Compare two images", 5, 7)],
)
def test_the_words_of_a_node_are_still_there_when_the_run_is_over(browser, name, node, preview):
    load(browser, CHECKOUT / "example_workflows" / f"{name}.json")
    history = browser.queue()
    assert browser.preview(preview) == history["outputs"][str(node)]["text"][0]


@pytest.mark.parametrize(
    ("name", "node"),
    [("Explain one image", 5), ("Explain one image", 6), ("Gate good and bad", 6), ("Compare two images", 5)],
)
def test_the_text_of_a_node_stays_on_it_once_when_the_run_is_over(browser, rendering, name, node):
    load(browser, CHECKOUT / "example_workflows" / f"{name}.json")
    history = browser.queue()
    shown = browser.shown(node)
    assert shown["text"] == history["outputs"][str(node)]["text"][0]
    assert "$$node-text-preview" not in shown["names"], "the text that the node sent while it ran is there twice"
    assert not browser.complaints


def test_every_score_has_a_bar_of_its_height(browser, rendering):
    load(browser, CHECKOUT / "example_workflows" / "Keep the best.json")
    history = browser.queue()
    shown = browser.shown(5)
    scores = [record["score"] for record in history["outputs"]["5"]["qsit"]]
    assert len(shown["bars"]) == len(scores) == 2 and shown["lines"] == shown["text"].split("\n")
    for bar, score in zip(shown["bars"], scores, strict=True):
        ends = [float(number) for number in re.findall(r"([\d.]+)%", bar.partition("linear-gradient")[2])]
        assert any(abs(end - 100 * score) < 0.1 for end in ends), (bar, score)


def test_the_text_outlives_a_change_of_tabs_as_that_of_preview_any_does(browser, rendering):
    load(browser, CHECKOUT / "example_workflows" / "Score one image.json")
    browser.queue()
    text = browser.shown(5)["text"]
    load(browser, CHECKOUT / "example_workflows" / "Compare two images.json")
    assert not browser.tab.evaluate("window.app.graph.getNodeById(5).widgets?.some(w => w.name === 'qsit_text')")
    browser.tab.locator(".workflow-tabs >> text=Score one image").last.click()
    assert browser.preview(6) == text and browser.shown(5)["text"] == text


def test_the_text_is_neither_stored_nor_sent(browser):
    path = CHECKOUT / "example_workflows" / "Score one image.json"
    load(browser, path)
    read = "async () => [window.app.graph.serialize().nodes, (await window.app.graphToPrompt()).output]"
    before = browser.tab.evaluate(read)
    browser.queue()
    text = browser.shown(5)["text"]
    nodes, sent = browser.tab.evaluate(read)
    ours = {"1", "5"}
    assert {key: sent[key] for key in ours} == {key: before[1][key] for key in ours}
    assert text not in json.dumps([node for node in nodes if str(node["id"]) in ours], ensure_ascii=False)
    values = {node["id"]: node.get("widgets_values") for node in nodes if str(node["id"]) in ours}
    assert values == {node["id"]: node.get("widgets_values") for node in before[0] if str(node["id"]) in ours}


def test_what_a_refused_node_says_stands_on_it(browser, rendering):
    workflow = read(CHECKOUT / "example_workflows" / "Score a folder.json")
    (node,) = (node for node in workflow["nodes"] if node["type"] == "QSiT_ScoreFolder")
    node["widgets_values"][1] = "not there"
    browser.load(workflow, "Score a folder")
    browser.queue()
    assert browser.shown(node["id"])["text"].startswith("no folder ")


def test_the_load_node_says_what_the_chosen_model_is_good_for_before_it_runs(browser, rendering):
    load(browser, CHECKOUT / "example_workflows" / "Score one image.json")
    assert browser.shown(1)["text"].startswith("Finds technical faults")
    browser.tab.evaluate(
        """() => { const node = window.app.graph.getNodeById(1), list = node.widgets.find(w => w.name === "model_name");
        list.value = "qsit-mini"; list.callback(list.value, window.app.canvas, node) }"""
    )
    assert browser.shown(1)["text"].startswith("Follows people's ratings")
    assert not browser.complaints


@pytest.fixture
def chinese(browser):
    browser.language("zh")
    yield browser
    browser.language("en")


def test_choices_are_in_the_pages_language_and_what_is_sent_is_not(chinese, rendering):
    """Pages before 1.49 have no such thing, and show the choices as they are stored."""
    load(chinese, CHECKOUT / "example_workflows" / "Gate good and bad.json")
    shown, sent = chinese.tab.evaluate(
        """async () => { const mode = window.app.graph.getNodeById(6).widgets.find(w => w.name === "mode");
        const {output} = await window.app.graphToPrompt();
        return [mode.options.getOptionLabel(mode.value), output["6"].inputs.mode] }"""
    )
    assert (shown, sent) == ("\u9010\u5f20", "per image")
    if rendering == "Vue" and chinese.tab.evaluate("!!document.querySelector('[data-node-id]')"):
        chinese.tab.wait_for_selector("[data-node-id='6'] :text('\u9010\u5f20')")
    assert not chinese.complaints
