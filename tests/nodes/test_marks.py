"""Marks in the names of saved files, as ComfyUI's page replaces them for its own Save Image."""

from datetime import datetime

import pytest

from qsit_plugin.nodes.marks import filled

NOW = datetime(2026, 3, 7, 9, 5, 4)
PROMPT = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 42, "cfg": 8.0, "sampler_name": "a/b:c", "model": ["4", 0]}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 640, "tiled": True}, "_meta": {"title": "My size"}},
}
RENAMED = {"nodes": [{"id": 5, "title": "Big", "properties": {"Node name for S&R": "Sizes"}}]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("%date:yyyy-MM-dd%/x", "2026-03-07/x"),
        ("%date:yy.M.d% %date:h-m-s%", "26.3.7 9-5-4"),
        ("%date:yyyyMMdd_hhmmss%", "20260307_090504"),
        ("a/%date:hh:mm%", "a/09_05"),
        ("%KSampler.seed%_%KSampler.cfg%", "42_8"),
        ("%KSampler.sampler_name%", "a_b_c"),
        ("%My size.width%-%My size.tiled%", "640-true"),
        ("%Sizes.width%/%Big.width%", "640/640"),
        ("%year%-v1.2-%month%", "%year%-v1.2-%month%"),
        ("100%_%KSampler.seed%", "100%_42"),
        ('a:b<c>"d"|e?*\n', "a_b_c__d__e___"),
    ],
)
def test_dates_and_widgets_are_filled_in_without_what_windows_forbids(name, expected):
    assert filled(name, PROMPT, RENAMED, NOW) == (expected, [])


@pytest.mark.parametrize("mark", ["%KSampler.none%", "%Nobody.seed%", "%KSampler.model%"])
def test_a_mark_without_a_node_or_with_a_link_in_its_place_stays_and_is_named(mark):
    assert filled(f"x/{mark}", PROMPT, {}, NOW) == (f"x/{mark}", [mark])


def test_a_program_that_sends_no_workflow_names_nodes_by_their_class():
    assert filled("%EmptyLatentImage.width%", PROMPT, {}, NOW) == ("640", [])
