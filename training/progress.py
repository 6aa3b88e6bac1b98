"""How far a run is: one line every few steps, for people and log files alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback


class Progress(TrainerCallback):
    """``step 20/100  loss 1.234  gradient 0.8  learning rate 1e-05  3.1 rows/s  2 min left``."""

    def __init__(self, say: Callable[[str], None], rows_per_step: int):
        self.say, self.rows_per_step = say, rows_per_step
        self._begun, self._first = 0.0, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begun, self._first = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        seconds = time.monotonic() - self._begun
        rate = (state.global_step - self._first) / max(seconds, 1e-9)
        left = (state.max_steps - state.global_step) / max(rate, 1e-9)
        self.say(
            f"step {state.global_step}/{state.max_steps}  loss {float(logs['loss']):.4f}  gradient "
            f"{float(logs.get('grad_norm', 0)):.3g}  learning rate {float(logs.get('learning_rate', 0)):.3g}  "
            f"{rate * self.rows_per_step:.2g} rows/s  {_span(left)} left"
        )


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
