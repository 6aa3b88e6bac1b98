"""The mixture: the published YAML, exact shares, and an order that is the same after a stop."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from qsit_plugin.training.data.mixture import MixtureError, choose, plan_lines, plan_of, read_mixture
from qsit_plugin.training.data.sampler import MixtureSampler, largest_remainder

SIZES = {"spaq": 40, "koniq": 25, "talk": 300}
SHARES = {"spaq": 0.2, "koniq": 0.13, "talk": 0.67}


def sampler(**options) -> MixtureSampler:
    return MixtureSampler(SIZES, **({"shares": SHARES, "count": 60, "seed": 7} | options))


def epoch(one: MixtureSampler, number: int) -> list[int]:
    one.set_epoch(number)
    return list(one)


def by_source(indices: list[int], sizes: dict[str, int] = SIZES) -> dict[str, int]:
    ends = np.cumsum(list(sizes.values()))
    return dict(
        zip(sizes, np.bincount(np.searchsorted(ends, indices, side="right"), minlength=3).tolist(), strict=True)
    )


def test_what_is_cut_off_goes_to_those_that_lost_most() -> None:
    assert largest_remainder({"a": 0.5, "b": 0.3, "c": 0.2}, 7) == {"a": 4, "b": 2, "c": 1}  # 3.5, 2.1, 1.4
    assert largest_remainder({"a": 1, "b": 1, "c": 1}, 5) == {"a": 2, "b": 2, "c": 1}
    assert largest_remainder({"a": 0.1, "b": 0.9}, 10) == {"a": 1, "b": 9}
    assert largest_remainder({"a": 0, "b": 3}, 4) == {"a": 0, "b": 4}


def test_every_epoch_has_exactly_its_shares() -> None:
    one = sampler()
    for number in range(6):
        assert by_source(epoch(one, number)) == one.counts() == {"spaq": 12, "koniq": 8, "talk": 40}


def test_without_shares_an_epoch_is_every_row_once() -> None:
    indices = list(MixtureSampler(SIZES, seed=1))
    assert sorted(indices) == list(range(365))
    assert indices != sorted(indices)


def test_a_source_is_walked_without_repetition_across_epochs_until_it_is_exhausted() -> None:
    one = sampler()
    walked = [index for number in range(5) for index in epoch(one, number) if 40 <= index < 65]
    assert sorted(walked[:25]) == list(range(40, 65))
    assert len(set(walked[25:])) == 40 - 25


def test_a_source_larger_shared_than_it_is_large_is_repeated_evenly() -> None:
    indices = list(MixtureSampler({"a": 3, "b": 10}, {"a": 1, "b": 1}, count=20))
    assert sorted(np.bincount(indices)[:3].tolist()) == [3, 3, 4]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    assert epoch(sampler(), 3) == epoch(sampler(), 3)
    assert epoch(sampler(), 3) != epoch(sampler(), 4)
    assert epoch(sampler(), 3) != epoch(sampler(seed=8), 3)
    one = sampler()
    assert list(one) == list(one)


def test_a_new_source_leaves_the_order_within_the_others() -> None:
    few = [index for index in MixtureSampler({"a": 30, "b": 20}, seed=2) if index < 30]
    more = [index for index in MixtureSampler({"a": 30, "b": 20, "c": 50}, seed=2) if index < 30]
    assert few == more


def test_every_batch_has_nearly_the_shares_of_the_epoch() -> None:
    one = MixtureSampler({"score": 16_000, "talk": 56_000}, seed=0)
    rated = np.array(list(one)).reshape(-1, 16) < 16_000
    counts = rated.sum(axis=1)
    assert counts.mean() == pytest.approx(16 * 16 / 72)
    assert counts.min() >= 3
    assert counts.max() <= 4


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_the_ranks_have_equal_counts_nearly_equal_shares_and_together_the_epoch(world_size: int) -> None:
    whole = sampler(count=72)
    for number in range(3):
        ranks = [epoch(sampler(count=72, rank=rank, world_size=world_size), number) for rank in range(world_size)]
        assert {len(rank) for rank in ranks} == {72 // world_size}
        assert sorted(sum(ranks, [])) == sorted(epoch(whole, number))
        for source in SIZES:
            counts = [by_source(rank)[source] for rank in ranks]
            assert max(counts) - min(counts) <= 1


def test_a_count_that_ranks_do_not_divide_is_rounded_up() -> None:
    one = sampler(count=61, world_size=4)
    assert (one.count, len(one), sum(one.counts().values())) == (64, 16, 64)


def test_new_shares_hold_from_the_next_epoch_on() -> None:
    one = sampler()
    before = epoch(one, 2)
    one.set_shares({"spaq": 1, "koniq": 1, "talk": 2})
    assert list(one) == before
    assert by_source(epoch(one, 3)) == {"spaq": 15, "koniq": 15, "talk": 30}
    assert one.shares() == {"spaq": 0.25, "koniq": 0.25, "talk": 0.5}
    assert one.shares(2) == pytest.approx(SHARES)
    assert epoch(one, 2) == before


@pytest.mark.parametrize("world_size", [1, 2])
def test_it_goes_on_in_the_middle_of_an_epoch_as_if_it_had_not_stopped(world_size: int) -> None:
    """With shares that have changed, through JSON, and on to the epoch after."""
    for rank in range(world_size):
        one = sampler(rank=rank, world_size=world_size)
        one.set_shares({"spaq": 1, "koniq": 1, "talk": 2})
        one.set_epoch(1)
        one.set_shares({"spaq": 5, "koniq": 1, "talk": 1})
        running = iter(one)
        assert len(list(islice(running, 13))) == 13
        state = json.loads(json.dumps(one.state_dict()))
        rest, after = list(running), epoch(one, 2)

        other = sampler(rank=rank, world_size=world_size)
        other.load_state_dict(state)
        other.set_epoch(1)  # a trainer announces the epoch that it resumes
        assert list(other) == rest
        assert epoch(other, 2) == after


def test_what_a_data_loader_fetched_ahead_is_not_taken_for_trained() -> None:
    one, other = sampler(), sampler()
    order = list(one)
    running = iter(one)
    list(islice(running, 32))
    other.load_state_dict(one.state_dict(position=24))
    assert list(other) == order[24:]


def test_a_state_after_the_last_row_leaves_none_until_the_next_epoch() -> None:
    one, other = sampler(), sampler()
    list(one)
    other.load_state_dict(one.state_dict())
    assert list(other) == []
    assert epoch(other, 1) == epoch(one, 1)


def test_a_state_of_another_mixture_is_refused() -> None:
    state = sampler().state_dict()
    with pytest.raises(ValueError, match="mixture with seed 7, this one has 8"):
        sampler(seed=8).load_state_dict(state)
    with pytest.raises(ValueError, match="with count 60, this one has 61"):
        sampler(count=61).load_state_dict(state)


def test_impossible_mixtures_are_refused() -> None:
    with pytest.raises(ValueError, match="without any: b"):
        MixtureSampler({"a": 1, "b": 0})
    with pytest.raises(ValueError, match="shares for spaq, koniq, talk; got them for spaq"):
        sampler(shares={"spaq": 1})
    for shares in ({"spaq": -1, "koniq": 1, "talk": 1}, dict.fromkeys(SIZES, 0), dict.fromkeys(SIZES, float("nan"))):
        with pytest.raises(ValueError, match="numbers from 0 up, not all 0"):
            sampler(shares=shares)
    with pytest.raises(ValueError, match="got rank 2 of 2"):
        sampler(rank=2, world_size=2)


def conversations(count: int, label: str) -> list[dict]:
    turns = [{"from": "human", "value": "<image>\nWhy?"}, {"from": "gpt", "value": "Because."}]
    return [{"id": f"{label}{number}", "image": f"{number}.jpg", "conversations": turns} for number in range(count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A mixture of two files, under the paths of another machine."""
    for name, count in (("few", 10), ("many", 101)):
        (tmp_path / f"{name}.json").write_text(json.dumps(conversations(count, name)), encoding="utf-8")
    mixture(tmp_path, "all", "random:22%")
    return tmp_path


def mixture(folder: Path, few: str, many: str) -> Path:
    path = folder / "mix.yaml"
    lines = ["datasets:", "  - json_path: few.json", f'    sampling_strategy: "{few}"']
    lines += ["  - json_path: /jsons/many.json ", f"    sampling_strategy: {many}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def chosen(folder: Path, seed: int = 0) -> dict[str, list[str]]:
    found = read_mixture(folder / "mix.yaml", folder=folder, seed=seed)
    return {source.name: [row.id for row in source.rows] for source in found.sources}


def test_a_percentage_is_rounded_up_and_taken_at_random_by_the_seed(folder: Path) -> None:
    first = chosen(folder)["many"]
    assert len(set(first)) == 23  # 22.22 rows
    assert first == chosen(folder)["many"]
    assert set(first) != set(chosen(folder, seed=1)["many"])


def test_first_and_end_are_what_they_say(folder: Path) -> None:
    mixture(folder, "first:3", "end:2%")
    assert chosen(folder) == {"few": ["few0", "few1", "few2"], "many": ["many98", "many99", "many100"]}
    assert list(choose("first:5000", 4, 0, "x")) == [0, 1, 2, 3]  # as LLaVA-NeXT takes it


def test_the_strategy_is_all_where_none_is_given(folder: Path) -> None:
    (folder / "mix.yaml").write_text("datasets:\n- json_path: few.json\n- json_path: few.json\n", encoding="utf-8")
    assert {name: len(ids) for name, ids in chosen(folder).items()} == {"few": 10, "few#2": 10}


def test_the_published_mixture_is_read_as_it_is(data: Path, tmp_path: Path) -> None:
    """Q-Instruct and LLaVA's rows are made up here: their sizes and the sampling are what matters."""
    official = data / "official"
    for name, count in (("q_instruct", 2000), ("llava_instruct_150k", 1577)):
        (tmp_path / f"{name}.json").write_text(json.dumps(conversations(count, name)), encoding="utf-8")
    for name in ("train_spaq_qsit.json", "train_koniq_qsit.json"):
        (tmp_path / name).write_bytes((official / name).read_bytes())
    plan = plan_of(read_mixture(official / "single_image.yaml", folder=tmp_path))
    assert [(source["name"], source["chosen"], source["ratings"]) for source in plan["sources"]] == [
        ("train_spaq_qsit", 8897, 8897),
        ("train_koniq_qsit", 7046, 7046),
        ("q_instruct", 440, 0),
        ("llava_instruct_150k", 127, 0),
    ]
    assert plan["rows_per_epoch"] == 8897 + 7046 + 440 + 127


def test_the_samplers_indices_count_the_mixtures_rows(folder: Path) -> None:
    found = read_mixture(folder / "mix.yaml", folder=folder)
    rows = found.rows()
    ids = [rows[index].id for index in found.sampler()]
    assert sorted(ids) == sorted(sum(chosen(folder).values(), []))


def test_a_plan_changes_its_hash_with_the_selection_and_not_with_the_layout(folder: Path) -> None:
    def hashes(**options) -> list[tuple[str, str]]:
        plan = plan_of(read_mixture(folder / "mix.yaml", folder=folder, **options))
        return [(source["sha256"], source["selection_sha256"]) for source in plan["sources"]]

    before = hashes()
    assert hashes(seed=5)[0] == before[0]
    assert (hashes(seed=5)[1][0] == before[1][0]) and (hashes(seed=5)[1][1] != before[1][1])
    (folder / "few.json").write_text(json.dumps(conversations(10, "few"), indent=4), encoding="utf-8")
    assert hashes()[0][0] != before[0][0]
    assert hashes()[0][1] == before[0][1]


def test_a_plan_is_a_table_with_a_line_for_all(folder: Path) -> None:
    lines = list(plan_lines(plan_of(read_mixture(folder / "mix.yaml", folder=folder), count=50, world_size=4)))
    assert [line.split()[:5] for line in lines[1:3]] == [
        ["few", "all", "10", "10", "16"],
        ["many", "random:22%", "101", "23", "36"],
    ]
    assert lines[3].split()[:4] == ["all", "111", "33", "52"]


@pytest.mark.parametrize("strategy", ["some", "first", "all:3", "first:x", "random:", "random:x%", "last:3"])
def test_an_unknown_strategy_is_refused_with_the_known_ones(folder: Path, strategy: str) -> None:
    mixture(folder, "all", f'"{strategy}"')
    with pytest.raises(
        MixtureError, match="mix.yaml, dataset 2: no sampling strategy .*all, first:N, end:N or random:N"
    ):
        chosen(folder)


@pytest.mark.parametrize("strategy", ["first:0", "random:-3", "random:101%", "end:0%"])
def test_a_strategy_of_no_rows_or_more_than_all_is_refused(folder: Path, strategy: str) -> None:
    mixture(folder, strategy, "all")
    with pytest.raises(MixtureError, match="at least one row and at most 100%"):
        chosen(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: [", "is not valid YAML"),
        ("datasets: 2026-13-01", "is not valid YAML: month must be in 1..12"),
        ("[" * 10_000, "is not valid YAML"),
        ("data: []", "must have one key, datasets"),
        ("datasets: []", "lists no datasets"),
        ("datasets:\n- json_path: few.json\n  share: 3\n", "dataset 1: it must have json_path, may have"),
        ("datasets:\n- few.json\n", "dataset 1: it must have json_path"),
        ("datasets:\n- json_path: few.json\n  sampling_strategy: 5\n", "sampling_strategy must be a text, got 5"),
        ("datasets:\n- json_path: none.json\n", "no file .*none.json.*--folder"),
    ],
)
def test_a_mixture_that_is_none_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "mix.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(MixtureError, match=message):
        read_mixture(folder / "mix.yaml")


def test_an_empty_file_and_a_bad_row_are_refused_by_name(folder: Path) -> None:
    (folder / "few.json").write_text("", encoding="utf-8")
    with pytest.raises(MixtureError, match="dataset 1: .*few.json holds no JSON objects"):
        chosen(folder)
    (folder / "few.json").write_text('[{"id": "1", "image": "1.jpg", "conversations": []}]', encoding="utf-8")
    with pytest.raises(MixtureError, match="few.json, row 0: its conversation must be pairs.*qsit train convert"):
        chosen(folder)
