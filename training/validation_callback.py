"""Validation while a model is trained: in place, by the engine of inference, without a trace in the training itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from qsit_plugin.checkpoint import Checkpoint
from qsit_plugin.model import QSiT
from qsit_plugin.row_file import append_row, read_rows, write_whole

from . import best
from .config import ConfigError, RunConfig
from .data.rows import TrainingRow
from .feedback import DIVERGED, Balance
from .subset import stratified
from .trainer import QSiTTrainer
from .validation import Figures, validate

JOURNAL = "validation.jsonl"
BALANCE = "balance.json"


class Validation(TrainerCallback):
    """Validates, keeps the best state, and moves the mixture where there is a ``balance``.

    The first process does it and the others wait. What it found stands in ``validation.jsonl`` and ``balance.json`` of
    the output; a run that goes on keeps their lines up to its checkpoint and writes the later ones anew.
    """

    def __init__(
        self,
        trainer: QSiTTrainer,
        checkpoint: Checkpoint,
        rows: Sequence[TrainingRow],
        config: RunConfig,
        balance: Balance | None,
        say: Callable[[str], None],
    ):
        self.trainer, self.checkpoint, self.config, self.balance, self.say = trainer, checkpoint, config, balance, say
        self.rows = list(rows)
        self.some = stratified(rows, config.validate_rows, checkpoint.profile, config.seed)
        self.output = Path(config.output)
        self.best: tuple[float, float] | None = None
        self.steps_per_epoch = -(-len(trainer.sampler) // (config.batch_size * config.gradient_accumulation))

    # ---- when ----

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        history: list[Any] = []
        if self._first:
            self._cut_journal(state.global_step)
            history = self._cut_balance(state.global_step)
        if self.balance is not None:
            self.balance.restore(broadcast_object_list([history])[0])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        last, epoch_ends = step >= state.max_steps, step % self.steps_per_epoch == 0
        every = self.config.validate_every or self.steps_per_epoch
        moves = self.balance is not None and epoch_ends and not last
        if not (last or moves or step % every == 0):
            return
        wanted = control.should_log  # which logging from here takes back
        figures = self._validate(self.some, state, final=last and len(self.some) == len(self.rows))
        control.should_log = wanted
        if self.balance is not None and moves:
            entry = None
            if figures is not None:
                entry = self.balance.entry(figures.score_loss or 0.0, figures.interpret_loss or 0.0, step)
            self.balance.apply(broadcast_object_list([entry])[0])
            if self._first:
                self._write_balance(self.balance)
                self.say(self.balance.line(self.balance.history[-1]))
        self.trainer.accelerator.wait_for_everyone()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if len(self.some) < len(self.rows):
            self._validate(self.rows, state, final=True)
            self.trainer.accelerator.wait_for_everyone()

    # ---- what ----

    @property
    def _first(self) -> bool:
        return bool(self.trainer.args.process_index == 0)

    def _validate(self, rows: Sequence[TrainingRow], state: Any, *, final: bool) -> Figures | None:
        """The figures, on the first process; None on the others."""
        if not self._first:
            return None
        try:
            with reading(self.trainer, self.checkpoint) as model:
                figures = validate(model, rows, self.config.images)
        except FloatingPointError:
            raise ConfigError(f"at step {state.global_step} the scores are no longer finite: {DIVERGED}") from None
        about: dict[str, Any] = {"step": state.global_step, "epoch": state.epoch, "final": final, "rows": len(rows)}
        about |= {"goal": best.goal(figures), **figures.to_dict()}
        # all rows at the end are another measure than some of them on the way
        compared = len(rows) == len(self.some)
        better = compared and about["goal"] is not None and (self.best is None or best.rank(about) > self.best)
        about["best"] = better
        if better:
            self.best = best.rank(about)
            best.keep(self.trainer.model, self.checkpoint, self.config, about)
        append_row(self.output / JOURNAL, json.dumps(about, ensure_ascii=False))
        if self.config.tensorboard and compared:
            measured = {*figures.to_dict(), "goal"}
            self.trainer.log({f"eval_{n}": v for n, v in about.items() if n in measured and isinstance(v, float)})
        self.say(f"validation at step {state.global_step}, {len(rows):,} rows: {summary(figures)}" + "  best" * better)
        return figures

    # ---- records ----

    def _cut_journal(self, step: int) -> None:
        """Keep the lines up to a step, and the best of them in mind."""
        self.output.mkdir(parents=True, exist_ok=True)
        path = self.output / JOURNAL
        lines = [json.loads(row) for row in read_rows(path)]
        kept = [line for line in lines if line["step"] <= step and line["rows"] == len(self.some)]
        self.best = max((best.rank(line) for line in kept if line["best"]), default=None)
        write_whole(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))

    def _cut_balance(self, step: int) -> list[Any]:
        """The entries up to a step. Raises ConfigError where there are not as many as there were epochs."""
        path = self.output / BALANCE
        if self.balance is None:
            return []
        history = json.loads(path.read_text(encoding="utf-8"))["history"] if path.is_file() else []
        kept = [entry for entry in history if entry["step"] <= step]
        epochs = min(step, self.trainer.state.max_steps - 1) // self.steps_per_epoch
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
def reading(trainer: QSiTTrainer, checkpoint: Checkpoint) -> Iterator[QSiT]:
    """The model that is being trained, as it is now, for inference; afterwards every module is in the mode it was in.

    It is the very module of ``checkpoint``, in which training changes the weights and an adapter its layers. What is
    computed in bfloat16 in training is so here.
    """
    modes = {module: module.training for module in trainer.model.modules()}
    trainer.model.eval()
    try:
        with trainer.accelerator.autocast():
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
