"""locales/ and web/docs/ say what the nodes say: nothing missing, nothing left over."""

import json

import pytest

from tests.nodes.hosts import CHECKOUT

IDS = "LoadModel Score Explain Gate Rank FirstGoodEnough UntilGoodStart UntilGoodEnd Compare Attributes Overlay"
IDS = [f"QSiT_{name}" for name in (IDS + " ContactSheet QualityMap SaveWithScore ScoreFolder DemoPhoto").split()]


def english(schemas):
    """What locales/en/nodeDefs.json must be, from the nodes themselves."""
    return {
        schema.node_id: {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {i.id: {"name": i.id.replace("_", " "), "tooltip": i.tooltip} for i in schema.inputs},
            "outputs": {str(n): {"name": o.display_name, "tooltip": o.tooltip} for n, o in enumerate(schema.outputs)},
        }
        for schema in schemas
    }


def locale(language):
    return json.loads((CHECKOUT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


@pytest.fixture
def schemas(host):
    from qsit_plugin.nodes.extension import NODES

    return [node.GET_SCHEMA() for node in NODES]


def test_the_node_ids_are_the_permanent_ones(schemas):
    assert [schema.node_id for schema in schemas] == IDS


def test_every_input_and_output_has_a_tooltip_and_every_node_a_description(schemas):
    for schema in schemas:
        assert schema.description and schema.display_name and schema.category == "image/quality (Q-SiT)"
        assert all(part.tooltip for part in [*schema.inputs, *schema.outputs]), schema.node_id


def test_the_english_locale_says_what_the_nodes_say(schemas):
    assert locale("en") == english(schemas)


def shape(value):
    return {key: shape(inner) for key, inner in value.items()} if isinstance(value, dict) else None


def test_the_chinese_locale_has_every_entry_and_is_in_chinese():
    chinese, reference = locale("zh"), locale("en")
    for node in chinese.values():
        for part in node["inputs"].values():
            part.pop("options", None)
    assert shape(chinese) == shape(reference)
    for node in chinese.values():
        for text in [node["description"], *(p["tooltip"] for k in ("inputs", "outputs") for p in node[k].values())]:
            assert any("\u4e00" <= letter <= "\u9fff" for letter in text), text


LATIN = {"dtype", "format", "model_name", "device"}
"""Lists with names that are the same in every language; of these a few choices are translated."""


def test_every_choice_that_is_a_word_has_a_chinese_one_and_no_other_has(schemas):
    for schema in schemas:
        for part in schema.inputs:
            labels = locale("zh")[schema.node_id]["inputs"][part.id].get("options", {})
            choices = set(getattr(part, "options", None) or getattr(part, "limits", {}).get("options") or [])
            assert labels.keys() <= choices and all(any("\u4e00" <= x <= "\u9fff" for x in y) for y in labels.values())
            if part.id not in LATIN:
                assert {choice for choice in choices if not choice.startswith((".json", ".xmp"))} == labels.keys(), (
                    part.id
                )


@pytest.mark.parametrize("node", IDS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_help_page_names_every_input_and_output(node, language):
    folder = CHECKOUT / "web" / "docs"
    path = folder / f"{node}.md" if language == "en" else folder / node / f"{language}.md"
    page, about = path.read_text(encoding="utf-8"), locale(language)[node]
    assert page.startswith(f"# {about['display_name']}\n")
    for part in [*about["inputs"].values(), *about["outputs"].values()]:
        assert f"| {part['name']} |" in page
