"""Each example workflow ships twice: for the browser's template list, and in API form. Both say the same."""

import json

import pytest
from PIL import Image

from tests.nodes.graphs import GOOD, GREAT, LOOP_GOOD, OK, api_form
from tests.nodes.hosts import CHECKOUT
from tests.nodes.page import NOTE

FOLDER = CHECKOUT / "example_workflows"
NAMES = sorted(path.stem for path in (FOLDER / "api").glob("*.json"))
TITLES = {api_form(path).stem: path.stem for path in FOLDER.glob("*.json")}
RATE_GENERATED = [name for name in NAMES if name.startswith("generate") or name == "compare_two_checkpoints"]
OLD = {"ImageBatch", "ImageBlur", "LoadImage"}
"""ImageBatch is deprecated. The others showed ComfyUI's own drawing, whose score is low: the opposite of the title."""


def test_there_is_a_browser_form_of_every_api_form_with_a_title_that_can_be_read():
    assert sorted(TITLES) == NAMES and len(NAMES) == 19
    assert all(title[0].isupper() and "_" not in title for title in TITLES.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_brings_its_own_photo_and_uses_no_deprecated_node(name):
    kinds = {node["class_type"] for node in api(name).values()}
    assert not kinds & OLD
    assert kinds & {"QSiT_DemoPhoto", "CheckpointLoaderSimple", "QSiT_ScoreFolder"}


@pytest.mark.parametrize("name", NAMES)
def test_thresholds_are_those_that_the_outcomes_are_tested_with(name):
    found = [node["inputs"]["threshold"] for node in api(name).values() if "threshold" in node["inputs"]]
    looped = name.startswith(("again", "generate"))
    expected = {GREAT, OK} if name == "great_ok_or_bad" else {LOOP_GOOD} if looped else {GOOD}
    assert set(found) <= expected


def api(name):
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [*RATE_GENERATED, "curate_a_folder_for_a_lora"])
def test_a_workflow_that_rates_generated_images_recommends_qsit_mini_which_choosing_it_fetches(name):
    browser = json.loads((FOLDER / f"{TITLES[name]}.json").read_text(encoding="utf-8"))
    (note,) = (node["widgets_values"][0] for node in browser["nodes"] if node["type"] == NOTE)
    assert "choose **qsit-mini** as *model name*" in note
    (load,) = (node["inputs"] for node in api(name).values() if node["class_type"] == "QSiT_LoadModel")
    assert (load["model_name"], load["download"]) == ("qsit-nano", "if missing")


@pytest.mark.parametrize("name", NAMES)
def test_the_template_browser_finds_a_picture_of_every_workflow(name):
    path = FOLDER / f"{TITLES[name]}.jpg"
    with Image.open(path) as picture:
        assert picture.format == "JPEG" and picture.width >= 600
    assert path.stat().st_size < 150_000


@pytest.mark.parametrize("name", NAMES)
def test_every_workflow_keeps_a_result_in_words_on_the_page(name):
    """Newer pages take a node's own text away at the end of a run, and leave that of ComfyUI's Preview Any."""
    nodes = json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))
    sources = [about["inputs"]["source"][0] for about in nodes.values() if about["class_type"] == "PreviewAny"]
    assert sources and all(nodes[source]["class_type"].startswith("QSiT_") for source in sources)


def widgets_in_order(node):
    """Names of the widgets of a browser-form node, as widgets_values holds them."""
    names = [slot["widget"]["name"] for slot in node["inputs"] if "widget" in slot]
    seed = "value" if node["type"] == "PrimitiveInt" else "seed"
    if seed in names:  # the browser puts "what happens after a run" behind a seed
        names.insert(names.index(seed) + 1, None)
    return names


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_have_the_same_nodes_links_and_values(name):
    browser = json.loads((FOLDER / f"{TITLES[name]}.json").read_text(encoding="utf-8"))
    api = json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))
    links = {link[0]: [str(link[1]), link[2]] for link in browser["links"]}
    nodes = [node for node in browser["nodes"] if node["type"] != NOTE]
    assert {str(node["id"]): node["type"] for node in nodes} == {k: v["class_type"] for k, v in api.items()}
    for node in nodes:
        values = dict(zip(widgets_in_order(node), node.get("widgets_values", []), strict=False))
        given = {slot["name"]: links[slot["link"]] for slot in node["inputs"] if slot.get("link") is not None}
        expected = api[str(node["id"])]["inputs"]
        assert given == {key: value for key, value in expected.items() if isinstance(value, list)}
        assert {key: values[key] for key in expected if key not in given} == {
            key: value for key, value in expected.items() if key not in given
        }


@pytest.mark.parametrize("name", NAMES)
def test_every_input_that_a_node_needs_is_given(host, name):
    from qsit_plugin.nodes.extension import NODES

    schemas = {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in NODES}
    for node in json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8")).values():
        if node["class_type"] in schemas:
            inputs = schemas[node["class_type"]].inputs
            assert {i.id for i in inputs if not i.optional} <= node["inputs"].keys() <= {i.id for i in inputs}


def test_every_node_is_in_an_example():
    from tests.nodes.test_translations import IDS

    text = "".join((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8") for name in NAMES)
    assert [node for node in IDS if f'"{node}"' not in text] == []
