"""What a run reports while it trains: a line for people, a row of log.jsonl, and trackers such as TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qsit_plugin.row_file import append_row, read_rows, write_whole

from .config import RunConfig
from .errors import ConfigError
from .loop import Loop, Step

LOG = "log.jsonl"


class RunLog:
    """Collects the losses of the steps, and reports their mean every ``log_every`` steps, by the first process."""

    def __init__(self, config: RunConfig, loop: Loop, say: Callable[[str], None]):
        self.config, self.loop, self.say = config, loop, say
        self.path = Path(config.output) / LOG
        self._losses: list[Any] = []
        self._begun, self._first = time.monotonic(), loop.done
        if loop.accelerator.is_main_process:
            cut(self.path, lambda row: row["step"] <= loop.done)
        self._trackers = _trackers(config) if loop.accelerator.is_main_process else []

    def step(self, step: Step) -> None:
        self._losses.append(step.loss)
        if step.number % self.config.log_every:
            return
        loss = float(self.loop.accelerator.gather(sum(self._losses)).mean()) / len(self._losses)
        self._losses = []
        if not self.loop.accelerator.is_main_process:
            return
        seconds = max(time.monotonic() - self._begun, 1e-9)
        speed = (step.number - self._first) / seconds
        rows = self.config.batch_size * self.config.gradient_accumulation * self.loop.accelerator.num_processes
        self.say(
            f"step {step.number}/{self.loop.total}  loss {loss:.4f}  gradient {step.grad_norm:.3g}  learning rate "
            f"{_rates(step.rates)}  {speed_text(speed * rows)}  {_span((self.loop.total - step.number) / speed)} left"
        )
        epoch = step.number / self.loop.steps_per_epoch
        figures = {"loss": loss, "grad_norm": step.grad_norm, "epoch": epoch}
        append_row(self.path, json.dumps({"step": step.number, **figures, "learning_rate": step.rates}))
        rates = {f"learning_rate/{name}": rate for name, rate in step.rates.items()}
        self.track(step.number, {f"train/{name}": value for name, value in (figures | rates).items()})

    def track(self, step: int, values: Mapping[str, float]) -> None:
        """Hand figures to the trackers alone."""
        for tracker in self._trackers:
            tracker.log(dict(values), step=step)

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.finish()


def logged(path: Path, needed: Sequence[str] = ("step",)) -> list[dict[str, Any]]:
    """The rows of a log. Raises ConfigError where a line was edited so that it has no such keys."""
    rows = []
    for number, line in enumerate(read_rows(path), 1):
        try:
            row = json.loads(line)
            if any(row[name] is None for name in needed):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            what = f"{path}, line {number} is no row of a log (an object with {' and '.join(needed)})"
            raise ConfigError(f"{what}: correct the line or take it out") from None
        rows.append(row)
    return rows


def cut(path: Path, stays: Callable[[dict[str, Any]], bool], needed: Sequence[str] = ("step",)) -> list[dict[str, Any]]:
    """Keep some rows of a log, since a run that goes on writes those after its checkpoint again; returns them. Raises
    as ``logged``."""
    kept = [row for row in logged(path, needed) if stays(row)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
    return kept


def _rates(rates: Mapping[str, float]) -> str:
    """``1e-05``, or by part where they differ: ``language 1e-05, vision 2e-06``."""
    parts = {name.removesuffix(", decaying"): f"{rate:.3g}" for name, rate in rates.items()}
    if len(set(parts.values())) == 1:
        return next(iter(parts.values()))
    return ", ".join(f"{name} {rate}" for name, rate in parts.items())


def speed_text(rows: float) -> str:
    return f"{rows:,.0f} rows/s" if rows >= 10 else f"{rows:.2g} rows/s"


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _trackers(config: RunConfig) -> list[Any]:
    """Those of ``report_to``, begun, with the configuration of the run."""
    if not config.report_to:
        return []
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    plain, begun = (int, float, str), []
    settings = {n: value if isinstance(value, plain) else str(value) for n, value in config.to_dict().items()}
    for name in config.report_to:
        kind = LOGGER_TYPE_TO_CLASS[name]
        places = {"logging_dir": config.output} if kind.requires_logging_directory else {}
        tracker = kind(name if places else "qsit", **places)
        tracker.start()
        tracker.store_init_configuration(settings)
        begun.append(tracker)
    return begun
