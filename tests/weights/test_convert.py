"""Conversion of a LLaVA-NeXT style checkpoint: a tiny one with the real key names, made here from a known model."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from qsit_plugin.checkpoint import open_checkpoint
from qsit_plugin.weights import WeightsError
from qsit_plugin.weights.convert import TOWERS, convert, grid_points, hf_config, hf_name
from tests.tiny import picture_logits, profile_of, tiny_model, tiny_tokenizer

TOWER = "model.vision_tower.vision_tower.vision_model."


def llava_next_name(name):
    """The name that LLaVA-NeXT's LlavaQwenForCausalLM gives a weight of transformers' model."""
    name = name.replace("model.vision_tower.vision_model.", "model.vision_tower.")
    for pattern, replacement in (
        (r"^model\.vision_tower\.", TOWER),
        (r"^model\.multi_modal_projector\.linear_1\.", "model.mm_projector.0."),
        (r"^model\.multi_modal_projector\.linear_2\.", "model.mm_projector.2."),
        (r"^model\.language_model\.", "model."),
    ):
        name = re.sub(pattern, replacement, name)
    return name


def llava_next_config(model, **more):
    text = model.config.text_config
    keys = [
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "vocab_size",
    ]
    return {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        **{key: getattr(text, key) for key in keys},
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": text.tie_word_embeddings,
        "eos_token_id": text.eos_token_id,
        "sliding_window": 32768,
        "use_sliding_window": False,
        "image_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": [[128 * i, 128 * j] for i in range(1, 7) for j in range(1, 7)],
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "someone/tiny-siglip",
        **more,
    }


VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 128,
    "patch_size": 16,
}


def write_source(folder, model, *, change=None, **config):
    """A LLaVA-NeXT checkpoint: its tower still has the last layer and the head that the model does not use."""
    folder.mkdir()
    state = {llava_next_name(name): tensor.clone() for name, tensor in model.state_dict().items()}
    if model.config.text_config.tie_word_embeddings:
        del state["lm_head.weight"]
    for name in [name for name in state if name.startswith(f"{TOWER}encoder.layers.1.")]:
        state[name.replace("layers.1.", "layers.2.")] = torch.zeros_like(state[name])
    state[f"{TOWER}head.probe"] = torch.zeros(1, 1, 32)
    if change is not None:
        change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(llava_next_config(model, **config)), encoding="utf-8")
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request):
    return tiny_model(tiny_tokenizer(), official=False, tie=request.param)


@pytest.fixture
def tied():
    return tiny_model(tiny_tokenizer(), official=False)


def test_a_converted_checkpoint_gives_the_logits_of_the_model_it_came_from(model, tmp_path):
    source = write_source(tmp_path / "next", model)
    target = convert(source, tmp_path / "hf", vision=VISION, profile=profile_of(tiny_tokenizer()))
    converted = open_checkpoint(target, device=torch.device("cpu"), dtype=torch.float32)
    assert torch.equal(picture_logits(converted.model), picture_logits(model))
    assert converted.tiling.tile == 128


def test_converted_weights_keep_their_dtype(tied, tmp_path):
    source = write_source(tmp_path / "next", tied.to(torch.bfloat16))
    stored = load_file(convert(source, tmp_path / "hf", vision=VISION) / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}


def test_token_rows_are_added_where_the_language_model_knew_no_image_token(tied, tmp_path):
    short = len(tiny_tokenizer()) - 2
    name = "model.embed_tokens.weight"

    def shorten(state):
        state[name] = state[name][:short].clone()

    source = write_source(tmp_path / "next", tied, change=shorten, vocab_size=short)
    stored = load_file(convert(source, tmp_path / "hf", vision=VISION) / "model.safetensors")
    rows = stored["language_model.model.embed_tokens.weight"]
    expected = tied.model.language_model.embed_tokens.weight[:short]
    assert len(rows) == short + 2
    assert torch.equal(rows[:short], expected)
    assert torch.allclose(rows[short:], expected.mean(dim=0).expand(2, -1), atol=1e-6)


def test_the_published_tower_and_grid_become_the_official_config():
    content = {
        "model_type": "llava_qwen",
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "vocab_size": 151936,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "tie_word_embeddings": True,
        "image_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": "(1x1),...,(6x6)",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_tower": "google/siglip-so400m-patch14-384",
    }
    config = hf_config(content, {"<image>": 151646, "<video>": 151647})
    assert config.vision_config.num_hidden_layers == 26
    assert (config.image_token_index, config.text_config.vocab_size) == (151646, 151936)
    assert len(config.image_grid_pinpoints) == 36
    assert config.image_grid_pinpoints[1] == [384, 768]
    assert config.text_config.tie_word_embeddings and config.tie_word_embeddings


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (
            f"{TOWER}embeddings.patch_embedding.weight",
            "model.vision_tower.vision_model.embeddings.patch_embedding.weight",
        ),
        ("model.mm_projector.2.bias", "model.multi_modal_projector.linear_2.bias"),
        ("model.image_newline", "model.image_newline"),
        ("model.layers.23.mlp.up_proj.weight", "model.language_model.layers.23.mlp.up_proj.weight"),
        ("model.norm.weight", "model.language_model.norm.weight"),
        ("lm_head.weight", "lm_head.weight"),
    ],
)
def test_llava_next_names_are_mapped(theirs, ours):
    assert hf_name(theirs) == ours


def test_a_grid_with_equal_sides_exchanged_keeps_its_order_and_another_is_turned():
    assert grid_points([[128, 256], [256, 128]], 128) == [[128, 256], [256, 128]]
    assert grid_points([[128, 256], [128, 384]], 128) == [[256, 128], [384, 128]]  # (width, height) -> (height, width)
    assert grid_points("(1x1),...,(2x2)", 128) == [[128, 128], [128, 256], [256, 128], [256, 256]]


@pytest.mark.parametrize("wrong", [None, [], "1x1", [[1, 2, 3]]])
def test_a_grid_of_another_form_is_an_error(wrong):
    with pytest.raises(WeightsError, match="image_grid_pinpoints"):
        grid_points(wrong, 128)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"model_type": "llava_onevision"}, "nothing to convert"),
        ({"mm_projector_type": "linear"}, "mm_projector_type='linear'"),
        ({"mm_patch_merge_type": "flat"}, "mm_patch_merge_type='flat'"),
        ({"image_aspect_ratio": "pad"}, "image_aspect_ratio='pad'"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000"),
        ({"num_hidden_layers": 900}, "num_hidden_layers is 900, the weights have 2 layers"),
        ({"vocab_size": "all"}, "vocab_size='all'"),
        ({"hidden_size": 10**7}, "the files hold"),
        ({"num_attention_heads": 0}, "cannot be converted|num_attention_heads"),
        ({"hidden_act": "blink"}, "hidden_act .*'blink'"),
        ({"image_grid_pinpoints": "(1x1),...,(99999x99999)"}, "more than 1024 grid points"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    ],
)
def test_a_setting_without_counterpart_is_an_error_that_names_it(tied, tmp_path, setting, message):
    with pytest.raises(WeightsError, match=message):
        convert(write_source(tmp_path / "next", tied, **setting), tmp_path / "hf", vision=VISION)


def test_an_unknown_tower_is_an_error_that_names_the_known_ones(tied, tmp_path):
    with pytest.raises(WeightsError, match=next(iter(TOWERS))):
        convert(write_source(tmp_path / "next", tied), tmp_path / "hf")


def test_a_weight_that_has_no_place_is_an_error_that_names_it(tied, tmp_path):
    def add(state):
        state["model.vision_resampler.query"] = torch.zeros(2)

    with pytest.raises(WeightsError, match="model.vision_resampler.query"):
        convert(write_source(tmp_path / "next", tied, change=add), tmp_path / "hf", vision=VISION)


def test_a_tower_with_too_many_layers_is_an_error(tied, tmp_path):
    def add(state):
        state[f"{TOWER}encoder.layers.3.layer_norm1.bias"] = torch.zeros(32)

    with pytest.raises(WeightsError, match="layers.3.layer_norm1.bias is not in the model"):
        convert(write_source(tmp_path / "next", tied, change=add), tmp_path / "hf", vision=VISION)


def test_a_missing_weight_is_an_error_that_names_it(tied, tmp_path):
    source = write_source(tmp_path / "next", tied, change=lambda state: state.pop("model.image_newline"))
    with pytest.raises(WeightsError, match="model.image_newline is missing"):
        convert(source, tmp_path / "hf", vision=VISION)
    assert not (tmp_path / "hf").exists()


def test_a_tied_checkpoint_with_another_head_is_an_error(tied, tmp_path):
    def add(state):
        state["lm_head.weight"] = state["model.embed_tokens.weight"] + 1

    with pytest.raises(WeightsError, match="lm_head differs"):
        convert(write_source(tmp_path / "next", tied, change=add), tmp_path / "hf", vision=VISION)


def test_nothing_is_overwritten(tied, tmp_path):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(WeightsError, match="nothing is overwritten"):
        convert(write_source(tmp_path / "next", tied), tmp_path / "hf", vision=VISION)
