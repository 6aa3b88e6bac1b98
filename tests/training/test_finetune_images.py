"""Rows without images and with several: the model sees what transformers' processor would show it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from tests.core.reference import Released
from tests.training.runs import Data, rating, require_training

require_training()

import qsit_plugin  # noqa: E402
from qsit_plugin.chat import stop_ids  # noqa: E402
from qsit_plugin.engines.torch_engine import normalise  # noqa: E402
from qsit_plugin.images.reading import read_image  # noqa: E402
from qsit_plugin.row_file import read_rows  # noqa: E402
from qsit_plugin.training import run as finetune  # noqa: E402
from qsit_plugin.training.config import ConfigError  # noqa: E402
from qsit_plugin.training.data.collator import Collator  # noqa: E402
from qsit_plugin.training.data.dataset import QualityDataset, supervised_texts  # noqa: E402
from qsit_plugin.training.data.formats import row_of  # noqa: E402
from qsit_plugin.training.data.rows import RowError, TrainingRow, from_record, to_llava, to_record, write_rows  # noqa: E402
from qsit_plugin.training.forward import forward  # noqa: E402
from qsit_plugin.training.losses import token_losses, total_loss  # noqa: E402
from qsit_plugin.training.parameters import set_trainable  # noqa: E402
from qsit_plugin.training.validation import validate  # noqa: E402

IMAGE = {"type": "image"}


def conversation(images: tuple[str, ...], *turns: list[Any]) -> TrainingRow:
    """``turns``: questions and answers in turn, each a list of texts and ``IMAGE``."""
    messages = [
        {
            "role": ("user", "assistant")[number % 2],
            "content": [part if part is IMAGE else {"type": "text", "text": part} for part in turn],
        }
        for number, turn in enumerate(turns)
    ]
    return TrainingRow("+".join(images) or "text", images, "interpret", messages, source="talk")


ROWS = {
    "text": conversation((), ["What is blur?"], ["A lack of sharpness."], ["And noise?"], ["Grain."]),
    "one": conversation(("1.png",), [IMAGE, "Is it noisy?"], ["It is noisy."]),
    "two": conversation(("0.png", "3.png"), [IMAGE, IMAGE, "Which is sharper?"], ["The first."]),
    "between": conversation(("2.png", "0.png"), ["Compare ", IMAGE, " with ", IMAGE, "."], ["They differ."]),
    "later": conversation(
        ("0.png", "2.png", "4.png"), [IMAGE, "Is it noisy?"], ["Yes."], [IMAGE, IMAGE, "And these?"], ["They are not."]
    ),
    "late": conversation(("3.png",), ["Do you know noise?"], ["Yes."], [IMAGE, "Is it noisy?"], ["It is."]),
}


@pytest.fixture(scope="module")
def model(tuning: Data) -> qsit_plugin.QSiT:
    return qsit_plugin.load(tuning.base, device="cpu")


def dataset_of(tuning: Data, model: qsit_plugin.QSiT, rows, **options) -> QualityDataset:
    opened = model.checkpoint
    settings = {"max_tokens": 32768, "stop_ids": stop_ids(opened.model, opened.tokenizer), "tiling": opened.tiling}
    given = {"conversation": model.conversation, "profile": opened.profile, **settings, **options}
    return QualityDataset(rows, tuning.folder, **given)


def batch_of(tuning: Data, model: qsit_plugin.QSiT, rows) -> dict[str, torch.Tensor]:
    dataset = dataset_of(tuning, model, rows)
    config = tuning.config(tuning.folder, normalize="token", level_loss="hard")
    return Collator(model.conversation.image_token_id, 0, config)([dataset[n] for n in range(len(rows))])


def processed(tuning: Data, model: qsit_plugin.QSiT, row: TrainingRow) -> dict[str, torch.Tensor]:
    """What transformers' own processor makes of a row's conversation."""
    pytest.importorskip("torchvision", reason="AutoProcessor of LLaVA-OneVision needs torchvision")
    processor = Released(tuning.base).processor
    text = processor.apply_chat_template(row.messages)
    images = [[read_image(tuning.folder / name) for name in row.images]] if row.images else None
    return dict(processor(text=[text], images=images, return_tensors="pt"))


def loss_of(model: qsit_plugin.QSiT, batch: dict[str, torch.Tensor]) -> float:
    logits = forward(model.checkpoint.model, batch, model.checkpoint.tiling)
    losses = token_losses(logits, batch, model.profile.level_token_ids, soft=False)
    return float(total_loss(losses, batch, batch["amounts"], "token"))


@pytest.mark.parametrize("kind", ROWS)
@torch.no_grad()
def test_tokens_images_and_loss_are_those_of_transformers_processor_and_model(tuning, model, kind: str) -> None:
    row, network = ROWS[kind], model.checkpoint.model
    expected, batch = processed(tuning, model, row), batch_of(tuning, model, [row])
    length = batch["input_ids"].shape[1]
    assert torch.equal(expected["input_ids"][:, :length], batch["input_ids"])
    assert model.checkpoint.tokenizer.decode(expected["input_ids"][0, length:]).strip() == ""
    if row.images:
        seen = {name: expected[name] for name in ("pixel_values", "image_sizes", "batch_num_images")}
        theirs = torch.cat(network.model.get_image_features(**seen).pooler_output)
        own = {"pixel_values": normalise(model.checkpoint.tiling, batch["tiles"]), "image_sizes": batch["image_sizes"]}
        ours = torch.cat(network.model.get_image_features(**own, batch_num_images=batch["images"]).pooler_output)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    labels = torch.full_like(expected["input_ids"], -100)
    labels[0, batch["places"] + 1] = batch["targets"][0]
    assert loss_of(model, batch) == pytest.approx(float(network(**expected, labels=labels).loss), abs=1e-5)


@torch.no_grad()
def test_rows_with_none_one_and_several_images_share_a_batch(tuning: Data, model) -> None:
    rows = [*ROWS.values(), rating("3.png", 30.0, tuning.profile)]
    together = batch_of(tuning, model, rows)
    assert together["images"].tolist() == [0, 1, 2, 2, 3, 1, 1]
    logits = forward(model.checkpoint.model, together, model.checkpoint.tiling)
    for number, row in enumerate(rows):
        alone = batch_of(tuning, model, [row])
        expected = forward(model.checkpoint.model, alone, model.checkpoint.tiling)[0]
        columns = [together["places"].tolist().index(place) for place in alone["places"].tolist()]
        torch.testing.assert_close(logits[number, columns], expected, atol=1e-5, rtol=0)
        assert torch.equal(together["targets"][number, columns], alone["targets"][0])


def test_a_batch_of_text_alone_gives_every_trained_weight_a_gradient_as_ddp_needs(tuning: Data, tmp_path: Path) -> None:
    opened = qsit_plugin.load(tuning.base, device="cpu")
    network, batch = opened.checkpoint.model, batch_of(tuning, opened, [ROWS["text"], ROWS["text"]])
    expected = forward(network.requires_grad_(False), batch, opened.checkpoint.tiling)
    set_trainable(network, ("language", "projector", "vision"))
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(network, find_unused_parameters=False)
        for _ in range(2):  # the second forward pass raises where a weight had no gradient in the first
            found = forward(wrapped, batch, opened.checkpoint.tiling)
            found.logsumexp(-1).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    assert all(weight.grad is not None for weight in trained.values())
    assert not any(trained[name].grad.any() for name in trained if "vision" in name or "projector" in name)


def test_the_tower_does_not_run_for_text_alone_where_it_is_not_trained(tuning: Data) -> None:
    opened = qsit_plugin.load(tuning.base, device="cpu")
    network, batch = opened.checkpoint.model, batch_of(tuning, opened, [ROWS["text"]])
    set_trainable(network, ("language",))
    runs: list[int] = []
    network.model.vision_tower.register_forward_hook(lambda *_: runs.append(1))
    forward(network, batch, opened.checkpoint.tiling).sum().backward()
    assert runs == []
    set_trainable(network, ("vision",))
    forward(network, batch, opened.checkpoint.tiling).sum().backward()
    assert runs == [1]


def test_max_tokens_counts_all_images_of_a_row(tuning: Data, model) -> None:
    length = dataset_of(tuning, model, [ROWS["two"]]).lengths[0]
    assert length == batch_of(tuning, model, [ROWS["two"]])["input_ids"].shape[1]
    with pytest.raises(
        ConfigError, match=rf"{length} tokens, 130 of its images 0.png, 3.png; allowed are {length - 1}"
    ):
        dataset_of(tuning, model, [ROWS["two"]], max_tokens=length - 1)


def test_every_image_is_marked_in_the_text_that_is_shown(tuning: Data, model) -> None:
    (text,) = supervised_texts(dataset_of(tuning, model, [ROWS["two"]]), model.checkpoint.tokenizer)
    assert "[image]\n[image]\nWhich is sharper?" in text


def test_a_run_trains_on_rows_with_any_number_of_images(tuning: Data, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [*ROWS.values(), *tuning.rows])
    config = tuning.config(tmp_path / "out", data=str(tmp_path / "rows.jsonl"), batch_size=1, memory_probe=True)
    finetune.run(config, say=print)
    assert len(list(read_rows(tmp_path / "out" / "log.jsonl"))) == len(ROWS) + len(tuning.rows)


@pytest.mark.parametrize("kind", ["text", "two"])
def test_validation_rows_have_one_image_each(tuning: Data, model, tmp_path: Path, kind: str) -> None:
    row = ROWS[kind]
    message = rf"has {len(row.images)} images: a model is validated on rows of one image each; take it out"
    with pytest.raises(RowError, match=message):
        validate(model, [row], tuning.folder)
    write_rows(tmp_path / "held.jsonl", [*tuning.rows, row])
    with pytest.raises(ConfigError, match=message):
        finetune.prepare(tuning.config(tmp_path / "out", validation=str(tmp_path / "held.jsonl")), say=print)


@pytest.mark.parametrize("kind", ROWS)
def test_a_row_is_the_same_after_both_file_forms(kind: str) -> None:
    row = ROWS[kind]
    assert from_record(to_record(row)) == row
    llava = to_llava(row)
    assert llava.get("image") == {"text": None, "one": "1.png", "late": "3.png"}.get(kind, list(row.images))
    assert ("image" in llava) == (kind != "text")
    assert row_of(llava, 0, "talk") == row


def test_quality_and_group_are_written_where_they_are_known_only(tuning: Data) -> None:
    plain = to_record(tuning.rows[0])
    assert list(plain) == ["id", "image", "task", "messages", "mos", "level_probs", "source", "split"]
    known = from_record(plain | {"quality": 0.95, "group": "scene 1"})
    assert (known.quality, known.group) == (0.95, "scene 1")
    assert from_record(to_record(known)) == known
    for change, message in (({"quality": 1.5}, "a number from 0 to 1, got 1.5"), ({"group": 3}, "must be a text")):
        with pytest.raises(RowError, match=message):
            from_record(plain | change)


def test_images_and_their_places_in_a_conversation_must_agree(tuning: Data) -> None:
    two, score = to_record(ROWS["two"]), to_record(tuning.rows[0])
    answer_with_image = [two["messages"][0], {"role": "assistant", "content": [{"type": "text", "text": "So."}, IMAGE]}]
    for record, change, message in (
        (two, {"image": "0.png"}, "it names 1 images, but its conversation shows 2"),
        (two, {"image": None}, "it names 0 images, but its conversation shows 2"),
        (two, {"image": ["0.png", "../3.png"]}, "must be relative"),
        (two, {"image": ["0.png"] * 3, "messages": answer_with_image}, "only questions show some"),
        (score, {"image": ["0.png", "1.png"], "messages": two["messages"]}, "a rating, which must show one image"),
        (score, {"image": None, "messages": to_record(ROWS["text"])["messages"]}, "it shows 0 images"),
    ):
        with pytest.raises(RowError, match=message):
            from_record(record | change)
