"""What the Load node opens: any number format, device, folder and adapter; and what it says of a model."""

import json
import shutil
import sys

import pytest
import torch

from qsit_plugin.weights.catalogue import NANO
from tests.conftest import GRAPHS
from tests.nodes.graphs import arrived, graph
from tests.nodes.helpers import batch, keep, photo


def loading(**inputs):
    """Load with these inputs and Score, whose score and records are kept."""
    prompt = graph(batch(photo(0))) | {"k": keep(["score", 1], "score"), "r": keep(["score", 5], "records")}
    prompt["model"]["inputs"] |= inputs
    return prompt


@pytest.fixture
def elsewhere(host):
    """A checkpoint in a folder of models/ that no list shows."""
    folder = host.base / "models" / "diffusers" / "deep" / "down" / "mine"
    shutil.copytree(NANO, folder, ignore=shutil.ignore_patterns(*GRAPHS))
    yield folder
    shutil.rmtree(host.base / "models" / "diffusers")


@pytest.fixture
def adapter(host, nano):
    """A LoRA adapter of the embedded model that moves its scores, in models/loras."""
    peft = pytest.importorskip("peft")
    import qsit_plugin

    network = qsit_plugin.load("qsit-nano", engine="torch").checkpoint.model
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    folder = host.base / "models" / "loras" / "mine"
    peft.get_peft_model(network, config).save_pretrained(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["diffusers/deep/down/mine", "absolute", " ./diffusers//deep/down/mine/ "])
def test_a_checkpoint_folder_anywhere_in_the_model_folders_is_opened(host, elsewhere, name):
    host.run(loading() | {"k": keep(["score", 1], "nano")})
    # It takes the place of the model that is chosen, even of one that is not here.
    result = host.run(loading(model_name="qsit", folder=str(elsewhere) if name == "absolute" else name))
    assert result.success and not result.invalid and not result.errors
    assert arrived("score") == arrived("nano")
    assert "weights " in result.shown["model"]["text"][0]


def test_a_folder_of_extra_model_paths_counts_by_its_kind(host, tmp_path):
    import folder_paths

    shutil.copytree(NANO, tmp_path / "unet" / "mine", ignore=shutil.ignore_patterns(*GRAPHS))
    folder_paths.add_model_folder_path("diffusion_models", str(tmp_path / "unet"))
    try:
        result = host.run(loading(folder="diffusion_models/mine"))
        assert result.success and not result.errors and len(arrived("score")) == 1
    finally:
        folder_paths.folder_names_and_paths["diffusion_models"][0].remove(str(tmp_path / "unet"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("diffusers/gone", "is in none of ComfyUI's model folders"),
        ("../outside", "must name a folder below models/"),
        ("diffusers/../../outside", "must name a folder below models/"),
        ("absolute", "is in none of ComfyUI's model folders"),
        ("diffusers/deep", "give the folder of a Q-SiT checkpoint"),
    ],
)
def test_a_folder_that_is_no_checkpoint_or_lies_outside_is_one_error_before_the_run(host, elsewhere, name, message):
    outside = host.base / "outside"
    shutil.copytree(elsewhere, outside)
    try:
        (error,) = host.run(loading(folder=str(outside) if name == "absolute" else name)).invalid["model"]
        assert message in str(error)
    finally:
        shutil.rmtree(outside)


def test_a_folder_that_changed_is_opened_again(host, elsewhere):
    prompt = loading(folder="diffusers/deep/down/mine")
    host.run(prompt)
    from tests.tiny import tiny_checkpoint

    shutil.rmtree(elsewhere)
    tiny_checkpoint(elsewhere, official=False)
    host.run(prompt)
    first, second = arrived("score")
    assert first != second


@pytest.mark.parametrize("dtype", ["8bit", "4bit"])
def test_quantized_weights_score_and_say_so(host, dtype):
    pytest.importorskip("bitsandbytes")
    result = host.run(loading(dtype=dtype))
    assert result.success and not result.errors
    assert f"qsit-nano: {dtype}, cpu" in result.shown["model"]["text"][0]
    ((record,),) = arrived("records")
    assert dtype in record["mode"]
    assert host.run(loading(dtype=dtype) | {"again": keep(["score", 0], "images")}).success


def test_without_bitsandbytes_the_error_says_what_to_do(host, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    result = host.run(loading(dtype="4bit"))
    message = result.shown["model"]["text"][0] if "model" in result.shown else str(result.errors)
    assert "choose another dtype, or install bitsandbytes into ComfyUI's Python" in message
    assert arrived("score") == []


def test_an_adapter_is_merged_and_named(host, adapter):
    host.run(loading() | {"k": keep(["score", 1], "without")})
    result = host.run(loading(adapter="loras/mine"))
    assert result.success and not result.errors
    assert "adapter mine" in result.shown["model"]["text"][0]
    assert arrived("score") != arrived("without")


def test_an_adapter_that_is_not_there_is_one_error_of_the_node(host):
    result = host.run(loading(adapter="loras/gone"))
    assert [error["node_type"] for error in result.errors] == ["QSiT_LoadModel"]
    assert "adapter 'loras/gone' is in none of ComfyUI's model folders" in result.errors[0]["exception_message"]


def test_the_cpu_can_be_chosen_and_a_device_that_is_not_here_is_refused_before_the_run(host):
    assert host.run(loading(device="cpu")).success and len(arrived("score")) == 1
    assert "gpu:7" in json.dumps(host.run(loading(device="gpu:7")).invalid["model"])


def test_the_node_offers_the_devices_that_comfyui_offers(host):
    import comfy.model_management as mm

    from qsit_plugin.nodes.load_node import LoadModel

    (device,) = [part for part in LoadModel.GET_SCHEMA().inputs if part.id == "device"]
    offered = mm.get_gpu_device_options() if hasattr(mm, "get_gpu_device_options") else ["default", "cpu"]
    assert device.options if hasattr(device, "options") else device.limits["options"] == offered


def test_the_page_gets_a_line_about_every_official_model_in_both_languages(host):
    from qsit_plugin.nodes.load_node import LoadModel
    from qsit_plugin.weights.catalogue import ENTRIES

    lines = LoadModel.GET_SCHEMA().inputs[0].extra_dict["qsit_good_for"]
    assert lines.keys() == {"en", "zh"} and all(ENTRIES.keys() | {""} == told.keys() for told in lines.values())
    assert "technical faults" in lines["en"]["qsit-nano"] and "qsit-mini" in lines["zh"]["qsit-nano"]


def test_the_line_stands_in_the_text_of_the_run(host):
    text = host.run(loading()).shown["model"]["text"][0]
    assert text.splitlines()[1].startswith("Finds technical faults")


def test_new_inputs_are_optional_and_last_so_that_stored_values_keep_their_places(host):
    from qsit_plugin.nodes.load_node import LoadModel

    inputs = LoadModel.GET_SCHEMA().inputs
    assert [part.id for part in inputs][:3] == ["model_name", "dtype", "download"]
    assert [part.optional for part in inputs] == [False] * 3 + [True] * 3
