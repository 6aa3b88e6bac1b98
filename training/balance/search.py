"""A search from its settings to ratio.yaml."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..config import read_config
from ..requirements import require_training
from .analysis import first_stage, second_line
from .ratio import write_ratio
from .report import Report, make_report
from .settings import SearchSettings
from .study import open_study
from .trials import read_trials, run_trials


def search(
    settings: SearchSettings,
    *,
    worker: tuple[int, int] = (1, 1),
    keep: bool = False,
    say: Callable[[str], None] = print,
    log: Callable[[str], None] | None = None,
) -> Report | None:
    """Run the trials that are not finished, and write ratio.yaml. Stopped at any moment, the same call goes on.

    Returns None where other workers have trials to finish first. Raises ConfigError for everything that is wrong.
    """
    require_training()
    study = open_study(read_config(settings.run), settings)
    design, about = settings.design(len(study.groups)), study.record["validation"]
    if about["images_trained_on"]:
        say(f"{about['images_trained_on']:,} of the validation images are trained on too: figures on them are too good")
    run = partial(run_trials, study, worker=worker, keep=keep, say=say, log=log)
    finished = run(design.first())
    if finished is not None and design.staged:
        fit = first_stage(design, finished, settings.target(about["chance"]))
        quality = second_line(design, list(read_trials(study.output).values()), fit)
        say(f"first stage: {quality:.0%} of the interpreting data is quality data")
        finished = run(design.second(quality))
    if finished is None:
        return None
    report = make_report(study.output)
    write_ratio(report.ratio)
    return report
