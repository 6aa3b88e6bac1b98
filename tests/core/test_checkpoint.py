"""Opening a checkpoint: a healthy one opens silently, what would make scores silently wrong is an error."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.utils import logging

from qsit_plugin.checkpoint import open_checkpoint
from qsit_plugin.checkpoint.checks import check_rope, check_tied
from qsit_plugin.engines.installed import check_version
from qsit_plugin.protocol import OFFICIAL, ProfileError
from qsit_plugin.weights import WeightsError
from tests.tiny import QWEN_VOCABULARY, tiny_checkpoint, tiny_model, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[2]
HEAD = "language_model.lm_head.weight"
EMBEDDING = "language_model.model.embed_tokens.weight"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tied") / "tiny", official=False)


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("untied") / "tiny", official=False, tie=False)


@pytest.fixture
def folder(original, tmp_path):
    """A healthy checkpoint to break."""
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def opened(folder, **more):
    return open_checkpoint(folder, device=torch.device("cpu"), dtype=torch.float32, **more)


def edit(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_text(folder, **values):
    edit(folder / "config.json", lambda content: content["text_config"].update(values))


def edit_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def logits(model, length=40):
    """(length, V) of a text of random tokens."""
    ids = torch.randint(5, 250, (1, length), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(input_ids=ids).logits[0]


# ---- healthy ----


def test_a_checkpoint_opens_frozen_in_evaluation_mode_in_the_dtype_asked_for(original):
    checkpoint = open_checkpoint(original, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert not checkpoint.model.training
    assert all(not p.requires_grad and p.dtype == torch.bfloat16 for p in checkpoint.model.parameters())
    assert checkpoint.name == "tiny"
    assert checkpoint.profile.scope == "synthetic distortions"
    assert (checkpoint.tiling.tile, checkpoint.tiling.patch, len(checkpoint.tiling.grid_points)) == (128, 16, 36)


def test_a_healthy_checkpoint_loads_without_a_word(original):
    program = (
        "import sys, torch; from qsit_plugin.checkpoint import open_checkpoint;"
        "open_checkpoint(sys.argv[1], device=torch.device('cpu'), dtype=torch.float32)"
    )
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    run = subprocess.run([sys.executable, "-c", program, str(original)], capture_output=True, env=environment)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


def test_transformers_own_verbosity_is_as_before_after_opening(original):
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_info()
    logging.enable_progress_bar()
    try:
        opened(original)
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.INFO, True)
    finally:
        logging.set_verbosity(before[0])
        if not before[1]:
            logging.disable_progress_bar()


def test_weights_of_the_file_are_those_of_the_model(original):
    stored = load_file(original / "model.safetensors")
    model = opened(original).model.model
    assert torch.equal(model.language_model.embed_tokens.weight, stored[EMBEDDING])
    tower = getattr(model.vision_tower, "vision_model", model.vision_tower)
    expected = stored["vision_tower.vision_model.embeddings.patch_embedding.weight"]
    assert torch.equal(tower.embeddings.patch_embedding.weight, expected)


@pytest.mark.skipif(not QWEN_VOCABULARY.is_dir(), reason="needs ../shared/data/tokenizer beside the checkout")
def test_a_checkpoint_without_qsit_json_gets_the_official_profile(tmp_path):
    checkpoint = opened(tiny_checkpoint(tmp_path / "qwen", official=False, tokenizer="qwen"))
    assert checkpoint.profile == OFFICIAL
    assert checkpoint.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<image>", "<video>"]) == [151645, 151646, 151647]


# ---- sliding window, tying, transformers' version ----


def test_a_sliding_window_in_the_config_is_forced_off(original, folder):
    expected = logits(opened(original).model)
    layers = {"layer_types": ["sliding_attention"] * 2, "max_window_layers": 0}
    edit_text(folder, sliding_window=8, use_sliding_window=True, **layers)
    plain = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    assert not torch.allclose(logits(plain), expected, atol=0.1)  # the trap is real
    model = opened(folder).model
    assert model.config.text_config.sliding_window is None
    assert torch.equal(logits(model), expected)


def test_embeddings_are_tied_when_only_text_config_says_so(original, folder):
    edit(folder / "config.json", lambda content: content.update(tie_word_embeddings=False))
    model = opened(folder).model
    assert torch.equal(model.lm_head.weight, model.model.language_model.embed_tokens.weight)
    assert torch.equal(logits(model), logits(opened(original).model))


def test_embeddings_stay_apart_when_only_the_outer_config_ties_them(untied, tmp_path):
    folder = Path(shutil.copytree(untied, tmp_path / "tiny"))
    edit(folder / "config.json", lambda content: content.update(tie_word_embeddings=True))
    model = opened(folder).model
    assert torch.equal(model.lm_head.weight, load_file(folder / "model.safetensors")[HEAD])
    assert not torch.equal(model.lm_head.weight, model.model.language_model.embed_tokens.weight)


@pytest.mark.parametrize("name", [HEAD, "lm_head.weight"])
def test_a_different_lm_head_in_a_tied_checkpoint_is_an_error(folder, name):
    edit_weights(folder, lambda weights: weights.update({name: weights[EMBEDDING] + 1}))
    with pytest.raises(WeightsError, match="different lm_head.weight.*Delete"):
        opened(folder)


def test_a_copy_of_the_embedding_as_lm_head_is_fine(original, folder):
    edit_weights(folder, lambda weights: weights.update({HEAD: weights[EMBEDDING].clone()}))
    assert torch.equal(logits(opened(folder).model), logits(opened(original).model))


def test_a_head_that_was_left_apart_after_loading_is_an_error():
    model = tiny_model(tiny_tokenizer(), official=False)
    check_tied(model)
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    with pytest.raises(WeightsError, match="did not tie"):
        check_tied(model)


@pytest.mark.parametrize("version", ["5.0.0", "4.45.0", "4.51.3", "4.56.2"])
def test_transformers_versions_that_load_wrongly_are_refused(version):
    with pytest.raises(WeightsError, match=f"with this transformers: version {version} .*pip install --upgrade"):
        check_version("transformers", version)


@pytest.mark.parametrize("version", ["4.57.0", "4.57.6", "5.0.1", "5.23.0"])
def test_other_transformers_versions_are_accepted(version):
    check_version("transformers", version)


# ---- weights ----


def test_a_missing_weight_is_an_error_that_names_it(folder):
    edit_weights(folder, lambda weights: weights.pop("vision_tower.vision_model.embeddings.patch_embedding.bias"))
    with pytest.raises(WeightsError, match="1 missing .*patch_embedding.bias"):
        opened(folder)


def test_an_untied_checkpoint_without_lm_head_is_an_error(folder):
    edit_text(folder, tie_word_embeddings=False)
    edit(folder / "config.json", lambda content: content.update(tie_word_embeddings=False))
    with pytest.raises(WeightsError, match="1 missing .*lm_head"):
        opened(folder)


@pytest.mark.parametrize("name", ["vision_tower.vision_model.head.probe", "language_model.model.layers.9.mlp.x.weight"])
def test_an_unexpected_weight_is_an_error_that_names_it(folder, name):
    edit_weights(folder, lambda weights: weights.update({name: torch.zeros(2)}))
    with pytest.raises(WeightsError, match="1 unexpected"):
        opened(folder)


def test_a_weight_of_another_shape_is_an_error(folder):
    edit_weights(folder, lambda weights: weights.update(image_newline=torch.zeros(7)))
    with pytest.raises(WeightsError, match="config"):
        opened(folder)


def test_a_truncated_weight_file_is_an_error(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="broken"):
        opened(folder)


def test_pickled_weights_are_refused(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="only pickle files .*convert them to safetensors"):
        opened(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_a_checkpoint_with_code_of_its_own_is_refused(folder, name):
    edit(folder / name, lambda content: content.update(auto_map={"AutoModel": "evil.Model"}))
    with pytest.raises(WeightsError, match="auto_map"):
        opened(folder)


def test_the_error_of_a_llava_next_checkpoint_says_how_to_convert_it(folder):
    edit(folder / "config.json", lambda content: content.update(model_type="llava_qwen"))
    with pytest.raises(WeightsError, match="qsit weights convert"):
        opened(folder)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(WeightsError, match="not a folder"):
        opened(tmp_path / "absent")


# ---- rope ----


def test_two_different_rope_theta_in_the_config_are_an_error(folder):
    edit_text(folder, rope_theta=10000.0)
    with pytest.raises(WeightsError, match="two rope_theta: 10000.0 .* 1000000.0"):
        opened(folder)


def test_a_model_that_computes_with_another_rope_theta_is_an_error():
    model = tiny_model(tiny_tokenizer(), official=False)
    check_rope({"text_config": {"rope_theta": 1000000.0}}, model)
    with pytest.raises(WeightsError, match="rope_theta 10000, but .* computes with 1e\\+06"):
        check_rope({"text_config": {"rope_parameters": {"rope_theta": 10000.0}}}, model)


def test_a_model_that_computes_with_positions_of_another_type_is_an_error():
    model = tiny_model(tiny_tokenizer(), official=False)
    with pytest.raises(WeightsError, match="positions of type 'linear', but .* computes with 'default'"):
        check_rope({"text_config": {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}}, model)


# ---- tokenizer, processor, template ----


def test_a_profile_of_another_tokenizer_is_a_profile_error(folder):
    edit(folder / "qsit.json", lambda content: content.update(level_token_ids=[9073, 1661, 6624, 7852, 3873]))
    with pytest.raises(ProfileError, match="excellent"):
        opened(folder)


def test_an_image_token_that_the_tokenizer_does_not_have_there_is_an_error(folder):
    edit(folder / "config.json", lambda content: content.update(image_token_index=7))
    with pytest.raises(WeightsError, match="token 7, but the tokenizer's <image> is"):
        opened(folder)


def test_a_tokenizer_file_that_is_broken_is_an_error(folder):
    (folder / "tokenizer.json").write_text('{"version": "1.0"}', encoding="utf-8")
    with pytest.raises(WeightsError, match="tokenizer"):
        opened(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"image_grid_pinpoints": [[128, 128], [128, 256]]},
        {"size": {"height": 384, "width": 384}},
        {"image_mean": [0.5]},
        {"image_std": [0.5, 0.5]},
        {"do_normalize": False},
    ],
)
def test_a_processor_that_does_not_fit_the_model_is_an_error(folder, change):
    edit(folder / "preprocessor_config.json", lambda content: content.update(change))
    with pytest.raises(WeightsError, match="do not fit"):
        opened(folder)


def test_a_processor_with_another_aspect_ratio_is_an_error(folder):
    edit(folder / "processor_config.json", lambda content: content.update(vision_aspect_ratio="anyres_max_4"))
    with pytest.raises(WeightsError, match="anyres_max_4"):
        opened(folder)


def test_an_image_processor_nested_in_the_processor_config_is_read(original, folder):
    """The only place where transformers 5 writes it."""
    image = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    (folder / "preprocessor_config.json").unlink()
    edit(folder / "processor_config.json", lambda content: content.update(image_processor=image))
    assert opened(folder).tiling == opened(original).tiling


def test_a_checkpoint_without_image_processor_settings_is_an_error(folder):
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match="no preprocessor_config.json"):
        opened(folder)


@pytest.mark.parametrize(
    "place", ["chat_template.jinja", "chat_template.json", "processor_config.json", "tokenizer_config.json"]
)
def test_the_chat_template_is_found_wherever_transformers_put_it(folder, place):
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").unlink()
    if place.endswith("jinja"):
        (folder / place).write_text("{{ 'mine' }}", encoding="utf-8")
    else:
        content = json.loads((folder / place).read_text(encoding="utf-8")) if (folder / place).is_file() else {}
        (folder / place).write_text(json.dumps({**content, "chat_template": "{{ 'mine' }}"}), encoding="utf-8")
    assert opened(folder).chat_template == "{{ 'mine' }}"


def test_a_checkpoint_without_a_chat_template_is_an_error(folder):
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").unlink()
    with pytest.raises(WeightsError, match="no chat template"):
        opened(folder)


# ---- adapter ----


@pytest.fixture
def adapter(original, tmp_path):
    peft = pytest.importorskip("peft", reason="adapters need peft")
    settings = peft.LoraConfig(r=2, target_modules=r".*language_model.*\.(q|v)_proj", init_lora_weights=False)
    wrapped = peft.get_peft_model(opened(original).model, settings)
    wrapped.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", logits(wrapped.eval())


def test_an_adapter_is_merged(original, adapter):
    merged = opened(original, adapter=adapter[0]).model
    assert type(merged) is LlavaOnevisionForConditionalGeneration
    assert not any("lora" in name for name in merged.state_dict())
    assert torch.allclose(logits(merged), adapter[1], atol=1e-4)
    assert not torch.allclose(logits(merged), logits(opened(original).model), atol=0.1)


def test_a_pickled_adapter_is_refused(original, adapter):
    weights = adapter[0] / "adapter_model.safetensors"
    torch.save(load_file(weights), adapter[0] / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(WeightsError, match="safetensors"):
        opened(original, adapter=adapter[0])


def test_an_adapter_whose_tensors_do_not_match_is_an_error(original, adapter):
    path = adapter[0] / "adapter_model.safetensors"
    weights = load_file(path)
    weights.pop(sorted(weights)[0])
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="does not fit this checkpoint"):
        opened(original, adapter=adapter[0])


def test_finite_weights_whose_sum_leaves_float16_are_no_damage(folder):
    edit_weights(folder, lambda weights: weights.update({EMBEDDING: torch.full_like(weights[EMBEDDING], 100.0)}))
    model = open_checkpoint(folder, device=torch.device("cpu"), dtype=torch.float16).model
    embedding = model.model.language_model.embed_tokens.weight
    assert embedding.isfinite().all() and not embedding.sum().isfinite()
