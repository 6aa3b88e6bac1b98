"""What save_portable writes loads on transformers 4.57 and 5.x, with equal logits and without this package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlavaOnevisionForConditionalGeneration

from qsit_plugin.checkpoint import CHAT_TEMPLATE, open_checkpoint, read_preprocessor, save_portable
from qsit_plugin.checkpoint import saving as portable
from qsit_plugin.checkpoint.saving import portable_name
from qsit_plugin.protocol import ScoreProfile
from qsit_plugin.weights import WeightsError
from tests.tiny import picture_logits, preprocessor_for, profile_of, tiny_checkpoint, tiny_model, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[2]
OTHER = os.environ.get("QSIT_OTHER_TRANSFORMERS")
"""A folder with another generation of transformers in it (pip install --target), to try the crossing for real."""

FILES = {
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "processor_config.json",
    "qsit.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("portable") / "tiny", official=False)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def saved(model, target, *, tokenizer=None, **more):
    settings = {"profile": None, "preprocessor": preprocessor_for(model.config), "chat_template": CHAT_TEMPLATE}
    return save_portable(model, tokenizer or tiny_tokenizer(), target, **(settings | more))


# ---- facts of the files, in whichever generation the tests run ----


def test_a_saved_folder_is_complete(folder):
    assert {path.name for path in folder.iterdir()} == FILES


def test_key_names_are_those_that_both_generations_read(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert metadata == {"format": "pt"}
    assert {name.split(".")[0] for name in names} == {
        "image_newline",
        "language_model",
        "multi_modal_projector",
        "vision_tower",
    }
    assert "vision_tower.vision_model.embeddings.patch_embedding.weight" in names
    assert "vision_tower.vision_model.encoder.layers.1.self_attn.q_proj.weight" in names
    assert "vision_tower.vision_model.post_layernorm.weight" in names
    assert "language_model.model.layers.1.mlp.down_proj.weight" in names


def test_a_tied_head_is_not_written_twice(folder):
    assert not any("lm_head" in name for name in load_file(folder / "model.safetensors"))


def test_an_untied_head_is_written_under_its_older_name(tmp_path):
    model = tiny_model(tiny_tokenizer(), official=False, tie=False)
    stored = load_file(saved(model, tmp_path / "untied") / "model.safetensors")
    assert torch.equal(stored["language_model.lm_head.weight"], model.lm_head.weight)


def test_rope_theta_stands_where_each_generation_looks(folder):
    text = read(folder / "config.json")["text_config"]
    assert text["rope_theta"] == 1000000.0
    assert text["rope_parameters"] == {"rope_theta": 1000000.0, "rope_type": "default"}


def test_sliding_windows_are_off_and_tying_is_said_twice(folder):
    config = read(folder / "config.json")
    assert config["text_config"]["sliding_window"] is None
    assert config["text_config"]["use_sliding_window"] is False
    assert config["tie_word_embeddings"] is config["text_config"]["tie_word_embeddings"] is True


def test_the_tokenizer_class_exists_in_both_generations(folder):
    settings = read(folder / "tokenizer_config.json")
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "extra_special_tokens" not in settings  # a list for 5.x, a mapping for 4.x


def test_processor_configs_lie_in_files_of_their_own(folder):
    assert read(folder / "preprocessor_config.json")["image_processor_type"] == "LlavaOnevisionImageProcessor"
    assert read(folder / "video_preprocessor_config.json")["video_processor_type"] == "LlavaOnevisionVideoProcessor"
    processor = read(folder / "processor_config.json")
    assert (processor["num_image_tokens"], processor["vision_aspect_ratio"]) == (64, "anyres_max_9")


def test_the_chat_template_is_written_for_both_generations(folder):
    assert (folder / "chat_template.jinja").read_text(encoding="utf-8") == CHAT_TEMPLATE
    assert read(folder / "chat_template.json") == {"chat_template": CHAT_TEMPLATE}


# ---- loading it again ----


def test_a_reopened_checkpoint_gives_bit_equal_logits(tmp_path):
    model = tiny_model(tiny_tokenizer(), official=False)
    target = saved(model, tmp_path / "tiny", profile=profile_of(tiny_tokenizer()))
    reopened = open_checkpoint(target, device=torch.device("cpu"), dtype=torch.float32).model
    assert torch.equal(picture_logits(reopened), picture_logits(model))


def test_the_tiny_model_sees_the_picture(folder):
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    assert (picture_logits(model, seed=0) - picture_logits(model, seed=1)).abs().max() > 0.01


def test_a_tokenizer_comes_back_with_the_same_ids_and_special_tokens(folder):
    before, after = tiny_tokenizer(), AutoTokenizer.from_pretrained(folder)
    text = "<|im_start|>user\n<image>\nIs it blurry? é 12345<|im_end|>\n"
    assert after.encode(text) == before.encode(text)
    assert after.decode(before.encode(text)) == text
    assert after.decode(before.encode(text), skip_special_tokens=True) == "user\n\nIs it blurry? é 12345\n"
    assert (after.eos_token, after.pad_token, after.padding_side) == ("<|im_end|>", "<|endoftext|>", "left")


def test_a_saved_folder_can_be_saved_again_unchanged(folder, tmp_path):
    checkpoint = open_checkpoint(folder, device=torch.device("cpu"), dtype=torch.float32)
    again = save_portable(
        checkpoint.model,
        checkpoint.tokenizer,
        tmp_path / "again",
        profile=checkpoint.profile,
        preprocessor=read_preprocessor(folder),
        chat_template=checkpoint.chat_template,
    )
    assert all((again / name).read_bytes() == (folder / name).read_bytes() for name in FILES)


def test_auto_processor_and_the_model_class_load_the_folder_as_it_is(folder):
    """What a user without this package does; pictures come first, whatever the order in the message."""
    pytest.importorskip("torchvision", reason="AutoProcessor of LLaVA-OneVision needs torchvision")
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "text", "text": "Is it sharp?"}, {"type": "image"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert prompt == "<|im_start|>user\n<image>\nIs it sharp?<|im_end|>\n<|im_start|>assistant\n"
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (150, 200, 3), dtype=np.uint8))
    inputs = processor(images=picture, text=prompt, return_tensors="pt")
    model, report = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad():
        assert model(**inputs).logits.isfinite().all()


def test_a_template_without_a_picture_and_with_an_answer_renders_plainly():
    tokenizer = tiny_tokenizer()
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": [{"type": "text", "text": "Yes"}]},
    ]
    text = tokenizer.apply_chat_template(messages, chat_template=CHAT_TEMPLATE, tokenize=False)
    assert text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"


def test_weights_are_written_in_the_dtype_asked_for(tmp_path):
    target = saved(tiny_model(tiny_tokenizer(), official=False), tmp_path / "half", dtype=torch.float16)
    assert {tensor.dtype for tensor in load_file(target / "model.safetensors").values()} == {torch.float16}
    assert read(target / "config.json")["dtype"] == "float16"


def test_a_large_checkpoint_is_written_in_shards_that_load(tmp_path, monkeypatch):
    monkeypatch.setattr(portable, "SHARD_SIZE", "100KB")
    model = tiny_model(tiny_tokenizer(), official=False)
    target = saved(model, tmp_path / "shards", profile=profile_of(tiny_tokenizer()))
    assert len(list(target.glob("model-*.safetensors"))) > 1
    reopened = open_checkpoint(target, device=torch.device("cpu"), dtype=torch.float32).model
    assert torch.equal(picture_logits(reopened), picture_logits(model))


def test_saving_over_an_older_checkpoint_leaves_none_of_its_weights(tmp_path, monkeypatch):
    model = tiny_model(tiny_tokenizer(), official=False)
    with monkeypatch.context() as patch:
        patch.setattr(portable, "SHARD_SIZE", "100KB")
        saved(model, tmp_path / "tiny")
    saved(model, tmp_path / "tiny")
    assert [path.name for path in (tmp_path / "tiny").glob("*.safetensors*")] == ["model.safetensors"]


def test_saving_without_a_profile_leaves_no_older_profile_behind(tmp_path):
    model = tiny_model(tiny_tokenizer(), official=False)
    saved(model, tmp_path / "tiny", profile=profile_of(tiny_tokenizer()))
    saved(model, tmp_path / "tiny", profile=None)
    assert not (tmp_path / "tiny" / "qsit.json").exists()


# ---- what transformers 5 itself saves ----


@pytest.fixture
def saved_by_5(folder, tmp_path):
    """Key names and rope_theta as transformers 5's own save_pretrained leaves them."""
    target = Path(shutil.copytree(folder, tmp_path / "five"))
    weights = {k.replace(".vision_model.", "."): v for k, v in load_file(target / "model.safetensors").items()}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    config = read(target / "config.json")
    del config["text_config"]["rope_theta"]
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return target


@pytest.mark.skipif(int(transformers.__version__.split(".")[0]) > 4, reason="transformers 5 reads what it wrote")
def test_what_transformers_5_saved_itself_is_refused_on_4_instead_of_silently_random(saved_by_5):
    with pytest.raises(WeightsError, match="37 missing.*37 unexpected.*save_portable"):
        open_checkpoint(saved_by_5, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.skipif(int(transformers.__version__.split(".")[0]) < 5, reason="transformers 4 cannot read it")
def test_what_transformers_5_saved_itself_opens_on_5(saved_by_5, folder):
    ours, theirs = (
        open_checkpoint(path, device=torch.device("cpu"), dtype=torch.float32).model for path in (folder, saved_by_5)
    )
    assert torch.equal(picture_logits(theirs), picture_logits(ours))


# ---- what cannot be saved ----


def test_a_weight_from_elsewhere_is_refused_by_name():
    with pytest.raises(ValueError, match="base_model.model.lm_head.weight.*merge adapters"):
        portable_name("base_model.model.lm_head.weight")


def test_a_head_that_differs_although_tied_is_refused(tmp_path):
    model = tiny_model(tiny_tokenizer(), official=False)
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    with pytest.raises(ValueError, match="ties the embeddings"):
        saved(model, tmp_path / "tiny")


def test_a_tokenizer_without_a_fast_backend_is_refused(tmp_path):
    class Slow:
        """Stands for 4.x's Python tokenizers."""

    with pytest.raises(ValueError, match="Slow has no fast backend"):
        saved(tiny_model(tiny_tokenizer(), official=False), tmp_path / "tiny", tokenizer=Slow())


def test_the_profile_travels_with_the_checkpoint(folder):
    assert ScoreProfile.load(folder) == profile_of(tiny_tokenizer())


# ---- the crossing itself, in float64: in float32 one run in four or five gave a logit that differed by 2e-4 ----

crossing = pytest.mark.skipif(
    OTHER is None, reason="set QSIT_OTHER_TRANSFORMERS to a folder that holds the other generation of transformers"
)

_COMPUTE = """
import sys, torch
from transformers import AutoProcessor, LlavaOnevisionForConditionalGeneration
AutoProcessor.from_pretrained(sys.argv[1])
model, report = LlavaOnevisionForConditionalGeneration.from_pretrained(
    sys.argv[1], dtype=torch.float32, output_loading_info=True
)
assert not report["missing_keys"] and not report["unexpected_keys"], report
from tests.tiny import picture_logits
torch.save(picture_logits(model.eval().double()), sys.argv[2])
"""
_WRITE = "import sys; from tests.tiny import tiny_checkpoint; tiny_checkpoint(sys.argv[1], official=False)"


def elsewhere(program, *arguments):
    """Run a program on the other generation of transformers."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(OTHER), str(ROOT)])}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr


@crossing
def test_a_checkpoint_written_here_gives_equal_logits_on_the_other_generation(folder, tmp_path):
    elsewhere(_COMPUTE, folder, tmp_path / "logits.pt")
    model = open_checkpoint(folder, device=torch.device("cpu"), dtype=torch.float32).model
    assert (torch.load(tmp_path / "logits.pt") - picture_logits(model.double())).abs().max() < 1e-5


@crossing
def test_a_checkpoint_written_on_the_other_generation_gives_equal_logits_here(tmp_path):
    elsewhere(_WRITE, tmp_path / "tiny")
    elsewhere(_COMPUTE, tmp_path / "tiny", tmp_path / "logits.pt")
    model = open_checkpoint(tmp_path / "tiny", device=torch.device("cpu"), dtype=torch.float32).model
    assert (torch.load(tmp_path / "logits.pt") - picture_logits(model.double())).abs().max() < 1e-5
