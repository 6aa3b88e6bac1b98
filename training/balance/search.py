"""A search from its settings to ratio.yaml."""

from __future__ import annotations

from collections.abc import Callable

from ..config import ConfigError, read_config
from ..requirements import require_training
from .analysis import first_stage, second_line
from .fit import TooFewTrials
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
    study = open_study(
        read_config(settings.run),
        settings.output,
        samples=settings.samples,
        validation=settings.validation,
        sources=settings.sources,
        images=settings.validation_images,
        limit=settings.validation_limit,
        settings=settings.to_dict(),
    )
    design, about = settings.design(len(study.groups)), study.record["validation"]
    if about["images_trained_on"]:
        say(f"{about['images_trained_on']:,} of the validation images are trained on too: figures on them are too good")
    planned = design.first()
    finished = run_trials(study, planned, worker=worker, keep=keep, say=say, log=log)
    if len(finished) == len(planned) and design.staged:
        try:
            fit = first_stage(design, finished, settings.target(about["chance"]))
        except TooFewTrials as error:
            raise ConfigError(
                f"the first stage has too few different mixtures ({error}): give a longer quality_grid"
            ) from None
        quality = second_line(design, read_trials(study.output), fit)
        say(f"first stage: {quality:.0%} of the interpreting data is quality data")
        planned = design.second(quality)
        finished = run_trials(study, planned, worker=worker, keep=keep, say=say, log=log)
    if len(finished) < len(planned):
        return None
    report = make_report(study.output)
    write_ratio(report.ratio)
    return report
