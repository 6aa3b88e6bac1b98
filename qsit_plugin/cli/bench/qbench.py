"""``qsit bench qbench``: Q-Bench's multiple choice (A1) on a model, and its assessment (A3) from logit files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import options
from ..failures import SOME_FAILED, WRONG_USAGE, ending_bench, stop

if TYPE_CHECKING:
    from qsit_plugin.evaluation.multiple_choice import Answered

FORMATS = ("json", "markdown")


@options.chooses_model("model", "engine", "device", "dtype", "revision", "adapter", "max_pixels")
def qbench(
    choice: options.Choice,
    logits: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A3: a file of good and poor logits; may be repeated.")
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A1: LLVisionQA's questions with answers (dev half), JSON.")
    ] = None,
    images: Annotated[Path | None, typer.Option(metavar="FOLDER", help="A1: where the questions' photos lie.")] = None,
    rule: Annotated[
        str, typer.Option(help="A1: string (written answers, as published), letters (fast), or both.")
    ] = "both",
    limit: Annotated[int | None, typer.Option(min=1, help="A1: only the first N questions, for a first look.")] = None,
    format: Annotated[
        str | None, typer.Option("--format", "-f", help="markdown or json; by default as --out ends, else markdown.")
    ] = None,
    out: options.Out = None,
) -> None:
    """Run Q-Bench: A1 multiple choice on a model, or A3 from files of logits.

    A1 gives accuracies overall, by type and by concern, under two separate rules: "string" parses the generated
    answer as Q-SiT's script does, "letters" takes the most probable letter. A3 gives SRCC and PLCC of the softmax
    of (good, poor) at temperature 100, as the leaderboard does. JSON holds every answer, Markdown the table alone.
    """
    from qsit_plugin.evaluation.multiple_choice import RULES
    from qsit_plugin.evaluation.qbench import assessment

    from .. import output

    kind = output.choose_format(format, out, FORMATS, "markdown")
    if (questions is None) == (not logits):
        stop("give either --logits FILE (A3) or --questions FILE --images FOLDER (A1)", WRONG_USAGE)
    if rule not in (*RULES, "both"):
        stop(f"no rule {rule!r}: give string, letters or both", WRONG_USAGE)
    output.check_target(out, [*(logits or ()), *filter(None, [questions])])
    with ending_bench():
        if questions is None:
            result: dict[str, Any] = {"task": "A3", "files": [assessment(file) for file in logits or []]}
        else:
            result = _multiple_choice(choice, questions, images, RULES if rule == "both" else (rule,), limit)
    with output.opened(out) as stream:
        stream.write(json.dumps(result, indent=2, ensure_ascii=False) if kind == "json" else markdown(result))
        stream.write("\n")
    if result.get("failed"):
        raise typer.Exit(SOME_FAILED)


def markdown(result: dict[str, Any]) -> str:
    """The table of one run: a row a file for A3, a row a group of questions for A1."""
    if result["task"] == "A3":
        return "\n".join([_row("file", "n", "SRCC", "PLCC"), _row("---", "--:", "--:", "--:"), *_a3_rows(result)])
    rules = [name for name in ("string", "letters") if name in result["overall"]]
    title = f"{result['model']} on {result['questions']}, LLVisionQA accuracy"
    head = [title, "", _row("questions", "n", "chance", *rules), _row("---", *["--:"] * (2 + len(rules)))]
    groups = {"overall": result["overall"], **result["types"], **result["concerns"]}
    body = [
        _row(name, group["n"], *(f"{100 * group[key]:.2f}" for key in ("chance", *rules)))
        for name, group in groups.items()
    ]
    return "\n".join(head + body)


def _a3_rows(result: dict[str, Any]) -> list[str]:
    return [_row(one["file"], one["n"], f"{one['srcc']:.3f}", f"{one['plcc']:.3f}") for one in result["files"]]


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _multiple_choice(
    choice: options.Choice, file: Path, images: Path | None, rules: Sequence[str], limit: int | None
) -> dict[str, Any]:
    from qsit_plugin.evaluation.multiple_choice import accuracy, answer_questions, read_questions

    from ..progress import Progress

    if images is None or not images.is_dir():
        stop(f"--questions needs --images, the folder of their photos; got {images}", WRONG_USAGE)
    asked = read_questions(file)[:limit]
    model = choice.open()
    answered: list[Answered] = []
    with Progress(len(asked)) as progress:
        for one in answer_questions(model, asked, images, rules=rules):
            answered.append(one)
            progress.advance()
            if one.error is not None:
                progress.line(f"qsit: {one.error}")
    about = {"model": model.name, "fingerprint": model.fingerprint, "dtype": str(model.dtype).removeprefix("torch.")}
    about["questions"] = file.name
    return {**accuracy(answered, rules), **about, "answers": [one.to_dict() for one in answered]}
