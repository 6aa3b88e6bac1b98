"""``qsit train``: from downloaded datasets to training rows, what a mixture of them amounts to, and fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..failures import WRONG_USAGE, ending, note, stop
from . import balance
from .convert import convert
from .evaluate import evaluate
from .reporting import report_errors, say, what_a_run_has_saved

app = typer.Typer(no_args_is_help=True, help="Fine-tune a model, and prepare the data for it.")

app.command()(convert)


@app.command()
def plan(
    mixture: Annotated[str, typer.Argument(help="YAML of datasets, json_path and sampling_strategy each; or rows.")],
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE.json", help="By default beside the YAML, as .plan.json.")
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Look here, by name, for files that are not at their json_path."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of random choices.")] = 0,
    rows: Annotated[int | None, typer.Option(min=1, help="Rows an epoch; by default all that are chosen.")] = None,
    world_size: Annotated[int, typer.Option(min=1, help="Ranks; the rows are rounded up to a multiple.")] = 1,
) -> None:
    """Print and save what a mixture amounts to: rows, shares and hashes of each source.

    Reads the YAML of the published data mix as it is: all, first:N, end:N, random:N, percentages such as random:22%.
    Which rows random takes depends on the seed and the file's name. A file of rows is a mixture of all its rows.
    """
    import json

    from qsit_plugin.training.data.mixture import MixtureError, plan_lines, plan_of, read_data

    from ..output import check_target

    target = Path(mixture).with_suffix(".plan.json") if out is None else Path(out)
    with ending(WRONG_USAGE, MixtureError, ModuleNotFoundError):
        found = read_data(mixture, seed=seed, folder=folder)
        check_target(str(target), [Path(mixture), *(source.path for source in found.sources)])
        content = plan_of(found, count=rows, world_size=world_size)
    typer.echo("\n".join(plan_lines(content)))
    target.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    note(f"written: {target}")


@app.command()
def run(
    config: Annotated[
        str, typer.Argument(help="YAML with the settings of the run; qsit train configs writes examples.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]...", help="Over the file's own lines, as in learning_rate=1e-5."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint of the output folder.")
    ] = False,
    mixture: Annotated[
        str | None,
        typer.Option(metavar="RATIO.yaml", help="Take the shares that qsit train balance search has found."),
    ] = None,
) -> None:
    """Fine-tune a model on rated images and conversations: LoRA or full.

    Settings, files, wording and lengths are checked before the first step. Several devices: torchrun --nproc-per-node N
    -m qsit_plugin.cli train run CONFIG, or accelerate launch. The folder of the result is printed on stdout.
    """
    from qsit_plugin.training.balance.ratio import as_settings, check_fits, read_ratio
    from qsit_plugin.training.config import read_config

    with report_errors(lambda: "Nothing is written yet: give the same command again"):
        ratio = None if mixture is None else read_ratio(mixture)
        changes = settings or []
        chosen = read_config(config, changes if ratio is None else as_settings(ratio, config, changes))
        if ratio is not None:
            check_fits(ratio, chosen)
    with report_errors(lambda: what_a_run_has_saved(chosen.output)):
        from qsit_plugin.training.requirements import require_training

        require_training()
        from qsit_plugin.training import run as finetune

        if ratio is not None and finetune.is_first():
            note(ratio.line())
        result = finetune.run(chosen, resume=resume, say=say, ratio=None if ratio is None else ratio.note())
    if finetune.is_first():
        typer.echo(result)


app.command()(evaluate)
app.add_typer(balance.app, name="balance")


@app.command()
def configs(folder: Annotated[str, typer.Argument(help="Where to; made if it is not there.")]) -> None:
    """Write example settings: for LoRA, full fine-tuning, a balance search, and several devices with accelerate."""
    from importlib.resources import files

    target = Path(folder)
    examples = sorted(
        (file for file in files("qsit_plugin.training").joinpath("configs").iterdir()), key=lambda f: f.name
    )
    there = [file.name for file in examples if (target / file.name).exists()]
    if there:
        stop(f"{', '.join(there)} in {target} would be overwritten: give another folder", WRONG_USAGE)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        stop(f"cannot make the folder {target}: {error.strerror}", WRONG_USAGE)
    for file in examples:
        (target / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8", newline="\n")
        typer.echo(target / file.name)
