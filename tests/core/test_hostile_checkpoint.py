"""Broken and hostile folders: between opening one and its first score there is a score or a WeightsError, and soon."""

import json
import os
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import qsit_plugin
import qsit_plugin.limits
from qsit_plugin.protocol import ProfileError
from qsit_plugin.weights import WeightsError
from qsit_plugin.weights.json_file import READ_BY_TRANSFORMERS
from tests.conftest import GRAPHS, NANO

DEEP = "[" * 100_000 + "]" * 100_000
PICTURE = Image.linear_gradient("L").resize((60, 40)).convert("RGB")
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture
def folder(tmp_path):
    """A copy of nano to break, without golden values and ONNX graphs, its weights linked."""
    for path in NANO.iterdir():
        if not any(path.match(left_out) for left_out in ("*.safetensors", "golden*", *GRAPHS)):
            shutil.copy(path, tmp_path)
    try:
        os.link(NANO / "model.safetensors", tmp_path / "model.safetensors")
    except OSError:  # another drive
        shutil.copy(NANO / "model.safetensors", tmp_path)
    return tmp_path


def write(folder, name, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text, encoding="utf-8")


def edit(folder, name, **values):
    """Set values by their path in a JSON file: ``text_config.hidden_size`` is written ``text_config__hidden_size``."""
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    for path, value in values.items():
        *outer, last = path.split("__")
        place = content
        for key in outer:
            place = place[key]
        place[last] = value
    write(folder, name, content)


def edit_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()  # a link to the package's own
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_healthy_copy_gives_nanos_own_score(folder, nano_torch):
    assert qsit_plugin.load(folder).score(PICTURE).value == nano_torch.score(PICTURE).value


# ---- JSON files ----


@pytest.mark.parametrize("name", [*READ_BY_TRANSFORMERS, "qsit.json"])
@pytest.mark.parametrize("text", [DEEP, '{"a": ' * 90 + "1" + "}" * 90, "[]", "\x80\x00"], ids=list("dnlb"))
def test_a_json_file_that_is_deep_or_no_object_is_an_error_that_names_it(folder, name, text):
    if name == "adapter_config.json":
        pytest.importorskip("peft", reason="adapters need peft")
    (folder / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")) as caught:
        qsit_plugin.load(folder)
    assert "again" in str(caught.value)
    if text != "[]":
        assert caught.value.__cause__ is not None


@pytest.mark.parametrize("names", [{"weight_map": {"a": 5}}, {"weight_map": ["model.safetensors"]}])
def test_an_index_of_another_form_is_an_error(folder, names):
    write(folder, "model.safetensors.index.json", names)
    with pytest.raises(WeightsError, match="weight_map must map"):
        qsit_plugin.load(folder)


# ---- config.json ----


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vision_config__num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, the weights have 6"),
        ({"text_config__num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, the weights have 4"),
        ({"text_config__hidden_size": 6 * 10**6}, "the files hold 4,"),
        ({"text_config__head_dim": 10**8}, "the files hold 4,"),
        ({"text_config__vocab_size": 10**9}, "the files hold 4,"),
        ({"vision_config__image_size": 10**8}, "the files hold 4,"),
        ({"num_labels": 10**9}, "num_labels"),
        ({"image_grid_pinpoints": [[128, 128]] * 10**6}, "more than 100,000 objects and lists"),
        ({"image_grid_pinpoints": [[128, 128]] * 10**4}, "image_grid_pinpoints .* 10,000 of them"),
        ({"image_grid_pinpoints": [[51200, 51200]]}, r"image_grid_pinpoints .*\[51200, 51200\]"),
        ({"image_grid_pinpoints": [128, 256]}, "image_grid_pinpoints .* got 128"),
        ({"text_config__num_attention_heads": 0}, "num_attention_heads"),
        ({"text_config__num_key_value_heads": 0}, "num_key_value_heads"),
        ({"text_config__num_key_value_heads": 4}, "num_key_value_heads must divide"),
        ({"vision_config__num_attention_heads": 5}, "num_attention_heads 5 does not divide"),
        ({"vision_config__patch_size": 0}, "patch_size"),
        ({"vision_config__patch_size": True}, "patch_size"),
        ({"vision_config__hidden_act": "blink"}, "hidden_act .*'blink'"),
        ({"text_config__hidden_act": ["silu"]}, "hidden_act"),
        ({"projector_hidden_act": "blink"}, "projector_hidden_act"),
        ({"text_config": "gpt2"}, "text_config must be an object"),
        ({"text_config__model_type": "gpt2"}, "text_config is a 'gpt2'"),
        ({"vision_config__model_type": "clip_vision_model"}, "only 'siglip_vision_model'"),
        ({"text_config__rope_parameters": "linear"}, "rope_parameters must be an object"),
        ({"text_config__rope_theta": 0}, "rope_theta"),
        ({"text_config__eos_token_id": {"a": 1}}, "eos_token_id"),
        ({"text_config__eos_token_id": [[2]]}, "eos_token_id"),
        ({"vision_feature_layer": 99}, "vision_feature_layer .* -7 to 6; got 99"),
        ({"vision_feature_layer": []}, "vision_feature_layer"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings"),
        ({"text_config__rms_norm_eps": "1e-6"}, "rms_norm_eps"),
    ],
)
def test_a_config_that_no_model_can_be_built_from_is_an_error_that_names_the_setting(folder, values, message):
    edit(folder, "config.json", **values)
    with pytest.raises(WeightsError, match=f"config.json.*{message}"):
        qsit_plugin.load(folder)


@pytest.mark.parametrize("value", [{"a": 1}, [[2]], -1, 1150, True, "2"])
def test_an_end_token_that_is_none_is_an_error_of_generation_config_json(folder, value):
    edit(folder, "generation_config.json", eos_token_id=value)
    with pytest.raises(WeightsError, match="generation_config.json: eos_token_id .* 0 to 1149"):
        qsit_plugin.load(folder)


@pytest.mark.parametrize(
    "settings",
    [{"quant_method": name} for name in ("gptq", "bitsandbytes", "quark", "torchao", "new")] + [{}, "gptq"],
)
@pytest.mark.parametrize("place", ["quantization_config", "text_config__quantization_config"])
def test_a_quantized_checkpoint_is_refused_with_what_can_be_read(folder, settings, place):
    edit(folder, "config.json", **{place: settings})
    with pytest.raises(WeightsError, match='quantization_config.*float32, float16 or bfloat16.*quantization="8bit"'):
        qsit_plugin.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"image_mean": "555"},
        {"image_std": ["0.5"] * 3},
        {"image_std": [0.5, 1e-30, 0.5]},
        {"image_std": [0.5, -0.5, 0.5]},
        {"image_mean": [1e30] * 3},
        {"size": "large"},
        {"size": [128, 128]},
        {"image_grid_pinpoints": [[128, 128]] * 10**4},
        {"image_grid_pinpoints": [128]},
        {"rescale_factor": "1/255"},
    ],
)
def test_a_preprocessor_with_damaged_values_is_an_error(folder, change):
    edit(folder, "preprocessor_config.json", **change)
    with pytest.raises(WeightsError, match="preprocessor"):
        qsit_plugin.load(folder)


# ---- weights ----


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_an_error_that_names_one(folder, value):
    edit_weights(folder, lambda weights: weights["image_newline"].__setitem__(3, value))
    with pytest.raises(WeightsError, match="damaged.*image_newline"):
        qsit_plugin.load(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_weights_that_are_no_floats_are_an_error_that_names_one(folder, dtype):
    edit_weights(folder, lambda weights: weights.update(image_newline=weights["image_newline"].to(dtype)))
    with pytest.raises(WeightsError, match="image_newline holds .*read from F64, F32, F16, BF16"):
        qsit_plugin.load(folder)


# ---- template, question, tokens ----


@pytest.mark.parametrize(
    "template",
    [
        ENDLESS,
        "{{ 'x' * 10**10 }}",
        "{{ nothing.at.all }}",
        "{% if",
        "{{ 1/0 }}",
        "{{ raise_exception('no') }}",
        "A" * 70_000,
    ],
    ids=range(7),
)
def test_a_template_that_fails_or_does_not_end_is_an_error_at_load(folder, template):
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(WeightsError, match="chat template") as caught:
        qsit_plugin.load(folder)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("template", ["no image at all", "<image><image>{{ messages[0].role }}"])
def test_a_template_without_exactly_one_image_is_an_error_at_load(folder, template):
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(WeightsError, match="image tokens instead of one"):
        qsit_plugin.load(folder)


def test_a_template_that_is_no_text_is_an_error_that_names_it(folder):
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WeightsError, match="chat_template.jinja cannot be read"):
        qsit_plugin.load(folder)


def test_a_template_that_turns_endless_for_one_question_is_an_error_when_it_is_asked(folder):
    plain = (NANO / "chat_template.jinja").read_text(encoding="utf-8")
    trap = "{% if 'blurry' in messages[0].content[1].text %}" + ENDLESS + "{% endif %}"
    (folder / "chat_template.jinja").write_text(trap + plain, encoding="utf-8")
    model = qsit_plugin.load(folder)
    assert model.ask(PICTURE, "Is it sharp?", max_new_tokens=1).tokens <= 1
    with pytest.raises(WeightsError, match="more steps"):
        model.ask(PICTURE, "Is it blurry?", max_new_tokens=1)


def test_a_tokenizer_with_more_tokens_than_the_model_is_an_error(folder):
    edit(folder, "qsit.json", answer_prefix="The quality <new>")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = {**content["added_tokens"][-1], "id": 1150, "content": "<new>"}
    write(folder, "tokenizer.json", {**content, "added_tokens": [*content["added_tokens"], added]})
    with pytest.raises(WeightsError, match="makes token 1150, its model knows 1150"):
        qsit_plugin.load(folder)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"weights": [float("nan")] * 5}, "weights"),
        ({"weights": [1e308, 1, 0.5, 0.25, 0]}, "weights"),
        ({"question": 5}, "question"),
        ({"level_token_ids": [[510], 352, 443, 350, 509]}, "level_token_ids"),
    ],
)
def test_a_value_of_qsit_json_that_cannot_be_used_is_a_profile_error_that_names_the_key(folder, values, key):
    edit(folder, "qsit.json", **values)
    with pytest.raises(ProfileError, match=f"qsit.json: {key} must") as caught:
        qsit_plugin.load(folder)
    assert isinstance(caught.value, WeightsError) and isinstance(caught.value, ValueError)


def test_an_error_of_the_users_own_arguments_keeps_its_type(folder):
    with pytest.raises(qsit_plugin.limits.LimitError):
        qsit_plugin.load(folder, max_tiles=0)
    with pytest.raises(ValueError, match="3bit"):
        qsit_plugin.load(folder, quantization="3bit")


@pytest.mark.parametrize("value", [["x"], "long"])
def test_a_tokenizer_with_a_setting_of_another_type_is_an_error_that_names_its_files(folder, value):
    edit(folder, "tokenizer_config.json", model_max_length=value)
    with pytest.raises(WeightsError, match="tokenizer_config.json"):
        qsit_plugin.load(folder)


LETTERS = "a" * 1_000_000


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"dtype": LETTERS}),
        ("config.json", {"model_type": LETTERS}),
        ("config.json", {"image_token_id": [1] * 1_000_000}),
        ("tokenizer.json", {"version": LETTERS}),
        ("processor_config.json", {"num_image_tokens": [1] * 1_000_000}),
        ("model.safetensors.index.json", {"weight_map": {"a": LETTERS}}),
        ("qsit.json", {"level_words": [LETTERS, " good", " fair", " poor", " bad"]}),
    ],
    ids=["dtype", "model_type", "image_token_id", "version", "num_image_tokens", "weight_map", "level_words"],
)
def test_a_message_quotes_no_more_of_a_file_than_a_person_reads(folder, name, values):
    if not (folder / name).is_file():
        write(folder, name, {})
    edit(folder, name, **values)
    with pytest.raises(WeightsError) as caught:
        qsit_plugin.load(folder, device="cpu")
    assert len(str(caught.value)) < 1_000
