"""``qsit train balance``: how much of each kind of data to train on, found with short runs of a light model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..failures import note
from .reporting import report_errors, say

if TYPE_CHECKING:
    from qsit_plugin.training.balance.report import Report

app = typer.Typer(
    no_args_is_help=True, help="Find the shares of scoring and interpreting data with short runs of a light model."
)

WorkerOption = Annotated[
    str,
    typer.Option("--worker", metavar="I/N", help="Run every N-th trial from the I-th on: one process a device."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also the lines of the trials' runs.")]


@app.command()
def search(
    settings: Annotated[str, typer.Argument(help="YAML with the settings of the search.")],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]...", help="Over the file's own lines, as in samples=4000."),
    ] = None,
    worker: WorkerOption = "1/1",
    keep: Annotated[bool, typer.Option("--keep", help="Keep the models and checkpoints of all trials.")] = False,
    verbose: Verbose = False,
) -> None:
    """Train the light model on many mixtures, and write ratio.yaml with the chosen one.

    Finished trials are lines of trials.jsonl in the output folder. Stop at any moment; the same command goes on, in the
    middle of a trial from its newest checkpoint. The table of the result is printed on stdout.
    """
    from qsit_plugin.training.balance.search import search as run_search
    from qsit_plugin.training.balance.settings import read_settings

    with report_errors(_same_command):
        chosen = read_settings(settings, changes or [])
        found = run_search(chosen, worker=_worker(worker), keep=keep, say=say, log=say if verbose else None)
        if found is not None:
            _show(found)


@app.command()
def report(
    folder: Annotated[str, typer.Argument(help="The output folder of a search.")],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]...", hidden=True),
    ] = None,
) -> None:
    """Fit the finished trials again, also of a search that is not finished; write ratio.yaml and print the table."""
    from qsit_plugin.training.balance.ratio import write_ratio
    from qsit_plugin.training.balance.report import make_report
    from qsit_plugin.training.config import ConfigError

    with report_errors(_same_command):
        if changes:
            raise ConfigError(
                f"{changes[0]}: settings of a report were removed with the objectives weighted and constrained, leave "
                "them out: a report uses the harmonic mean, and its Pareto set shows the other mixtures worth a look"
            )
        found = make_report(folder)
        write_ratio(found.ratio)
        _show(found)


@app.command()
def verify(
    ratio: Annotated[str, typer.Argument(help="ratio.yaml of a search.")],
    config: Annotated[str, typer.Argument(help="YAML with the settings of a run of the primary model.")],
    validation: Annotated[str, typer.Option(metavar="FILE", help="Rows to compare on, as for the search.")],
    output: Annotated[str, typer.Option("--out", "-o", metavar="FOLDER", help="For the trials of the comparison.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Over the lines of the run's settings.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Rows that every trial is trained on.")] = 4000,
    seeds: Annotated[int, typer.Option(min=1, help="Trials of each mixture.")] = 3,
    images: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Of the validation rows' images; by default the run's.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Validate on so many images at most.")] = None,
    worker: WorkerOption = "1/1",
    verbose: Verbose = False,
) -> None:
    """Compare the mixture of a ratio.yaml with the equal and the published one on the primary model.

    Writes verified: true into ratio.yaml only where it is better than the equal mixture beyond noise. Tells how often
    a gain of the paper's size would be found, and asks for more seeds where that is seldom. Goes on where it was
    stopped.
    """
    from qsit_plugin.training.balance.ratio import read_ratio
    from qsit_plugin.training.balance.settings import SearchSettings
    from qsit_plugin.training.balance.verify import verify as run_verify
    from qsit_plugin.training.balance.verify import verify_lines
    from qsit_plugin.training.config import read_config

    with report_errors(_same_command):
        trials = SearchSettings(
            run=config,
            output=output,
            validation=validation,
            samples=samples,
            seeds=tuple(range(seeds)),
            validation_images=images,
            validation_limit=limit,
        )
        chosen = read_config(config, changes or [])
        log = say if verbose else None
        done = run_verify(read_ratio(ratio), chosen, trials, worker=_worker(worker), say=say, log=log)
    if done is not None:
        typer.echo("\n".join(verify_lines(done)))


def _show(found: Report) -> None:
    from qsit_plugin.training.balance.plot import draw_plot
    from qsit_plugin.training.balance.report import report_lines

    typer.echo("\n".join(report_lines(found)))
    note(f"written: {found.ratio.path}")
    picture = draw_plot(found)
    note(f"written: {picture}" if picture else "no plot: matplotlib is not installed (pip install matplotlib)")


def _worker(text: str) -> tuple[int, int]:
    from qsit_plugin.training.config import ConfigError

    number, separator, count = text.partition("/")
    if not (separator and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(f"--worker {text}: write it as 1/4, 2/4, 3/4 and 4/4 for four devices")
    return int(number), int(count)


def _same_command() -> str:
    return "Finished trials are kept: the same command goes on, within a trial from its newest checkpoint"
