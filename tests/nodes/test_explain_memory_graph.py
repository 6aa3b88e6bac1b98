"""Explain, cancelling, and where the model's memory goes, run by a host's executor."""

import gc
import weakref

import pytest

from qsit_plugin.engines.batches import Budget
from tests.nodes.graphs import arrived, graph
from tests.nodes.helpers import batch, keep, photo


def explained(images, **changes):
    inputs = {"model": ["model", 0], "images": ["images", 0], "preset": "describe the quality", "question": ""}
    inputs |= {"max_new_tokens": 12, "temperature": 0.0, "sampling_seed": 0} | changes
    prompt = graph(images) | {"explain": {"class_type": "QSiT_Explain", "inputs": inputs}}
    del prompt["score"]
    return prompt | {"t": keep(["explain", 0], "text"), "r": keep(["explain", 1], "report")}


def test_every_image_gets_the_answer_of_the_library(host, nano):
    images = batch(photo(0), photo(1, blur=True))
    result = host.run(explained(images))
    arrays = [(i.numpy() * 255).round().astype("uint8") for i in images]
    expected = [answer.text for answer in nano.explain(arrays, max_new_tokens=12)]
    assert arrived("text") == expected
    assert arrived("report") == [f"1: {expected[0]}\n\n2: {expected[1]}"]
    assert [r["text"] for r in result.shown["explain"]["qsit"]] == expected


def test_an_own_question_is_asked_and_an_empty_one_refused(host, nano):
    images = batch(photo(0))
    host.run(explained(images, preset="own question", question="Is it blurry?"))
    array = (images[0].numpy() * 255).round().astype("uint8")
    assert arrived("text") == [nano.ask(array, "Is it blurry?", max_new_tokens=12).text]
    (error,) = host.run(explained(images, preset="own question", question=" ")).errors
    assert error["node_type"] == "QSiT_Explain" and "the question is empty" in error["exception_message"]


def test_a_question_with_the_image_token_is_refused(host):
    (error,) = host.run(explained(batch(photo(0)), preset="own question", question="What is <image>?")).errors
    assert "2 image tokens instead of one" in error["exception_message"]


@pytest.mark.parametrize("times", [3600, 360], ids=["beside no image", "beside this image"])
def test_a_question_longer_than_the_context_is_refused_at_once(host, nano, times):
    """Of fifty thousand characters and more, and of a length that only the base view would leave room for."""
    (error,) = host.run(explained(batch(photo(0)), preset="own question", question="is it blurry? " * times)).errors
    assert error["node_type"] == "QSiT_Explain"
    assert f"qsit-nano reads at most {nano.context:,}" in error["exception_message"]


def test_the_same_seed_gives_the_same_sampled_answer(host):
    for seed in (0xFFFFFFFFFFFFFFFF, 1, 0xFFFFFFFFFFFFFFFF):
        host.fresh()
        host.run(explained(batch(photo(0)), temperature=2.0, sampling_seed=seed))
    first, other, again = arrived("text")
    assert first == again != other


def test_cancelling_stops_between_tokens_and_nothing_is_given(host, monkeypatch):
    import comfy.model_management as mm

    from qsit_plugin.model import QSiT

    asked = []

    def iter_answers(self, *args, cancel, **options):
        def pressed():
            asked.append(1)
            if len(asked) == 3:
                mm.interrupt_current_processing()
            return cancel()

        return original(self, *args, cancel=pressed, **options)

    original = QSiT.iter_answers
    monkeypatch.setattr(QSiT, "iter_answers", iter_answers)
    result = host.run(explained(batch(photo(0), photo(1)), max_new_tokens=50))
    assert not result.success and arrived("text") == []
    assert len(asked) == 4, "both answers are asked about once more, and end"


def interrupted_at_every_batch(monkeypatch):
    """ComfyUI's interrupt is pressed while a batch is read; returns the list of the batches' sizes."""
    import comfy.model_management as mm

    from qsit_plugin.engines import level_logits

    batches = []
    original = level_logits.read_items

    def read_items(model, prompt, group):
        batches.append(len(group))
        mm.interrupt_current_processing()
        return original(model, prompt, group)

    monkeypatch.setattr(level_logits, "read_items", read_items)
    return batches


def test_cancelling_stops_scoring_between_images(host, monkeypatch):
    batches = interrupted_at_every_batch(monkeypatch)
    result = host.run(graph(batch(photo(0), photo(1), photo(2))) | {"k": keep(["score", 1], "score")})
    assert not result.success and arrived("score") == []
    assert batches == [1]


def test_cancelling_stops_a_quality_map_between_its_batches_of_regions(host, monkeypatch):
    batches = interrupted_at_every_batch(monkeypatch)
    one = Budget(tokens=1, cpu_tokens=1)  # as for large models: every region is a batch
    monkeypatch.setattr("qsit_plugin.engines.level_logits.SCORING", one)
    prompt = graph(batch(photo(0)))
    del prompt["score"]  # it would run first and be the one that is interrupted
    inputs = {"model": ["model", 0], "images": ["images", 0], "window": 32, "overlap": 0.0, "strength": 1.0}
    prompt["map"] = {"class_type": "QSiT_QualityMap", "inputs": inputs}
    result = host.run(prompt | {"k": keep(["map", 2], "mask")})
    assert not result.success and arrived("mask") == []
    assert batches == [1]


def loaded():
    import comfy.model_management as mm

    return [m.model for m in mm.current_loaded_models]


def test_the_model_is_in_comfyuis_hands_and_comes_back_after_unload(host):
    import comfy.model_management as mm

    assert host.run(graph(batch(photo(0))) | {"k": keep(["score", 1], "score")}).success
    (patcher,) = loaded()
    assert patcher.loaded_size() > 0
    mm.unload_all_models()
    assert loaded() == []
    assert host.run(graph(batch(photo(1))) | {"k": keep(["score", 1], "score")}).success
    assert loaded() == [patcher], "the same model must be loaded again, not a second one"


def test_the_model_can_be_evicted_for_another_one_and_comes_back(host):
    import comfy.model_management as mm

    if host.name != "ComfyUI":
        pytest.skip("eviction is ComfyUI's own; the stand-in has none")
    assert host.run(graph(batch(photo(0))) | {"k": keep(["score", 1], "score")}).success
    mm.free_memory(1e15, mm.get_torch_device())
    assert loaded() == []
    assert host.run(graph(batch(photo(1))) | {"k": keep(["score", 1], "score")}).success
    assert len(arrived("score")) == 2 and len(loaded()) == 1


def test_nothing_keeps_the_model_once_comfyuis_cache_lets_go(host):
    import comfy.model_management as mm

    host.run(graph(batch(photo(0))))
    ref = weakref.ref(loaded()[0].model)
    mm.unload_all_models()
    host.fresh()
    gc.collect()
    assert ref() is None


def test_running_out_of_memory_halves_the_batch_instead_of_failing(host, monkeypatch):
    import torch

    from qsit_plugin.engines import level_logits
    from qsit_plugin.nodes import handle

    sizes = []
    original = level_logits.read_items

    def read_items(model, prompt, group):
        sizes.append(len(group))
        if len(group) > 1:
            raise torch.OutOfMemoryError("no memory")
        return original(model, prompt, group)

    monkeypatch.setattr(level_logits, "read_items", read_items)
    images = batch(photo(0), photo(1))
    assert host.run(graph(images)).success
    host.fresh()
    monkeypatch.setattr(handle, "one_by_one", lambda model: False)  # as on a GPU
    result = host.run(graph(images) | {"k": keep(["score", 2], "list")})
    assert result.success and len(arrived("list")) == 2
    assert sizes == [1, 1, 2, 1, 1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_an_explicit_dtype_is_kept_and_said_in_every_record(host, dtype):
    prompt = graph(batch(photo(0)))
    prompt["model"]["inputs"]["dtype"] = dtype
    result = host.run(prompt)
    assert [r["dtype"] for r in result.shown["score"]["qsit"]] == [dtype]
