"""Graphs around Load and Score, run by a host's executor."""

import pytest
import torch

from tests.nodes.graphs import MODEL, arrived, graph, score_of
from tests.nodes.helpers import batch, give, keep, photo


def test_a_batch_is_scored_as_the_library_scores_its_pictures(host, nano):
    images = batch(photo(0), photo(0, blur=True), photo(1))
    result = host.run(
        graph(images)
        | {"k": keep(["score", 1], "score"), "l": keep(["score", 2], "list"), "s": keep(["score", 5], "r")}
    )
    assert result.success
    expected = [s.value for s in nano.score([(i.numpy() * 255).round().astype("uint8") for i in images])]
    assert arrived("list") == pytest.approx(expected, abs=1e-5)
    assert arrived("score") == [pytest.approx(sum(expected) / 3, abs=1e-5)]
    (records,) = arrived("r")
    assert [r["score"] for r in records] == pytest.approx(expected, abs=1e-5)
    assert all(0.99 < sum(r["probabilities"].values()) < 1.01 for r in records)


def test_scores_can_be_read_by_api_clients_from_the_shown_output(host):
    result = host.run(graph(batch(photo(0), photo(1))))
    assert result.shown["score"]["text"][0].startswith("1: 0.")
    assert [set(r) >= {"score", "level", "std"} for r in result.shown["score"]["qsit"]] == [True, True]


def test_a_second_run_takes_the_score_from_the_cache(host, monkeypatch):
    prompt = graph(batch(photo(0))) | {"k": keep(["score", 1], "score")}
    host.run(prompt)
    from qsit_plugin.nodes.handle import Handle

    monkeypatch.setattr(Handle, "scores", lambda *_: pytest.fail("scored again"))
    result = host.run(prompt)
    assert result.success and not result.errors


def test_alpha_is_dropped_and_values_out_of_range_are_cut(host):
    picture = photo(0)
    wild = torch.cat([picture * 1.4 - 0.2, torch.zeros(96, 128, 1)], dim=-1)
    host.run(graph(batch(wild)) | {"k": keep(["score", 1], "wild")})
    host.run(graph(batch((picture * 1.4 - 0.2).clamp(0, 1))) | {"k": keep(["score", 1], "tame")})
    assert arrived("wild") == arrived("tame")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(0, 32, 32, 3), "empty batch"),
        (torch.full((2, 32, 32, 3), float("nan")), "image 1 of 2: holds NaN"),
        (torch.zeros(1, 32, 32, 2), "1, 3 or 4 channels"),
        (torch.zeros(32, 32, 3), r"[B, H, W, C]"),
        ("text", "got str"),
    ],
)
def test_bad_images_give_one_error_that_names_the_node_and_other_branches_finish(host, images, message):
    prompt = graph(images) | {
        "a": keep(["score", 0], "bad"),
        "b": keep(["score", 1], "bad"),
        "good_images": give("other", batch(photo(0))),
        "other": {"class_type": "QSiT_Score", "inputs": score_of("good_images")},
        "c": keep(["other", 1], "good"),
    }
    for _ in range(2):  # an error is not kept by the cache: the second run says it again
        result = host.run(prompt)
        (error,) = result.errors
        assert not result.success, "programs read that it failed"
        assert (error["node_id"], error["node_type"]) == ("score", "QSiT_Score")
        assert "Q-SiT Score" in error["exception_message"] and message in error["exception_message"]
        assert message in result.shown["score"]["text"][0]
        assert arrived("bad") == []
    assert len(arrived("good")) == 1


def test_an_error_of_a_run_in_which_several_nodes_refused_says_them_all(host):
    """ComfyUI ends a run at the first node that raises."""
    broken = torch.full((1, 32, 32, 3), float("nan"))
    prompt = graph(broken) | {"other": {"class_type": "QSiT_Score", "inputs": score_of("more")}}
    (error,) = host.run(prompt | {"more": give("more", broken[:, :16])}).errors
    first, second = error["exception_message"].split("\n")[:2]
    assert {first.split("(")[-1], second.split("(")[-1]} == {"Q-SiT Score, node score)", "Q-SiT Score, node other)"}


def test_a_list_of_sizes_is_scored_one_by_one_and_a_bad_item_stops_only_itself(host):
    sizes = [batch(photo(0)), torch.full((1, 32, 32, 3), float("inf")), batch(photo(1, size=(64, 64)))]
    result = host.run(graph(sizes) | {"k": keep(["score", 1], "score")})
    assert len(arrived("score")) == 2
    assert len(result.errors) == 1


def test_a_missing_model_is_said_before_anything_runs_and_other_branches_finish(host):
    prompt = graph(batch(photo(0))) | {
        "lost": {"class_type": "QSiT_LoadModel", "inputs": MODEL | {"model_name": "LLM/gone"}},
        "bad": {"class_type": "QSiT_Score", "inputs": score_of("images") | {"model": ["lost", 0]}},
        "k": keep(["score", 1], "good"),
    }
    result = host.run(prompt)
    (reasons,) = result.invalid["lost"]
    assert "no model 'LLM/gone' here" in reasons and "models/qsit" in reasons
    assert len(arrived("good")) == 1


@pytest.mark.parametrize(
    ("offline", "download", "cure"),
    [
        (False, "never", "set download to 'if missing' (1.8 GB"),
        (True, "never", "start ComfyUI without HF_HUB_OFFLINE and set download to 'if missing'"),
        (True, "if missing", "start ComfyUI without HF_HUB_OFFLINE"),
    ],
)
def test_a_missing_official_model_is_one_error_before_the_run_that_begins_with_the_cure(
    host, monkeypatch, offline, download, cure
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    prompt = graph(batch(photo(0)))
    prompt["model"]["inputs"] |= {"model_name": "qsit-mini", "download": download}
    (error,) = host.run(prompt).invalid["model"]
    details = error["details"] if isinstance(error, dict) else error
    assert details.startswith(f"model_name - {cure}") and "qsit-mini is not on this machine" in details
    assert "qsit weights" not in details, "a clone in custom_nodes has no such command"


def test_a_link_in_place_of_download_is_judged_in_the_run_with_the_cure_first(host, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    prompt = graph(batch(photo(0))) | {"never": give("never", "never")}
    prompt["model"]["inputs"] |= {"model_name": "qsit-mini", "download": ["never", 0]}
    (error,) = host.run(prompt).errors
    assert error["exception_message"].startswith("set download to 'if missing'")
    assert (
        error["exception_message"].strip().endswith("(Load Q-SiT Model, node model)")
    )  # ComfyUI ends it with a line break


def test_a_hub_out_of_reach_is_an_error_that_begins_with_the_cure_and_names_no_command(host, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # and no test reaches the network
    prompt = graph(batch(photo(0)))
    prompt["model"]["inputs"] |= {"model_name": "qsit-mini", "download": "if missing"}
    (error,) = host.run(prompt).errors
    assert error["exception_message"].startswith("run again when the Hub can be reached, or put a copy")
    assert "is not on this machine" in error["exception_message"] and "qsit weights" not in error["exception_message"]


def test_a_checkpoint_folder_in_models_is_listed_loaded_and_read_again_when_it_changes(host, monkeypatch):
    from qsit_plugin.nodes import handle
    from tests.tiny import tiny_checkpoint

    folder = host.base / "models" / "LLM" / "owner" / "tiny"
    tiny_checkpoint(folder, official=False)
    opened = []
    original = handle.open_checkpoint
    monkeypatch.setattr(handle, "open_checkpoint", lambda *a, **k: opened.append(k["name"]) or original(*a, **k))
    prompt = graph(batch(photo(0))) | {"k": keep(["score", 1], "score")}
    prompt["model"]["inputs"]["model_name"] = "LLM/owner/tiny"
    for change in (None, None, "weights"):
        if change:
            tiny_checkpoint(folder, official=False, seed=1)
        result = host.run(prompt)
        assert result.success, result.invalid
    assert opened == ["LLM/owner/tiny"] * 2
    first, second = arrived("score")
    assert first != second


def test_a_broken_checkpoint_is_one_error_of_the_loader_and_other_branches_finish(host):
    folder = host.base / "models" / "qsit" / "broken"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llava_onevision"}', encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"nothing")
    prompt = graph(batch(photo(0))) | {"g": keep(["score", 1], "good"), "b": keep(["bad", 1], "bad")}
    prompt["loader"] = {"class_type": "QSiT_LoadModel", "inputs": MODEL | {"model_name": "qsit/broken"}}
    prompt["bad"] = {"class_type": "QSiT_Score", "inputs": score_of("images") | {"model": ["loader", 0]}}
    result = host.run(prompt)
    assert [error["node_type"] for error in result.errors] == ["QSiT_LoadModel"]
    assert (len(arrived("good")), arrived("bad")) == (1, [])


def test_a_folder_with_a_broken_config_is_one_error_before_the_run_that_says_what_is_broken(host):
    folder = host.base / "models" / "qsit" / "half"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type":', encoding="utf-8")
    prompt = graph(batch(photo(0)))
    prompt["model"]["inputs"]["model_name"] = "qsit/half"
    (error,) = host.run(prompt).invalid["model"]
    assert "half" in str(error) and "config.json is not JSON" in str(error) and "no model" not in str(error)


def test_folders_of_extra_model_paths_are_listed_too(host, tmp_path):
    import folder_paths

    from qsit_plugin.nodes.load_node import LoadModel
    from tests.tiny import tiny_checkpoint

    tiny_checkpoint(tmp_path / "mine", official=False)
    folder_paths.add_model_folder_path("qsit", str(tmp_path))  # what extra_model_paths.yaml does
    try:
        assert LoadModel.validate_inputs(model_name="qsit/mine") is True
        prompt = graph(batch(photo(0))) | {"k": keep(["score", 1], "score")}
        prompt["model"]["inputs"]["model_name"] = "qsit/mine"
        assert host.run(prompt).success and len(arrived("score")) == 1
    finally:
        folder_paths.folder_names_and_paths["qsit"][0].remove(str(tmp_path))
