"""The decisions of the nodes, without any ComfyUI: who passes, in which order, what goes along, what is offered."""

import dataclasses
import inspect
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from qsit_plugin.images.reading import ImageError
from qsit_plugin.nodes.carry import check_latents, check_masks, some_latents, some_masks
from qsit_plugin.nodes.errors import InputError
from qsit_plugin.nodes.folders import choices, found_models, why_not_offered
from qsit_plugin.nodes.gate import judge, summary
from qsit_plugin.nodes.pictures import pictures_of
from qsit_plugin.nodes.questions import OWN, PRESETS, question_for
from qsit_plugin.nodes.rank import top
from qsit_plugin.nodes.records import aggregate, fraction, values
from tests.nodes.hosts import CHECKOUT


@pytest.mark.parametrize(
    ("mode", "threshold", "passed"),
    [
        ("per image", 0.5, [0, 2]),
        ("per image", 0.95, []),
        ("all", 0.1, [0, 1, 2]),
        ("all", 0.2, []),
        ("any", 0.9, [0, 1, 2]),
        ("any", 0.91, []),
        ("mean", 0.5, [0, 1, 2]),
        ("mean", 0.51, []),
    ],
)
def test_the_gate_passes_at_the_threshold_and_the_batch_modes_decide_once(mode, threshold, passed):
    verdict = judge([0.5, 0.1, 0.9], threshold, mode)
    assert verdict.passed == passed
    assert sorted(verdict.passed + verdict.rejected) == [0, 1, 2]
    assert verdict.is_pass == bool(passed)


def test_the_gates_summary_numbers_images_from_one():
    assert (
        summary(judge([0.5, 0.1], 0.4, "per image"), 0.4, "per image")
        == "1 of 2 passed at 0.4 (per image); rejected: 2"
    )


def test_an_unknown_mode_is_an_error():
    with pytest.raises(ValueError, match="mode must be one of per image, all, any, mean, got 'most'"):
        judge([0.5], 0.5, "most")


def test_rank_keeps_the_order_of_equal_scores_in_both_directions():
    scores = [0.5, 0.9, 0.5, 0.1]
    assert top(scores, 0, "best first") == [1, 0, 2, 3]
    assert top(scores, 0, "worst first") == [3, 0, 2, 1]
    assert top(scores, 2, "best first") == [1, 0]
    assert top(scores, 9, "best first", min_score=0.5) == [1, 0, 2]
    assert top(scores, 1, "best first", min_score=0.95) == []


def test_rank_refuses_a_negative_k_and_an_unknown_order():
    with pytest.raises(ValueError, match="k must be 0"):
        top([0.5], -1, "best first")
    with pytest.raises(ValueError, match="got 'random'"):
        top([0.5], 1, "random")


def test_noise_masks_and_batch_numbers_follow_their_latents():
    latents = {
        "samples": torch.arange(3).reshape(3, 1, 1, 1),
        "noise_mask": torch.arange(3).reshape(3, 1, 1),
        "batch_index": [7, 8, 9],
        "type": "x",
    }
    chosen = some_latents(latents, [2, 0])
    assert chosen["samples"].flatten().tolist() == [2, 0]
    assert chosen["noise_mask"].flatten().tolist() == [2, 0]
    assert (chosen["batch_index"], chosen["type"]) == ([9, 7], "x")
    assert len(latents["samples"]) == 3, "the input must not change: ComfyUI keeps it in its cache"


def test_one_mask_for_all_images_stays_and_one_for_each_is_selected():
    assert some_masks(torch.zeros(1, 64, 64), [1, 2], 3).shape == (1, 64, 64)
    assert some_masks(torch.zeros(64, 64), [1, 2], 3).shape == (64, 64)
    assert some_masks(torch.arange(3).reshape(3, 1, 1), [2], 3).flatten().tolist() == [2]


def test_latents_and_masks_of_another_number_are_refused():
    with pytest.raises(InputError, match="2 latents for 3 images"):
        check_latents({"samples": torch.zeros(2, 4, 8, 8)}, 3)
    with pytest.raises(InputError, match="2 masks for 3 images"):
        check_masks(torch.zeros(2, 8, 8), 3)


def test_scores_of_another_number_are_refused_with_the_cure():
    with pytest.raises(InputError, match="1 scores for 2 images: connect the images that were scored"):
        values([{"score": 0.5}], 2)
    with pytest.raises(InputError, match="QSIT_SCORES"):
        values(0.5, 1)


@pytest.mark.parametrize("value", [math.nan, -0.1, 1.1, math.inf])
def test_a_threshold_outside_0_to_1_is_refused(value):
    with pytest.raises(InputError, match="threshold must be a number from 0 to 1"):
        fraction(value, "threshold")


def test_aggregates_are_the_mean_the_lowest_and_the_highest():
    assert [aggregate([0.2, 0.4, 0.9], how) for how in ("mean", "lowest", "highest")] == pytest.approx([0.5, 0.2, 0.9])
    with pytest.raises(InputError, match="got 'median'"):
        aggregate([0.5], "median")


def test_tensor_values_become_rounded_bytes_cut_to_the_range_without_alpha():
    image = torch.tensor([[[-0.2, 0.5, 1.2, 0.0], [0.1, 0.2, 0.3, 0.4]]])[None]
    (picture,) = pictures_of(image)
    assert np.asarray(picture).tolist() == [[[0, 128, 255], [26, 51, 76]]]


def test_bytes_are_taken_as_they_are():
    pixels = torch.arange(48, dtype=torch.uint8).reshape(1, 4, 4, 3) * 5
    assert (np.asarray(pictures_of(pixels)[0]) == pixels[0].numpy()).all()


@pytest.mark.parametrize(("low", "high"), [(0.0, 255.0), (-1.0, 1.0)])
def test_values_of_another_range_are_refused_and_not_cut(low, high):
    with pytest.raises(ImageError, match=f"image 1 of 1: values from {low:g} to {high:g}"):
        pictures_of(torch.linspace(low, high, 48).reshape(1, 4, 4, 3))


def test_an_array_in_place_of_a_tensor_is_refused_in_words():
    with pytest.raises(InputError, match="numpy.ndarray of shape .*, not a torch tensor"):
        pictures_of(np.zeros((1, 4, 4, 3), np.float32))


def test_a_grey_batch_is_read_and_infinity_is_refused():
    assert pictures_of(torch.zeros(1, 4, 4, 1))[0].mode == "RGB"
    with pytest.raises(ImageError, match="image 2 of 2: holds NaN or infinite"):
        pictures_of(torch.stack([torch.zeros(4, 4, 3), torch.full((4, 4, 3), math.inf)]))


def test_a_three_pixel_wide_picture_is_not_taken_for_channels_first():
    assert pictures_of(torch.zeros(1, 3, 7, 3))[0].size == (7, 3)


def test_presets_ask_their_question_and_an_own_question_must_not_be_empty():
    assert question_for("describe the quality", "ignored") == PRESETS["describe the quality"]
    assert question_for(OWN, " Is it noisy? ") == "Is it noisy?"
    with pytest.raises(InputError, match="the question is empty"):
        question_for(OWN, "  ")


def checkpoint(folder, kind="llava_onevision"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    return folder


def test_folders_of_our_architecture_are_found_in_every_root_and_others_are_not(tmp_path):
    mini = checkpoint(tmp_path / "qsit" / "q-sit-mini")
    deep = checkpoint(tmp_path / "LLM" / "owner" / "ov-7b")
    checkpoint(tmp_path / "LLM" / "florence", kind="florence2")
    (tmp_path / "LLM" / "broken").mkdir()
    (tmp_path / "LLM" / "broken" / "config.json").write_text("{", encoding="utf-8")
    extra = checkpoint(tmp_path / "elsewhere" / "mine")
    checkpoint(tmp_path / "elsewhere" / "q-sit-mini")
    roots = {
        "qsit": [str(tmp_path / "qsit"), str(tmp_path / "elsewhere"), str(tmp_path / "absent")],
        "LLM": [str(tmp_path / "LLM")],
    }
    assert found_models(roots) == {"LLM/owner/ov-7b": deep, "qsit/mine": extra, "qsit/q-sit-mini": mini}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "config.json is not JSON (Expecting property name"),
        ("[" * 100_000, "config.json is not JSON (maximum recursion depth"),
        ("\x80", "config.json is not JSON ('utf-8' codec can't decode"),
        ("[]", "config.json holds list in place of an object"),
        ('{"model_type": "florence2"}', "config.json says model_type 'florence2'; needed is 'llava_onevision'"),
        ("{}", "config.json says model_type None"),
    ],
)
def test_a_folder_that_is_not_offered_has_a_reason_and_does_not_hide_the_others(tmp_path, content, reason):
    good = checkpoint(tmp_path / "LLM" / "good")
    checkpoint(tmp_path / "LLM" / "a" / "bad")
    (tmp_path / "LLM" / "a" / "bad" / "config.json").write_bytes(content.encode("latin-1"))
    roots = {"LLM": [str(tmp_path / "LLM")]}
    assert found_models(roots) == {"LLM/good": good}
    assert reason in why_not_offered(roots, "LLM/a/bad")
    assert why_not_offered(roots, "LLM/good") is None and why_not_offered(roots, "LLM/../secret") is None


def test_the_embedded_model_comes_first_and_the_official_names_last():
    assert choices(["qsit/mine"]) == ["qsit-nano", "qsit/mine", "qsit-mini", "qsit"]


def test_the_logic_modules_import_neither_comfyui_nor_torch_nor_transformers():
    names = "beside carry errors folder_rows folders gate good_for labels lists parting pictures questions queued rank"
    names += " records"
    code = (
        "import sys, importlib\n"
        f"for name in {names.split()!r}: importlib.import_module('qsit_plugin.nodes.' + name)\n"
        "print([m for m in ('torch', 'transformers', 'comfy', 'comfy_api') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_adding_the_pack_imports_no_transformers_and_opens_no_model(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from tests.nodes.stand_in import Host\n"
        "Host(pathlib.Path(sys.argv[1]))\n"
        "print(len([m for m in sys.modules if m.startswith('qsit_plugin.nodes.')]) > 13,"
        " [m for m in ('transformers', 'qsit_plugin.model', 'qsit_plugin.checkpoint.opening') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert done.stdout.strip() == "True []"


def aliases(nodes):
    return {node.GET_SCHEMA().node_id: getattr(node.GET_SCHEMA(), "search_aliases", None) for node in nodes}


def test_words_that_people_search_for_find_a_node_where_comfyui_has_aliases(host, monkeypatch):
    from comfy_api.latest import io

    from qsit_plugin.nodes.extension import NODES

    @dataclasses.dataclass
    class Newer(io.Schema):
        search_aliases: list[str] = dataclasses.field(default_factory=list)

    if "search_aliases" not in inspect.signature(io.Schema).parameters:
        assert set(aliases(NODES).values()) == {None}
        monkeypatch.setattr(io, "Schema", Newer)
    found = aliases(NODES)
    assert all(found.values())
    for word in ("aesthetic", "iqa", "image quality", "rating", "filter", "best image"):
        assert any(word in words for words in found.values()), word


def test_the_pack_has_one_entry_point_only():
    """ComfyUI takes NODE_CLASS_MAPPINGS where there is one, and then never calls the entry point."""
    import qsit_plugin.nodes

    assert not hasattr(qsit_plugin.nodes, "NODE_CLASS_MAPPINGS")
    assert inspect.iscoroutinefunction(qsit_plugin.nodes.comfy_entrypoint)
