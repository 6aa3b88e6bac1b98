"""Validation during training: when, on which rows, the best state, and the mixture's feedback.

The model is measured in place, by the engine of inference, without a trace in the training itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from qsit_plugin.checkpoint import Checkpoint
from qsit_plugin.model import QSiT
from qsit_plugin.row_file import append_row, write_whole

from ..config import ConfigError
from ..data.rows import TrainingRow
from ..loop import Loop
from ..run_log import RunLog, cut
from . import best
from .feedback import DIVERGED, Balance
from .measure import Figures, validate
from .subset import stratified

JOURNAL, BALANCE = "validation.jsonl", "balance.json"


class Validation:
    """Validates, keeps the best state, and moves the mixture where there is a ``balance``.

    The first process does it and the others wait. What it found stands in ``validation.jsonl`` and ``balance.json`` of
    the output; a run that goes on keeps their lines up to its checkpoint and writes the later ones again.
    """

    def __init__(
        self,
        loop: Loop,
        checkpoint: Checkpoint,
        rows: Sequence[TrainingRow],
        balance: Balance | None,
        say: Callable[[str], None],
    ):
        self.loop, self.checkpoint, self.config, self.balance, self.say = loop, checkpoint, loop.config, balance, say
        self.rows = list(rows)
        self.some = stratified(rows, self.config.validate_rows, checkpoint.profile, self.config.seed)
        self.output = Path(self.config.output)
        self.best: tuple[float, float] | None = None
        self.since_best = 0

    def begin(self, log: RunLog, steps: int) -> None:
        """Take up the files of a run that goes on. ``steps``: how many it was to have when its checkpoint was saved."""
        self.log = log
        found: list[Any] = [0, None, []]
        if self._first:
            found = [*self._cut_journal(), self._cut_balance(steps)]
        self.since_best, self.best, history = broadcast_object_list(found)
        if self.balance is not None:
            self.balance.restore(history)

    def after(self, step: int) -> None:
        """What a step calls for. Raises ConfigError where the training has diverged."""
        last, epoch_ends = step >= self.loop.total, step % self.loop.steps_per_epoch == 0
        every = self.config.validate_every or self.loop.steps_per_epoch
        moves = self.balance is not None and epoch_ends and not last
        if not (last or moves or step % every == 0):
            return
        figures = self._validate(self.some, final=last and len(self.some) == len(self.rows))
        if self.balance is not None and moves:
            entry = None
            if figures is not None:
                entry = self.balance.entry(figures.score_loss or 0.0, figures.interpret_loss or 0.0, step)
            self.balance.apply(broadcast_object_list([entry])[0])
            if self._first:
                self._write_balance(self.balance)
                self.say(self.balance.line(self.balance.history[-1]))
        self.since_best = broadcast_object_list([self.since_best])[0]

    def exhausted(self) -> bool:
        """Whether ``early_stopping`` validations have passed without a better one."""
        return self.config.early_stopping is not None and self.since_best >= self.config.early_stopping

    def end(self) -> None:
        """All rows, after the last step."""
        if len(self.some) < len(self.rows):
            self._validate(self.rows, final=True)
            self.loop.accelerator.wait_for_everyone()

    @property
    def _first(self) -> bool:
        return bool(self.loop.accelerator.is_main_process)

    def _validate(self, rows: Sequence[TrainingRow], *, final: bool) -> Figures | None:
        """The figures, on the first process; None on the others."""
        if not self._first:
            return None
        step = self.loop.done
        try:
            with reading(self.loop, self.checkpoint) as model:
                figures = validate(model, rows, self.config.images)
        except FloatingPointError:
            raise ConfigError(f"at step {step} the scores are no longer finite: {DIVERGED}") from None
        about: dict[str, Any] = {"step": step, "epoch": step / self.loop.steps_per_epoch, "final": final}
        about |= {"rows": len(rows), "goal": best.goal(figures), **figures.to_dict()}
        # all rows at the end are another measure than some of them during training
        compared = len(rows) == len(self.some)
        better = compared and about["goal"] is not None and (self.best is None or best.rank(about) > self.best)
        about["best"] = better
        if better:
            self.best = best.rank(about)
            best.keep(self.loop.model, self.checkpoint, self.config, about)
        append_row(self.output / JOURNAL, json.dumps(about, ensure_ascii=False))
        if compared:
            self.since_best = 0 if better else self.since_best + 1
            measured = {*figures.to_dict(), "goal"}
            self.log.track(step, {f"eval/{n}": v for n, v in about.items() if n in measured and isinstance(v, float)})
        self.say(f"validation at step {step}, {len(rows):,} rows: {summary(figures)}" + "  best" * better)
        return figures

    # ---- records ----

    def _cut_journal(self) -> tuple[int, tuple[float, float] | None]:
        """Keep the lines up to a step; how many of them came after the best, and how good that is."""
        step, rows = self.loop.done, len(self.some)
        kept = cut(
            self.output / JOURNAL, lambda line: line["step"] <= step and line["rows"] == rows, ("step", "rows", "best")
        )
        bests = [number for number, line in enumerate(kept) if line["best"]]
        since = len(kept) - 1 - bests[-1] if bests else len(kept)
        return since, best.rank(kept[bests[-1]]) if bests else None

    def _cut_balance(self, steps: int) -> list[Any]:
        """The entries up to a step. Raises ConfigError where there are not as many as there were epochs."""
        path = self.output / BALANCE
        if self.balance is None:
            return []
        history = json.loads(path.read_text(encoding="utf-8"))["history"] if path.is_file() else []
        kept = [entry for entry in history if entry["step"] <= self.loop.done]
        epochs = min(self.loop.done, steps - 1) // self.loop.steps_per_epoch
        if len(kept) != epochs:
            raise ConfigError(
                f"{path} holds {len(kept)} of the {epochs} shares that this run has had: put the file back, or begin "
                "anew with another output"
            )
        return kept

    def _write_balance(self, balance: Balance) -> None:
        content = {"scoring_sources": list(balance.scoring), "history": balance.history}
        write_whole(self.output / BALANCE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def reading(loop: Loop, checkpoint: Checkpoint) -> Iterator[QSiT]:
    """The model that is being trained, as it is now, for inference; afterwards every module is in the mode it was in.

    It is the very module of ``checkpoint``, in which training changes the weights and an adapter its layers. What is
    computed in bfloat16 in training is so here.
    """
    modes = {module: module.training for module in loop.model.modules()}
    loop.model.eval()
    try:
        with loop.accelerator.autocast():
            yield QSiT(checkpoint, follow_autocast=True)
    finally:
        for module, mode in modes.items():
            module.training = mode


def summary(figures: Figures) -> str:
    """One line of what there is: ``SRCC 0.812  PLCC 0.790  accuracy 64.0% (chance 37.9%)  score loss …``."""
    parts = [
        f"{name} {value:.3f}" for name, value in (("SRCC", figures.srcc), ("PLCC", figures.plcc)) if value is not None
    ]
    if figures.accuracy is not None:
        parts.append(f"accuracy {figures.accuracy:.1%} (chance {figures.chance:.1%})")
    losses = (("score loss", figures.score_loss), ("interpret loss", figures.interpret_loss))
    parts += [f"{name} {value:.4f}" for name, value in losses if value is not None]
    return "  ".join(parts)
