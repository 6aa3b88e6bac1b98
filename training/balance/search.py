"""A search from its settings to ratio.yaml."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..config import ConfigError, read_config
from ..requirements import require_training
from . import surface
from .analysis import first_stage, second_line
from .ratio import write_ratio
from .report import Report, make_report
from .settings import SearchSettings
from .study import open_study
from .trials import Worker, read_trials, run_trials


def search(
    settings: SearchSettings,
    *,
    worker: Worker | None = None,
    keep: bool = False,
    say: Callable[[str], None] = print,
    log: Callable[[str], None] | None = None,
) -> Report | None:
    """Run the trials that are not finished, and write ratio.yaml. Stopped at any moment, the same call goes on.

    Returns None where other workers have trials to finish first. Raises ConfigError for everything that is wrong.
    """
    require_training()
    worker = worker or Worker()
    config = read_config(settings.run)
    study = open_study(
        config,
        settings.output,
        samples=settings.samples,
        validation=settings.validation,
        sources=settings.sources,
        images=settings.validation_images,
        limit=settings.validation_limit,
        settings=settings.to_dict(),
    )
    design = settings.design(len(study.groups))
    _tell_overlap(Path(settings.output), say)
    planned = design.first()
    finished = run_trials(study, planned, worker=worker, keep=keep, say=say, log=log)
    if len(finished) == len(planned) and design.staged:
        from .study import read_record

        chance = read_record(study.output)["validation"]["chance"]
        try:
            fit = first_stage(design, finished, settings.target(chance))
        except surface.TooFewTrials as error:
            raise ConfigError(
                f"the first stage has too few different mixtures ({error}): give a longer quality_grid"
            ) from None
        quality = second_line(design, read_trials(study.output), fit)
        say(f"first stage: {quality:.0%} of the interpreting data is quality data")
        planned = design.second(quality)
        finished = run_trials(study, planned, worker=worker, keep=keep, say=say, log=log)
    if len(finished) < len(planned):
        say(
            f"{len(planned) - len(finished)} trials of other workers are not finished: when they are, give the same "
            "command again"
        )
        return None
    report = make_report(study.output)
    write_ratio(report.ratio)
    return report


def _tell_overlap(output: Path, say: Callable[[str], None]) -> None:
    from .study import read_record

    count = read_record(output)["validation"]["images_trained_on"]
    if count:
        say(f"{count:,} of the validation images are trained on too: figures on them are too good")
