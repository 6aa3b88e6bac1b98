"""The ONNX engine by itself: generation, copies, forks, weights."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from safetensors.torch import save_file

import qsit_plugin as qsit
from qsit_plugin.engines import onnx_engine
from qsit_plugin.engines.onnx_packing import Pieces, between, mixed, normalised, packed, regrouped
from qsit_plugin.engines.onnx_weights import read_float32
from qsit_plugin.engines.torch_engine import normalise

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8))


@pytest.fixture
def model(small_folder):
    return qsit.load(small_folder, engine="onnx")


def test_a_seed_gives_the_same_text_alone_and_in_a_list(model):
    alone = [model.ask(PICTURE, "Is it sharp?", temperature=1.5, seed=seed, max_new_tokens=12) for seed in (3, 3, -4)]
    listed = model.ask([PICTURE, PICTURE], "Is it sharp?", temperature=1.5, seed=3, max_new_tokens=12)
    assert alone[0] == alone[1] == listed[0] == listed[1]
    assert alone[0] != alone[2]


def test_a_temperature_near_zero_is_greedy(model):
    greedy = model.ask(PICTURE, "Is it sharp?", max_new_tokens=12)
    assert model.ask(PICTURE, "Is it sharp?", temperature=1e-6, max_new_tokens=12) == greedy


def test_a_sequence_read_in_pieces_gives_the_logits_of_one_read_at_once(model, monkeypatch):
    def logits(tokens: int) -> np.ndarray:
        monkeypatch.setattr(model.engine, "_tokens", tokens)
        look = model.encode(PICTURE)
        return model.engine.read_after(look.prefix((5, 6, 7), model.engine), list(range(20, 60)), range(100)).chosen

    whole = logits(10_000)
    assert whole.std() > 0.1
    for tokens in (1, 7, 64):
        assert np.abs(logits(tokens) - whole).max() < 1e-5


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(1)
    sizes = rng.integers(20, 300, (count, 2))
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def on_threads(folder, monkeypatch, count: int) -> qsit.QSiT:
    monkeypatch.setenv("OMP_NUM_THREADS", str(count))
    return qsit.load(folder, engine="onnx")


def test_scores_are_equal_bit_by_bit_alone_in_a_list_and_on_any_number_of_threads(small_folder, monkeypatch):
    images = pictures(12)
    expected = [score.probabilities for score in map(on_threads(small_folder, monkeypatch, 1).score, images)]
    assert len({tuple(one.values()) for one in expected}) == 12
    for threads in (2, 3, 32):
        model = on_threads(small_folder, monkeypatch, threads)
        assert [model.score(image).probabilities for image in images] == expected
        assert [score.probabilities for score in model.score(images)] == expected


def test_several_threads_may_share_a_model_that_has_several_threads_itself(small_folder, monkeypatch):
    model, images = on_threads(small_folder, monkeypatch, 3), pictures(4)
    expected = [score.value for score in model.score(images)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: [score.value for score in model.score(images)], range(8)))
    assert found == [expected] * 8


def test_a_large_model_shares_each_operation_among_its_threads(small_folder, monkeypatch):
    small = on_threads(small_folder, monkeypatch, 2)
    monkeypatch.setattr(onnx_engine, "SMALL", 1000)
    large = on_threads(small_folder, monkeypatch, 2)
    assert (small.engine.at_once, large.engine.at_once) == (2, 1)
    for image in pictures(4):
        assert large.score(image).value == pytest.approx(small.score(image).value, abs=1e-5)
    threads = [m.engine._vision._session.get_session_options().intra_op_num_threads for m in (small, large)]
    assert threads == [1, 2]


@pytest.mark.parametrize("errors", ["raise", "return"])
def test_a_bad_image_in_a_list_has_its_place_between_the_others(small_folder, monkeypatch, errors):
    model, images = on_threads(small_folder, monkeypatch, 2), [*pictures(3), b"no image", *pictures(2)]
    results = model.iter_scores(images, errors=errors)
    assert [next(results).value for _ in range(3)] == [score.value for score in model.score(images[:3])]
    if errors == "return":
        assert [isinstance(result, qsit.ImageError) for result in results] == [True, False, False]
    else:
        with pytest.raises(qsit.ImageError):
            next(results)


def test_a_list_is_not_worked_on_further_ahead_than_a_few_images(small_folder, monkeypatch):
    model, taken = on_threads(small_folder, monkeypatch, 2), []

    def images() -> Iterator[Image.Image]:
        for image in pictures(30):
            taken.append(image)
            yield image

    results = model.iter_scores(images())
    next(results)
    results.close()
    assert len(taken) == 4


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_buffer_that_is_used_again_for_each_image_of_an_iterator_is_scored_as_it_was(
    small_folder, monkeypatch, threads
):
    frames = np.random.default_rng(2).integers(0, 256, (12, 60, 80, 3), dtype=np.uint8)
    model, buffer = on_threads(small_folder, monkeypatch, threads), np.empty_like(frames[0])

    def camera() -> Iterator[np.ndarray]:
        for frame in frames:
            buffer[:] = frame
            yield buffer

    assert [score.value for score in model.iter_scores(camera())] == [model.score(frame).value for frame in frames]


def test_frames_of_one_file_are_scored_each(small_folder, monkeypatch, tmp_path):
    model, frames = on_threads(small_folder, monkeypatch, 2), pictures(8)
    frames[0].save(tmp_path / "frames.tif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "frames.tif") as file:
        found = [score.value for score in model.iter_scores(ImageSequence.Iterator(file))]
    assert found == [model.score(frame).value for frame in frames]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_amid_work_scores_or_is_refused_and_never_hangs(small_folder):
    code = """if True:
        import os, signal, sys, threading, time
        import numpy as np
        import qsit_plugin as qsit
        model = qsit.load(sys.argv[1], engine="onnx")
        picture = np.zeros((300, 300, 3), np.uint8)
        expected, ends = model.score(picture).value, False
        def score():
            while not ends:
                model.score(picture)
        threading.Thread(target=score).start()
        found = set()
        for _ in range(20):
            time.sleep(.003)
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                try:
                    os._exit(0 if [one.value for one in model.score([picture] * 2)] == [expected] * 2 else 1)
                except qsit.ForkedError:
                    os._exit(7)
            found.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        ends = True
        assert found <= {0, 7} and 7 in found, found
    """
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code, small_folder], env=environment, timeout=600, check=True)


@pytest.mark.parametrize("threads", [2, 3])
def test_answers_written_together_are_those_written_alone(small_folder, monkeypatch, threads):
    model, images = on_threads(small_folder, monkeypatch, threads), pictures(7)
    limits = {"max_new_tokens": 12}
    assert model.explain(images, **limits) == [model.explain(image, **limits) for image in images]


def test_an_answer_can_be_cancelled_between_tokens(model):
    asked = []

    def cancel() -> bool:
        asked.append(None)
        return len(asked) > 4

    answer = model.explain(PICTURE, cancel=cancel)
    assert (answer.finish_reason, answer.tokens) == ("cancelled", len(asked) - 1)


def test_a_prefix_stays_as_it_was_however_often_it_is_read_from(model):
    look = model.encode(PICTURE)
    before = look.score().value
    first = look.ask("Is it noisy?", max_new_tokens=8)
    assert look.explain(max_new_tokens=8).tokens
    assert look.ask("Is it noisy?", max_new_tokens=8) == first
    assert look.score().value == before


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_model_scores_as_the_model(model, again):
    twin = again(model)
    assert twin.engine is not model.engine
    assert twin.score(PICTURE).value == model.score(PICTURE).value


def test_a_score_says_engine_dtype_and_fingerprint(model, small_folder):
    score = model.score(PICTURE)
    assert (score.engine, score.dtype, score.mode) == ("onnx", "float32", "released")
    assert score.to_dict()["engine"] == "onnx"
    assert score.fingerprint == qsit.load(small_folder, engine="torch", device="cpu").fingerprint


def test_gradients_name_the_engine_that_has_them(model):
    from qsit_plugin.engines.gradients import level_probabilities

    with pytest.raises(ValueError, match="engine 'onnx' has no gradients: load small with engine='torch'"):
        level_probabilities(model, [torch.rand(3, 40, 40)])


def test_threads_wait_for_work_asleep(model):
    for session in (model.engine._vision, model.engine._decoder):
        options = session._session.get_session_options()
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(("size", "expected"), [("small", 0), ("large", 7)])
def test_a_fork_scores_with_a_small_model_and_refuses_a_large_one_instead_of_hanging(small_folder, size, expected):
    code = """if True:
        import os, sys
        import numpy as np
        import qsit_plugin as qsit
        from qsit_plugin.engines import onnx_engine
        onnx_engine.SMALL = 10**9 if sys.argv[2] == "small" else 1000
        model = qsit.load(sys.argv[1], engine="onnx")
        picture = np.zeros((40, 50, 3), np.uint8)
        scored = [one.value for one in (model.score(picture), *model.score([picture] * 3))]
        child = os.fork()
        if child == 0:
            try:
                again = [one.value for one in (model.score(picture), *model.score([picture] * 3))]
            except qsit.ForkedError:
                os._exit(7)
            os._exit(0 if again == scored else 1)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", code, small_folder, size]
    assert subprocess.run(command, env=environment, timeout=600, check=False).returncode == expected


@pytest.mark.skipif(
    not os.path.exists("/proc/self/status"), reason="this system does not say how much memory a process has"
)
def test_a_lack_of_memory_is_a_memory_error(small_folder):
    code = """if True:
        import resource, sys
        import numpy as np
        import qsit_plugin as qsit
        model = qsit.load(sys.argv[1], engine="onnx")
        picture = np.zeros((60, 60, 3), np.uint8)
        model.score(picture)
        image = model.engine.encode([model.engine.tiling.cut(model.read(picture))], [(60, 60)])[0]
        sizes = dict(line.split(":", 1) for line in open("/proc/self/status"))
        room = int(sizes["VmSize"].split()[0]) * 1024 + 2**24
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        try:
            model.engine.prefill([1] * 20000, image)  # attention of the last 128 tokens takes 40 MB
        except MemoryError as error:
            print(type(error).__name__, error)
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, small_folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout.strip() == "MemoryError not enough memory to run decoder.onnx", done.stderr


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_widened_exactly(tmp_path, dtype):
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(dtype)
    stored = bits[bits.isfinite()].reshape(2, -1)
    save_file({"weight": stored, "other": torch.zeros(1)}, tmp_path / "model.safetensors")
    found = read_float32(tmp_path, {"weight"})
    assert list(found) == ["weight"]
    assert np.array_equal(found["weight"].view(np.uint32), stored.float().numpy().view(np.uint32))


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path):
    save_file({"weight": torch.tensor([1.0, float("nan")])}, tmp_path / "model.safetensors")
    with pytest.raises(qsit.WeightsError, match="1 of them hold numbers that are not finite .first: weight."):
        read_float32(tmp_path, {"weight"})


@pytest.mark.parametrize("length", [1, 5, 11, 12])
def test_features_are_reduced_as_by_torch(length):
    values = np.random.default_rng(0).normal(size=(12, 7, 3)).astype(np.float32)
    planes = torch.from_numpy(values).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(planes, [length, 7], mode="bilinear")[0].permute(1, 2, 0).numpy()
    low, high, share = between(12, length)
    assert np.abs(mixed(values[low], values[high], share[:, None, None]) - expected).max() < 1e-5


@pytest.mark.parametrize("size", [(140, 90), (1, 3000), (900, 700), (33, 34)])
def test_tokens_are_the_same_however_many_tiles_come_at_once(model, size):
    tiling, newline = model.engine.tiling, np.arange(3, dtype=np.float32)
    count = tiling.tile_count(*size)
    features = np.random.default_rng(0).normal(size=(count, tiling.side**2, 3)).astype(np.float32)
    whole = np.concatenate(list(packed(tiling, [features], *size, newline)))
    assert len(whole) == tiling.token_count(*size)
    for parts in (count, (count + 1) // 2):
        pieces = list(packed(tiling, np.array_split(features, parts), *size, newline))
        assert np.array_equal(np.concatenate(pieces), whole)
        for group in (1, 5, 10_000):
            groups = list(regrouped(pieces, group))
            assert np.array_equal(np.concatenate(groups), whole)
            assert all(len(some) == group for some in groups[:-1])


def test_pixels_are_those_of_the_torch_engine_bit_by_bit(model):
    tiles = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)
    tiling = model.engine.tiling
    assert np.array_equal(normalised(tiling, tiles), normalise(tiling, torch.from_numpy(tiles)).numpy())


def test_pieces_that_failed_begin_anew_and_are_never_fewer():
    begun = []

    def begin() -> Iterator[np.ndarray]:
        begun.append(len(begun))
        yield np.zeros((2, 3))
        if len(begun) == 1:
            raise MemoryError("full")
        yield np.ones((1, 3))

    pieces = Pieces(begin)
    with pytest.raises(MemoryError):
        list(pieces)
    assert [len(piece) for piece in pieces] == [len(piece) for piece in pieces] == [2, 1]
    assert begun == [0, 1]


def test_several_threads_may_ask_first_about_one_look(small_folder, monkeypatch):
    model, picture = on_threads(small_folder, monkeypatch, 2), pictures(1)[0]
    expected = model.score(picture).probabilities
    for _ in range(5):
        look = model.encode(picture)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _, look=look: look.score().probabilities, range(4)))
        assert all(one == pytest.approx(expected, abs=1e-6) for one in found)
