"""The paper's table in small, on real ratings: scoring and interpreting taught alone, in naive mixtures and balanced.

    python -m benchmarks.joint_teaching --rated BIQ2021 --unseen LIVEC --work FOLDER

BIQ2021 and LIVEC are folders with ratings.csv and their images, see README.md. Everything that is needed is made in
FOLDER (about 7 GB), in this order: rows, two base checkpoints, the search on the light model, the arms. What is
done is not done again, so the same command goes on after a stop. Results are appended to ``--results`` run by run.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from qsit_plugin.errors import QSiTError
from qsit_plugin.row_file import append_row, read_rows, write_whole
from qsit_plugin.training.balance.ratio import Ratio, read_ratio
from qsit_plugin.training.balance.search import search
from qsit_plugin.training.balance.settings import read_settings
from qsit_plugin.training.config import read_config
from qsit_plugin.training.nano.human import rated as databases
from qsit_plugin.training.requirements import versions

from .arms import arms_of, done, look_at_test, run_arms, seeds_for
from .bases import WIDTHS, make_base
from .claims import page
from .data import THIN, Sizes, linked, write_asked, write_training
from .features import cached_features

HERE = Path(__file__).parent
TOWER = Path(databases.__file__).with_name("tower.safetensors")
SETTINGS = ("light.yaml", "primary.yaml", "mixture.yaml", "search.yaml")
FEW = ("seeds=[0]", "grid=[0, 0.22, 0.5, 1]", "quality_grid=[0, 0.3, 0.6, 1]")
"""Of the search of a thin run."""


def prepare(args: argparse.Namespace, sizes: Sizes) -> None:
    """Rows, questions, settings and bases in the folder of the work."""
    work, record = args.work, args.work / "prepared.json"
    work.mkdir(parents=True, exist_ok=True)
    now = {"sizes": asdict(sizes), "tower": args.tower.name}
    if record.exists() and json.loads(record.read_text(encoding="utf-8")) != now:
        raise SystemExit(f"{work} was prepared with other sizes or another tower: give another --work")
    linked(work / "images", "rated", args.rated)
    linked(work / "images", "unseen", args.unseen)
    if not record.exists():
        write_training(args.rated, work, sizes)
        write_asked(args.rated, args.unseen, work, "validation", sizes)
        for name in SETTINGS:
            shutil.copy(HERE / name, work / name)
        subsets = sorted(path.stem for path in (work / "validation").glob("ss*.jsonl"))
        parts = [(f"validation/{name}.jsonl", sizes.searched) for name in subsets]
        parts.append(("validation/choices.jsonl", 2 * sizes.searched))
        sources = [{"json_path": name, "sampling_strategy": f"first:{count}"} for name, count in parts]
        write_whole(work / "validation.yaml", yaml.safe_dump({"datasets": sources}, sort_keys=False))
        write_whole(record, json.dumps(now, indent=2) + "\n")
    for name in WIDTHS:
        make_base(name, args.tower, work, sizes, args.threads)


def balance(args: argparse.Namespace, sizes: Sizes, say: Callable[[str], None]) -> Ratio:
    """What the search on the light model has found; the search, if it is not finished."""
    settings = read_settings(args.work / "search.yaml", [f"samples={sizes.samples}", *(FEW if args.thin else ())])
    search(settings, say=lambda line: say(f"light, {line}"))
    found = read_ratio(Path(settings.output) / "ratio.yaml")
    for name in ("trials.jsonl", "ratio.yaml"):
        shutil.copy(Path(settings.output) / name, args.results.parent / f"light-{name}")
    return found


def teach(args: argparse.Namespace, sizes: Sizes, say: Callable[[str], None]) -> None:
    """Search, arms, and with --test the test parts."""
    config = read_config(args.work / "primary.yaml")
    ratio = balance(args, sizes, say)
    say(ratio.line())
    groups = ratio.content["groups"]
    balanced = tuple(round(sum(ratio.shares[name] for name in members), 6) for members in groups.values())
    rows = [len(read_rows(args.work / "rows" / f"{name}.jsonl")) for name in ("scoring", "quality", "general")]
    arms = arms_of(balanced, rows, sizes.samples)
    if unknown := set(args.arm or ()) - {arm.name for arm in arms}:
        raise SystemExit(f"no arm {', '.join(unknown)}: give some of {', '.join(arm.name for arm in arms)}")
    count, why = seeds_for(ratio.content)
    say(why)
    note_about(args, sizes, ratio, why)
    settings = read_settings(args.work / "search.yaml", [f"output={args.work.resolve() / 'arms'}"])
    chosen = [arm for arm in arms if not args.arm or arm.name in args.arm]
    seeds = range(args.seeds or count)
    run_arms(chosen, seeds, config, settings, args.work / "validation", args.results, say)


def test(args: argparse.Namespace, sizes: Sizes, say: Callable[[str], None]) -> None:
    """The test parts, once: after this nothing may be chosen any more."""
    if not (args.work / "test" / "asked.jsonl").exists():
        write_asked(args.rated, args.unseen, args.work, "test", sizes)
    twins = {photo.path.name for photo in databases.read(args.rated) if photo.twin}
    tested = args.results.with_name("test.jsonl")
    look_at_test(args.results, args.work / "arms", args.work / "test", args.work / "images", twins, tested, say)
    print("\n".join(page(done(tested), None, "Test parts")))


def note_about(args: argparse.Namespace, sizes: Sizes, ratio: Ratio, why: str) -> None:
    """A line on the conditions, before the first run of them."""
    about: dict[str, Any] = {"kind": "about", "sizes": asdict(sizes), "seeds": why, "threads": args.threads}
    about |= {"machine": platform.processor() or platform.machine(), "versions": versions("torch", "transformers")}
    about["balance"] = {name: ratio.content[name] for name in ("group_share", "flat", "chosen_by", "metrics", "noise")}
    line = json.dumps(about, allow_nan=False)
    if line not in read_rows(args.results):
        append_row(args.results, line)


def report(results: Path) -> str:
    """The table and the verdicts of what is finished."""
    rows = [json.loads(line) for line in read_rows(results)]
    about = [row for row in rows if row["kind"] == "about"]
    runs = [row for row in rows if row["kind"] == "run"]
    if not runs:
        raise SystemExit(f"{results} holds no run")
    return "\n".join(page(runs, about[-1]["balance"] if about else None, "Validation parts"))


def main() -> None:
    form: Any = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.joint_teaching", description=__doc__, **form)
    parser.add_argument("--rated", type=Path, help="folder of BIQ2021 with ratings.csv")
    parser.add_argument("--unseen", type=Path, help="folder of LIVE-C with ratings.csv")
    parser.add_argument("--work", type=Path, help="folder for everything that is made")
    parser.add_argument(
        "--results", type=Path, help="results.jsonl; by default beside this program, thin ones in --work"
    )
    parser.add_argument("--tower", type=Path, default=TOWER, help="the frozen tower that all arms begin with")
    parser.add_argument("--arm", action="append", help="only this one; may be given several times")
    parser.add_argument(
        "--seeds", type=int, help="seeds of an arm; by default as many as the light model's effect asks"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--thin", action="store_true", help="a few photos and steps, to see that everything runs")
    parser.add_argument("--test", action="store_true", help="look at the test parts, once, when all is done")
    parser.add_argument("--report", action="store_true", help="only print table and verdicts of what is finished")
    args = parser.parse_args()
    if args.report:
        print(report(args.results or HERE / "results.jsonl"))
        return
    if not (args.rated and args.unseen and args.work):
        parser.error("give --rated, --unseen and --work")
    args.results = args.results or (args.work if args.thin else HERE) / "results.jsonl"
    torch.set_num_threads(args.threads)
    sizes, say = (THIN if args.thin else Sizes()), partial(print, flush=True)
    try:
        prepare(args, sizes)
        with cached_features(args.work / "features"):
            teach(args, sizes, say)
        if args.test:
            test(args, sizes, say)
    except (QSiTError, FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from None
    print(report(args.results))


if __name__ == "__main__":
    main()
