"""Q-SiT Until Good: a loop by node expansion, run by a host's executor."""

import pytest
import torch

from tests.nodes.graphs import MODEL, arrived
from tests.nodes.helpers import RAN, batch, give, keep, photo

OUTPUTS = ("image_out", "seed", "score", "tries", "is_pass", "scores", "latents_out", "extra_out", "report")
SEEDS = 2**64
# Worst first, so that the best of n tries is the last unless a test changes the order.
PICTURES = [photo(seed, blur=blur) for seed, blur in ((0, True), (0, False), (1, True), (1, False))]


@pytest.fixture
def sampler(host):
    """A node that gives a picture by its seed, with a latent and a word that say which seed it was."""
    from comfy_api.latest import io

    class Sampler(io.ComfyNode):
        pictures = []

        @classmethod
        def define_schema(cls):
            return io.Schema(
                node_id="Test_Sampler",
                category="test",
                inputs=[io.Int.Input("seed"), io.AnyType.Input("outside", optional=True)],
                outputs=[io.Image.Output("image"), io.Latent.Output("latent"), io.String.Output("word")],
            )

        @classmethod
        def execute(cls, seed, outside=None):
            RAN.append(f"seed {seed}")
            image = Sampler.pictures[seed % len(Sampler.pictures)]
            latent = {"samples": torch.full((len(image), 4, 8, 8), float(seed % 1000))}
            return io.NodeOutput(image, latent, f"word {seed}")

    host.register(Sampler)
    return Sampler


@pytest.fixture(scope="module")
def scored(nano):
    """Four batches of one picture, worst first, and their scores."""
    pairs = [(nano.score((p.numpy() * 255).round().astype("uint8")).value, n) for n, p in enumerate(PICTURES)]
    return [batch(PICTURES[n]) for _, n in sorted(pairs)], [value for value, _ in sorted(pairs)]


def looped(seed=0, threshold=1.0, source=("sampler", 0), **changes):
    inputs = {"loop": ["start", 0], "model": ["model", 0], "images": list(source), "threshold": threshold}
    inputs |= {"max_tries": 4, "max_seconds": 0.0, "if_none": "best"}
    inputs |= {"latents": ["sampler", 1], "extra": ["sampler", 2]} | changes
    prompt = {
        "model": {"class_type": "QSiT_LoadModel", "inputs": dict(MODEL)},
        "start": {"class_type": "QSiT_UntilGoodStart", "inputs": {"seed": seed}},
        "outside": give("outside", torch.zeros(1)),
        "sampler": {"class_type": "Test_Sampler", "inputs": {"seed": ["start", 1], "outside": ["outside", 0]}},
        "end": {"class_type": "QSiT_UntilGoodEnd", "inputs": inputs},
    }
    return prompt | {f"k{i}": keep(["end", i], name) for i, name in enumerate(OUTPUTS)}


def last(name):
    (value,) = arrived(name)
    return value


@pytest.mark.parametrize("needed", [1, 3, 4])
def test_tries_end_with_the_first_that_is_good_enough(host, sampler, scored, needed):
    sampler.pictures, scores = scored
    result = host.run(looped(threshold=(scores[needed - 2] + scores[needed - 1]) / 2 if needed > 1 else 0.0))
    assert result.success and not result.errors
    assert [label for label in RAN if label != "outside"] == [f"seed {i}" for i in range(needed)]
    assert RAN.count("outside") == 1, "what lies before the loop is computed once"
    assert (last("tries"), last("is_pass"), last("seed")) == (needed, True, needed - 1)
    assert torch.equal(last("image_out"), sampler.pictures[needed - 1])
    assert last("score") == pytest.approx(scores[needed - 1], abs=1e-5)


@pytest.mark.parametrize("best", range(4))
def test_when_the_tries_are_spent_the_best_comes_out_with_all_that_belongs_to_it(host, sampler, scored, best):
    pictures, scores = scored
    sampler.pictures = [*pictures[:best], pictures[3], *pictures[best:3]]
    assert host.run(looped()).success
    assert (last("tries"), last("is_pass"), last("seed")) == (4, False, best)
    assert torch.equal(last("image_out"), pictures[3])
    assert last("latents_out")["samples"].unique().tolist() == [best]
    assert last("extra_out") == f"word {best}"
    (record,) = last("scores")
    assert (record["seed"], record["try"], record["tries"]) == (best, best + 1, 4)
    assert record["score"] == pytest.approx(scores[3], abs=1e-5)
    assert last("report").splitlines()[-1] == f"none reaches 1 (4 tries); the best: try {best + 1}, seed {best}"


def test_the_score_is_that_of_the_score_node_for_the_same_seed(host, sampler, scored):
    sampler.pictures = scored[0]
    host.run(looped())
    alone = {
        "model": {"class_type": "QSiT_LoadModel", "inputs": dict(MODEL)},
        "sampler": {"class_type": "Test_Sampler", "inputs": {"seed": last("seed")}},
        "score": {
            "class_type": "QSiT_Score",
            "inputs": {"model": ["model", 0], "images": ["sampler", 0], "aggregate": "mean"},
        },
    }
    shown = host.run(alone).shown["score"]["qsit"]
    assert shown[0]["score"] == last("score")


def test_every_try_is_told_on_the_end_node_while_the_loop_runs(host, sampler, scored):
    pictures, scores = scored
    sampler.pictures = [pictures[1], pictures[0], pictures[2], pictures[3]]
    result = host.run(looped())
    told = [data["text"] for event, data in host.server.events if event == "progress_text" and data["node"] == "end"]
    assert [line.split(":")[0] for line in told[:3]] == [f"try {i}, seed {i - 1}" for i in (1, 2, 3)]
    assert told[1] == f"try 2, seed 1: {scores[0]:.3f} (needed: 1); best so far: {scores[1]:.3f}, try 1"
    assert told[-1] == last("report")
    shown = [data for event, data in host.server.events if event == "executed" and data["display_node"] == "end"]
    assert [bool((about["output"] or {}).get("images")) for about in shown][:3] == [True, False, True]
    assert shown[-1]["output"]["text"] == [last("report")] or shown[-2]["output"]["text"] == [last("report")]
    assert result.success


def test_the_seed_after_the_last_one_is_0(host, sampler, scored):
    sampler.pictures = scored[0]
    host.run(looped(seed=SEEDS - 1, max_tries=2))
    assert [label for label in RAN if label != "outside"] == [f"seed {SEEDS - 1}", "seed 0"]


def test_no_new_try_begins_when_the_time_is_spent(host, sampler, scored):
    sampler.pictures = scored[0]
    assert host.run(looped(max_tries=500, max_seconds=1e-9)).success
    assert last("tries") == 1 and "seconds" in last("report")


@pytest.mark.parametrize("if_none", ["stop silently", "error"])
def test_when_none_is_good_enough_the_user_decides(host, sampler, scored, if_none):
    sampler.pictures = scored[0]
    result = host.run(looped(if_none=if_none, max_tries=2))
    assert arrived("image_out") == [] and result.success == (if_none == "stop silently")
    assert arrived("tries") == ([2] if if_none == "stop silently" else [])
    if if_none == "error":
        (error,) = result.errors
        assert error["node_id"] == "end"
        assert error["exception_message"].startswith("none of 2 tries reaches 1 (2 tries); the best: 0.")
        assert "(Q-SiT Until Good: End, node end)" in error["exception_message"]
        again = host.run(looped(if_none=if_none, max_tries=2))
        assert not again.success and len(again.errors) == 1, "a refusal is not taken from the cache"


def test_a_batch_and_a_list_count_by_their_mean(host, sampler, scored):
    pictures, scores = scored
    sampler.pictures = [batch(pictures[0][0], pictures[3][0]), batch(pictures[1][0], pictures[1][0])]
    host.run(looped(max_tries=2))
    means = [(scores[0] + scores[3]) / 2, scores[1]]
    assert last("score") == pytest.approx(max(means), abs=1e-5)
    assert len(last("scores")) == 2 and len(last("image_out")) == 2


def test_a_score_node_inside_the_loop_is_copied_with_it(host, sampler, scored):
    """Its images are those of the try, and what it says belongs to the node that the user sees."""
    sampler.pictures = scored[0]
    prompt = looped(source=("inside", 0), max_tries=3)
    inputs = {"model": ["model", 0], "images": ["sampler", 0], "aggregate": "mean"}
    prompt["inside"] = {"class_type": "QSiT_Score", "inputs": inputs}
    host.run(prompt)
    assert last("tries") == 3 and torch.equal(last("image_out"), scored[0][2])
    told = [data for event, data in host.server.events if event == "progress_text" and data["node"] == "inside"]
    assert len(told) == 3


def test_a_broken_picture_in_a_later_try_is_an_error_of_the_end_node(host, sampler, scored):
    sampler.pictures = [scored[0][0], torch.full((1, 32, 32, 3), float("nan"))]
    result = host.run(looped())
    (error,) = result.errors
    assert not result.success and error["node_id"] == "end" and "holds NaN" in error["exception_message"]


def test_a_loop_whose_seed_goes_nowhere_is_refused_with_the_cure(host, sampler, scored):
    sampler.pictures = scored[0]
    prompt = looped()
    prompt["sampler"]["inputs"]["seed"] = 0
    (error,) = host.run(prompt).errors
    assert "connect it to the seed of the sampler" in error["exception_message"]


def test_an_unchanged_loop_is_not_run_again(host, sampler, scored):
    sampler.pictures, prompt = scored[0], looped()
    assert host.run(prompt).success and RAN
    RAN.clear()
    assert host.run(prompt).success
    assert RAN == []


def test_a_loop_of_sixty_tries_ends(host, sampler, scored):
    sampler.pictures = [scored[0][0]]
    assert host.run(looped(max_tries=60)).success
    assert last("tries") == 60 and last("seed") == 0


def test_a_loop_inside_a_loop_runs_whole_for_each_try_of_the_outer_one(host, sampler, scored):
    sampler.pictures = scored[0]
    prompt = looped(max_tries=2)
    outer = {"class_type": "QSiT_UntilGoodStart", "inputs": {"seed": 10}}
    prompt["start"]["inputs"]["seed"] = ["outer start", 1]
    inputs = prompt["end"]["inputs"] | {"loop": ["outer start", 0], "images": ["end", 0], "max_tries": 3}
    prompt |= {"outer start": outer, "outer": {"class_type": "QSiT_UntilGoodEnd", "inputs": inputs}}
    del prompt["outer"]["inputs"]["latents"], prompt["outer"]["inputs"]["extra"]
    prompt["tries"] = keep(["outer", 3], "outer tries")
    result = host.run(prompt)
    assert result.success and not result.errors
    assert arrived("outer tries") == [3]
    assert {label for label in RAN if label != "outside"} == {f"seed {i}" for i in (10, 11, 12, 13)}
