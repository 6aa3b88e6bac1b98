"""The public interface on a tiny random checkpoint: batches, looks, questions, maps."""

from __future__ import annotations

import gc
import io
import math
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import qsit_plugin as qsit
from qsit_plugin.images.reading import ImageError
from tests.tiny import tiny_checkpoint

SIZES = [(64, 48), (300, 200), (128, 128), (90, 400), (257, 255), (700, 500)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return qsit.load(tiny_checkpoint(tmp_path_factory.mktemp("tiny"), official=False), device="cpu")


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]


class Counter:
    """Counts passes through a module and the tokens or tiles that went in, by a real forward hook."""

    def __init__(self, module):
        self.passes, self.items = 0, 0
        self.handle = module.register_forward_pre_hook(self._count)

    def _count(self, module, args):
        self.passes += 1
        self.items += args[0].shape[:-1].numel() if args[0].ndim == 3 else len(args[0])  # tokens, or tiles

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.handle.remove()


def language_counter(model):
    return Counter(model.engine.hf.model.language_model.layers[0].input_layernorm)


def vision_counter(model):
    tower = model.engine.hf.model.vision_tower
    return Counter(getattr(tower, "vision_model", tower).embeddings)


def test_a_batch_of_mixed_sizes_equals_single_images(model, pictures):
    together = model.level_logits(pictures)
    alone = torch.cat([model.level_logits(picture) for picture in pictures])
    assert together.std(0).min() > 1e-4, "the pictures must differ, else this test proves nothing"
    assert torch.allclose(together, alone, atol=1e-4, rtol=0)


def test_one_image_in_one_score_out_and_a_list_in_a_list_out(model, pictures):
    assert isinstance(model.score(pictures[0]), qsit.Score)
    assert [s.value for s in model.score(pictures[:1])] == [model.score(pictures[0]).value]


def test_a_tensor_batch_is_a_list_of_images(model):
    batch = torch.rand(3, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    scores = model.score(batch)
    assert [s.value for s in scores] == pytest.approx([model.score(image).value for image in batch], abs=1e-6)
    assert (scores[0].width, scores[0].height) == (80, 64)


def test_path_bytes_and_picture_agree_exactly(model, pictures, tmp_path):
    file = tmp_path / "p.png"
    pictures[1].save(file)
    values = {model.score(source).value for source in (pictures[1], file, str(file), file.read_bytes())}
    assert len(values) == 1


def test_a_score_costs_one_prefill_and_no_more(model, pictures):
    with language_counter(model) as counter:
        model.score(pictures[1])
    assert counter.passes == 1


def test_several_questions_on_one_look_cost_one_vision_pass_and_one_image_prefix(model, pictures):
    with vision_counter(model) as vision, language_counter(model) as language:
        look = model.encode(pictures[1])
        look.score()
        look.choose("Which?", ["noise", "blur"])
        look.choose("Which is it?", ["noise", "blur", "banding"])
    image_tokens = model.engine.tiling.token_count(300, 200)
    assert vision.passes == 1
    assert image_tokens < language.items < 2 * image_tokens, "the image went through the language model twice"


def test_the_shared_prefix_changes_nothing(model, pictures):
    look = model.encode(pictures[1])
    look.choose("Which?", ["noise", "blur"])
    assert look.score().value == pytest.approx(model.score(pictures[1]).value, abs=1e-5)
    first = look.choose("Which?", ["noise", "blur"])
    look.ask("What is wrong?", max_new_tokens=5)
    assert look.choose("Which?", ["noise", "blur"]) == first


def test_a_text_first_template_shares_no_prefix_and_still_agrees(tmp_path, pictures):
    folder = tiny_checkpoint(tmp_path / "text-first", official=False)
    model = qsit.load(folder, device="cpu")
    model.conversation.chat_template = (
        "{% for m in messages %}user\n{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}"
        "{% endif %}{% endfor %}<image>{% endfor %}assistant\n"
    )
    look = model.encode(pictures[0])
    questions = ["Is it blurry?", "What about the noise in it?"]
    shared = [look.choose(question, ["yes", "no"]) for question in questions]
    alone = [model.choose(pictures[0], question, ["yes", "no"]) for question in questions]
    assert np.allclose(shared, alone, atol=1e-6)


def test_choose_gives_probabilities_in_the_order_of_the_options(model, pictures):
    shares = model.choose(pictures[0], "Which is most visible?", ["noise", "blur", "banding"])
    assert len(shares) == 3
    assert sum(shares) == pytest.approx(1.0)


@pytest.mark.parametrize("options", [[], ["one"], [str(i) for i in range(27)]])
def test_choose_refuses_too_few_and_too_many_options(model, pictures, options):
    with pytest.raises(ValueError, match="2 to 26 options"):
        model.choose(pictures[0], "Which?", options)


WRONG_OPTIONS = {
    "one text": ("noise", TypeError, "must be a list of texts.*got 'noise'"),
    "bytes": (b"noise", TypeError, "must be a list of texts"),
    "a set": ({"noise", "blur"}, TypeError, "must be a list of texts"),
    "a dictionary": ({"noise": 1, "blur": 2}, TypeError, "must be a list of texts"),
    "None": (None, TypeError, "must be a list of texts.*got None"),
    "numbers": (["noise", 3], TypeError, "every option must be a text, got 3"),
    "a list in it": (["noise", ["blur"]], TypeError, r"every option must be a text, got \['blur'\]"),
    "an empty one": (["noise", " "], ValueError, "option 2 of 2 is empty"),
    "one twice": (["noise", "blur", "noise "], ValueError, "option 'noise' stands twice"),
}


@pytest.mark.parametrize("case", WRONG_OPTIONS)
def test_choose_refuses_what_is_not_a_list_of_different_texts(model, pictures, case):
    options, error, message = WRONG_OPTIONS[case]
    for choose in (model.choose, lambda _, *asked: model.encode(pictures[0]).choose(*asked)):
        with pytest.raises(error, match=message):
            choose(pictures[0], "Which?", options)


@pytest.mark.parametrize("question", [["Is it blurry?"], None, 3, b"Is it blurry?"])
def test_a_question_that_is_no_text_is_refused(model, pictures, question):
    for way in (model.ask, model.stream, lambda *asked: model.choose(*asked, ["yes", "no"])):
        with pytest.raises(TypeError, match="a question is one text, got"):
            way(pictures[0], question)


ONE_IMAGE = {
    "a path": "photo.jpg",
    "a Path": Path("photo.jpg"),
    "bytes": b"\xff\xd8",
    "a picture": Image.new("RGB", (30, 20)),
    "an array": np.zeros((30, 20, 3), np.uint8),
    "a tensor": torch.zeros(3, 30, 20),
    "an open file": io.BytesIO(b"\xff\xd8\n"),
    "an open file at its end": io.BytesIO(),
}


@pytest.mark.parametrize("kind", ONE_IMAGE)
@pytest.mark.parametrize("errors", ["raise", "return"])
def test_one_image_where_several_are_expected_is_not_taken_apart(model, kind, errors):
    with pytest.raises(TypeError, match="one image where several are expected; put it into a list"):
        list(model.iter_scores(ONE_IMAGE[kind], errors=errors))


def test_iter_scores_takes_lists_batches_arrays_of_names_and_iterators(model, tmp_path, pictures):
    names = [str(tmp_path / f"{number}.png") for number in range(2)]
    for name, image in zip(names, pictures, strict=False):
        image.save(name)
    expected = [score.value for score in model.score(names)]
    for several in (names, tuple(names), np.array(names), iter(names)):
        assert [score.value for score in model.iter_scores(several)] == pytest.approx(expected, abs=1e-6)
    assert len(list(model.iter_scores(torch.rand(3, 3, 30, 20)))) == 3


def test_rank_and_compare_take_one_name_as_one_image(model, tmp_path, pictures):
    name = str(tmp_path / "p.png")
    pictures[0].save(name)
    assert [index for index, _ in model.rank(name)] == [0]
    assert model.compare(name, name).score_a == model.score([name, name])[0]
    with pytest.raises(ImageError, match="type list"):
        model.compare([name, name], name)


def test_attributes_are_six_shares(model, pictures):
    attributes = model.attributes(pictures[0])
    assert list(attributes) == ["sharpness", "noise", "exposure", "color", "contrast", "compression"]
    assert all(0.0 <= share <= 1.0 for share in attributes.values())


def test_rank_is_best_first_and_stable(model, pictures):
    ranked = model.rank([*pictures, pictures[0]])
    values = [score.value for _, score in ranked]
    assert values == sorted(values, reverse=True)
    order = [index for index, _ in ranked]
    assert order.index(0) < order.index(len(pictures))


def test_compare_of_an_image_with_itself_is_even(model, pictures):
    assert model.compare(pictures[0], pictures[0]).probability_a_better == pytest.approx(0.5, abs=1e-6)


def test_a_bad_item_in_a_list_raises_and_can_be_returned_in_its_place(model, pictures):
    mixed = [pictures[0], b"no image", pictures[1]]
    with pytest.raises(ImageError):
        model.score(mixed)
    good, bad, other = model.score(mixed, errors="return")
    assert isinstance(bad, ImageError)
    assert [good.value, other.value] == pytest.approx([s.value for s in model.score([pictures[0], pictures[1]])])


def test_an_unknown_errors_mode_is_refused(model, pictures):
    with pytest.raises(ValueError, match='"raise" or "return"'):
        model.score(pictures, errors="ignore")


def test_an_empty_list_gives_an_empty_list(model):
    assert model.score([]) == []
    assert model.level_logits([]).shape == (0, 5)


def test_scores_come_one_by_one_while_the_source_still_runs(model, pictures):
    given = []

    def source():
        for i in range(500):
            given.append(i)
            yield pictures[0]

    scores = model.iter_scores(source())
    next(scores)
    scores.close()
    assert len(given) < 500


def test_scores_of_the_images_before_a_bad_one_come_before_its_error(model, pictures, tmp_path):
    scores = model.iter_scores([pictures[0], pictures[1], tmp_path / "missing.png", pictures[0]])
    expected = [score.value for score in model.score(pictures[:2])]
    assert [next(scores).value for _ in range(2)] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ImageError, match=r"missing\.png"):
        next(scores)


def test_greedy_text_is_the_same_each_time_and_as_streamed(model, pictures):
    answer = model.ask(pictures[0], "What is wrong?", max_new_tokens=8)
    assert answer == model.ask(pictures[0], "What is wrong?", max_new_tokens=8)
    assert "".join(model.stream(pictures[0], "What is wrong?", max_new_tokens=8)).strip() == answer.text


def test_sampling_follows_its_seed_and_leaves_the_global_random_state_alone(model, pictures):
    state = torch.get_rng_state()
    texts = [model.ask(pictures[0], "Why?", max_new_tokens=10, temperature=2.0, seed=s).text for s in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1
    assert torch.equal(torch.get_rng_state(), state)


def test_cancel_ends_an_answer(model, pictures):
    asked = iter(range(100))
    answer = model.ask(pictures[0], "Why?", max_new_tokens=50, cancel=lambda: next(asked) >= 3)
    assert answer.finish_reason == "cancelled"
    assert answer.tokens <= 3


def test_an_empty_question_is_refused(model, pictures):
    with pytest.raises(ValueError, match="empty"):
        model.ask(pictures[0], "  ")


def test_the_image_token_in_a_question_is_refused(model, pictures):
    with pytest.raises(ValueError, match="2 image tokens instead of one"):
        model.ask(pictures[0], "What is <image>?")


def test_a_look_of_another_model_is_refused(model, pictures, tmp_path):
    other = qsit.load(tiny_checkpoint(tmp_path / "other", official=False, seed=1), device="cpu")
    with pytest.raises(ValueError, match="encode the image again"):
        other.score(other_look := model.encode(pictures[0]))
    assert model.score(other_look).value == pytest.approx(model.score(pictures[0]).value, abs=1e-5)


def test_a_quality_map_covers_the_image_and_stays_in_range(model, pictures):
    image = pictures[5]
    local = model.quality_map(image, window=200)
    assert local.shape == (500, 700)
    assert local.dtype == np.float32
    assert 0.0 <= local.min() < local.max() <= 1.0


def test_a_quality_map_of_one_region_is_the_score_of_the_image(model, pictures):
    local = model.quality_map(pictures[0], window=64)
    assert np.allclose(local, model.score(pictures[0]).value, atol=1e-6)


def test_a_quality_map_tells_of_each_region_and_can_be_stopped_there(model, pictures):
    seen = []
    model.quality_map(pictures[1], window=64, overlap=0.0, on_region=lambda: seen.append(1))
    regions = math.ceil(pictures[1].width / 64) * math.ceil(pictures[1].height / 64)
    assert len(seen) == regions > 1

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.quality_map(pictures[1], window=64, overlap=0.0, on_region=stop)


@pytest.mark.parametrize(("window", "overlap", "message"), [(3, 0.5, "at least 8"), (64, 0.95, "between 0 and 0.9")])
def test_a_quality_map_refuses_senseless_regions(model, pictures, window, overlap, message):
    with pytest.raises(ValueError, match=message):
        model.quality_map(pictures[0], window=window, overlap=overlap)


def test_exif_rotation_is_off_by_default_and_says_so_when_on(model, tmp_path, pictures):
    photo = tmp_path / "sideways.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to view
    pictures[1].save(photo, exif=exif)
    plain = model.score(photo)
    turned = qsit.load(model.folder, device="cpu", exif_rotation=True).score(photo)
    assert (plain.width, plain.height, plain.mode) == (300, 200, "released")
    assert (turned.width, turned.height, turned.mode) == (200, 300, "EXIF rotation")


def test_half_of_a_surrogate_pair_is_refused_before_a_tokenizer_sees_it():
    from qsit_plugin.chat import check_options, check_question

    with pytest.raises(ValueError, match="half of a surrogate pair"):
        check_question("sharp \ud800?")
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        check_options(["\ud800", "b"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_look_goes_on_after_the_model_was_cast(tmp_path, pictures, dtype):
    """``metric.half()`` casts the very weights; the key-value cache that the look kept has the old type."""
    model = qsit.load(tiny_checkpoint(tmp_path, official=False), device="cpu")
    look = model.encode(pictures[1])
    before = look.score().value
    model.checkpoint.model.to(dtype)
    assert look.score().value == pytest.approx(before, abs=0.02)
    assert look.ask("Is it blurry?", max_new_tokens=2) == model.ask(pictures[1], "Is it blurry?", max_new_tokens=2)


@pytest.mark.parametrize("temperature", [1e-30, 1e-40, 5e-324])
def test_the_smallest_temperatures_are_greedy(model, pictures, temperature):
    greedy = model.ask(pictures[0], "Is it blurry?", max_new_tokens=3)
    assert model.ask(pictures[0], "Is it blurry?", max_new_tokens=3, temperature=temperature) == greedy


def test_a_look_that_is_dropped_gives_its_memory_back_at_once(model, pictures):
    """Not when Python next looks for cycles: that counts objects, and a large photo's cache may be 426 MB of a GPU."""
    look = model.encode(pictures[0])
    look.ask("Is it blurry?", max_new_tokens=2)
    list(look.stream(max_new_tokens=2))
    look.attributes()
    dropped, cache = weakref.ref(look), weakref.ref(look.prefix(model.prompt("Is it blurry?").before, model.engine))
    gc.disable()
    try:
        del look
        assert dropped() is None
        assert cache() is None
    finally:
        gc.enable()
