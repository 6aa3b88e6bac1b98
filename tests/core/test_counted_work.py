"""Work is counted, not timed, by hooks on the real modules: what grows here makes every machine slower."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from torch.overrides import TorchFunctionMode

import qsit_plugin as qsit
from tests.tiny import tiny_checkpoint

SIZES = [(80, 60), (300, 200), (129, 127), (40, 300), (256, 256), (500, 90), (200, 150), (64, 64)]
QUESTIONS = ["Is it blurry?", "Is it noisy?", "Which distortion is most visible in this image?"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return qsit.load(tiny_checkpoint(tmp_path_factory.mktemp("tiny"), official=False), device="cpu")


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]


class Work:
    """Tiles of the vision tower, tokens of the first and the last text layer, rows and positions of the head."""

    def __init__(self) -> None:
        self.vision_passes = self.tiles = self.tokens = self.head_positions = 0
        self.level_rows: list[tuple[int, int]] = []


@contextlib.contextmanager
def counted(model: qsit.QSiT) -> Iterator[Work]:
    work, hf = Work(), model.engine.hf
    tower, layers = hf.model.vision_tower, hf.model.language_model.layers

    def tiles(module, args):
        work.vision_passes += 1
        work.tiles += len(args[0])

    def tokens(module, args):
        work.tokens += args[0].numel() // args[0].shape[-1]

    def head(module, args):
        work.head_positions += args[0].numel() // args[0].shape[-1]

    handles = [
        getattr(tower, "vision_model", tower).embeddings.register_forward_pre_hook(tiles),
        layers[0].input_layernorm.register_forward_pre_hook(tokens),
        hf.lm_head.register_forward_pre_hook(head),
    ]
    try:
        with _LevelRows(work, len(hf.lm_head.weight)):
            yield work
    finally:
        for handle in handles:
            handle.remove()


class _LevelRows(TorchFunctionMode):
    """Notes (images, rows) of every float32 product with rows picked out of the head."""

    def __init__(self, work: Work, vocabulary: int) -> None:
        super().__init__()
        self.work, self.vocabulary = work, vocabulary

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if (
            getattr(func, "__name__", "") in ("matmul", "__matmul__")
            and result.ndim == 2
            and result.shape[1] < self.vocabulary
        ):
            self.work.level_rows.append(tuple(result.shape))
        return result


def test_a_score_and_three_questions_are_one_vision_pass_and_the_image_tokens_once(model, pictures):
    size, tiling = SIZES[1], model.engine.tiling
    prompts = [model.prompt(model.profile.question, model.profile.answer_prefix), *map(model.prompt, QUESTIONS)]
    with counted(model) as work:
        look = model.encode(pictures[1])
        look.score()
        answers = [look.ask(question, max_new_tokens=4) for question in QUESTIONS]
    assert (work.vision_passes, work.tiles) == (1, tiling.tile_count(*size))
    written = sum(answer.tokens - 1 for answer in answers)  # the last token of an answer is not read again
    ends = sum(answer.finish_reason == "stop" for answer in answers)
    texts = len(prompts[0].before) + sum(len(prompt.after) for prompt in prompts)
    assert work.tokens == tiling.token_count(*size) + texts + written + ends


def test_a_batch_of_eight_runs_no_padded_tile_and_no_padded_token(model, pictures):
    tiling = model.engine.tiling
    prompt = model.prompt(model.profile.question, model.profile.answer_prefix)
    with counted(model) as work:
        model.score(pictures)
    assert work.tiles == sum(tiling.tile_count(*size) for size in SIZES)
    images = sum(tiling.token_count(*size) for size in SIZES)
    assert work.tokens == images + len(SIZES) * (len(prompt.before) + len(prompt.after))


def test_level_logits_take_five_rows_of_the_head_and_all_rows_see_only_the_last_token(model, pictures):
    with counted(model) as work:
        model.score(pictures)
    assert sum(images for images, _ in work.level_rows) == len(pictures)
    assert {rows for _, rows in work.level_rows} == {5}
    assert work.head_positions == len(pictures)  # for the level mass


def test_a_long_list_costs_as_much_as_its_parts(model, pictures):
    with counted(model) as once:
        model.score(pictures)
    with counted(model) as often:
        model.score(pictures * 3)
    assert (often.tiles, often.tokens, often.head_positions) == (3 * once.tiles, 3 * once.tokens, 24)


class HostReads(TorchFunctionMode):
    """Counts what would make the host wait for a GPU: Python reading the values of a tensor."""

    NAMES = ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in self.NAMES:
            self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_a_pass_is_waited_for_as_often_however_many_images_it_holds(model, pictures):
    def reads(images) -> list[str]:
        tiling = model.engine.tiling
        tokens = model.engine.encode([tiling.cut(image) for image in images], [image.size for image in images])
        with HostReads() as mode:
            model.engine.read(model.prompt("Is it sharp?"), tokens, range(5))
        return mode.names

    assert len(reads(pictures[:1] * 8)) == len(reads(pictures[:1])) > 0
