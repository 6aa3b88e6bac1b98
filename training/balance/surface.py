"""From the figures of trials to curves over mixtures, with bands and a best point that says how sure it is.

A figure over mixtures is a quadratic Scheffé polynomial, the textbook model for mixtures: over two components it is the
quadratic in one share. Along a line of mixtures there is a second form, a + b exp(-k x), for a task that has enough of
its data soon: it fits a steep end that would bend a quadratic everywhere else. The form with the smaller squared error
is taken; both have three parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

RATES = (2.0, 4.0, 8.0, 16.0, 32.0)
"""k of the saturating form."""
DRAWS = 1000
CONFIDENCE = 0.95


class TooFewTrials(ValueError):
    """Not enough different mixtures to fit a curve; the message says how many there must be."""


def scheffe(points: np.ndarray) -> np.ndarray:
    """Points (n, q) -> terms (n, q + q (q - 1) / 2): the shares and their products."""
    products = [points[:, i] * points[:, j] for i, j in combinations(range(points.shape[1]), 2)]
    return np.column_stack([points, *products])


def forms(points: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Every form that may be fitted, as a name and its terms at the points."""
    yield "quadratic", scheffe(points)
    if points.shape[1] == 2:
        for share in (0, 1):
            for rate in RATES:
                curve = np.exp(-rate * points[:, share])
                yield f"saturating in share {share + 1}, rate {rate:g}", np.column_stack([np.ones_like(curve), curve])


@dataclass(frozen=True)
class Surface:
    """A figure over mixtures.

    ``fit``: (m,) at the candidates; ``draws``: (B, m), the same after resampling; ``residuals``: (n,) of the trials;
    ``error``: their standard deviation with the parameters counted off.
    """

    form: str
    fit: np.ndarray
    draws: np.ndarray
    residuals: np.ndarray
    error: float

    def band(self, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.quantile(self.draws, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0)
        return low, high


def fit_surfaces(
    points: np.ndarray, figures: np.ndarray, candidates: np.ndarray, *, draws: int = DRAWS, seed: int = 0
) -> list[Surface]:
    """Surfaces of several figures of the same trials.

    Args:
        points: (n, q) shares of the trials. Those that all trials lack may be left out.
        figures: (n, f).
        candidates: (m, q) where the surfaces are wanted.
        draws: half of them resample the trials, half the residuals. All figures of a trial stay together, so that
            objectives made of them have the right spread.

    Raises TooFewTrials for fewer different points than terms and one more.
    """
    points, figures = np.asarray(points, float), np.asarray(figures, float)
    terms = scheffe(points).shape[1]
    different = len(np.unique(points, axis=0))
    if different < terms + 1:
        raise TooFewTrials(f"{different} different mixtures are tried, a curve needs {terms + 1}")
    rng = np.random.default_rng(seed)
    chosen = [_best_form(points, column) for column in figures.T]
    errors = [_errors(points, form, column) for form, column in zip(chosen, figures.T, strict=True)]
    wanted = [dict(forms(candidates))[form] for form in chosen]
    out = np.empty((len(chosen), draws, len(candidates)))
    for draw in range(draws):
        if draw % 2:
            rows, again = _resampled(points, terms, rng), None
        else:
            rows, again = np.arange(len(points)), rng.integers(len(points), size=len(points))
        for number, column in enumerate(figures.T):
            fitted, spread = errors[number]
            values = column[rows] if again is None else fitted + spread[again]
            form = _best_form(points[rows], values)
            out[number, draw] = _predict(points[rows], values, form, candidates)
    surfaces = []
    for number, (form, column) in enumerate(zip(chosen, figures.T, strict=True)):
        fitted, _ = errors[number]
        left = column - fitted
        free = max(1, len(points) - _parameters(form, terms))
        error = float(np.sqrt(left @ left / free))
        fit = wanted[number] @ _solve(dict(forms(points))[form], column)
        surfaces.append(Surface(form, fit, out[number], left, error))
    return surfaces


def tied(values: np.ndarray, draws: np.ndarray, confidence: float = CONFIDENCE) -> tuple[int, np.ndarray]:
    """The best candidate, and a bool (m,) of all that the trials cannot tell from it.

    ``values``: (m,) of the objective, ``draws``: (B, m) of it. A candidate is worse where the best is ahead of it in
    at least ``confidence`` of the draws; or else it is tied. Where a resampled best lies is tied as well, all but the
    outermost draws.
    """
    best = int(np.argmax(values))
    ahead = np.mean(draws[:, [best]] > draws, axis=0)
    return best, ahead < confidence


def noise(points: np.ndarray, figures: np.ndarray) -> np.ndarray:
    """Standard deviation (f,) of trials at equal mixtures with other seeds, pooled; nan without such."""
    total, free = np.zeros(figures.shape[1]), 0
    for point in np.unique(points, axis=0):
        same = figures[np.all(points == point, axis=1)]
        total += ((same - same.mean(axis=0)) ** 2).sum(axis=0)
        free += len(same) - 1
    return np.sqrt(total / free) if free else np.full(figures.shape[1], np.nan)


def srcc_error(rho: float, count: int) -> float:
    """Standard error of SRCC from ``count`` images by itself: (1 - rho^2) sqrt((1 + rho^2 / 2) / (n - 3)) (Bonett and
    Wright, Psychometrika 2000)."""
    return (1.0 - rho**2) * float(np.sqrt((1.0 + rho**2 / 2.0) / max(count - 3, 1)))


def accuracy_error(accuracy: float, count: int) -> float:
    """Standard error of an accuracy on ``count`` questions by itself (binomial)."""
    return float(np.sqrt(accuracy * (1.0 - accuracy) / max(count, 1)))


def _parameters(form: str, terms: int) -> int:
    return 3 if form.startswith("saturating") else terms  # its rate is chosen too


def _solve(terms: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(terms, values, rcond=None)[0]


def _best_form(points: np.ndarray, values: np.ndarray) -> str:
    errors = {name: float(np.sum((values - terms @ _solve(terms, values)) ** 2)) for name, terms in forms(points)}
    return min(errors, key=lambda name: errors[name])


def _predict(points: np.ndarray, values: np.ndarray, form: str, candidates: np.ndarray) -> np.ndarray:
    return dict(forms(candidates))[form] @ _solve(dict(forms(points))[form], values)


def _errors(points: np.ndarray, form: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fitted values, and residuals (n,) made as wide as errors: a fit pulls its points towards itself."""
    terms = dict(forms(points))[form]
    fitted = terms @ _solve(terms, values)
    leverage = np.einsum("ij,ji->i", terms, np.linalg.pinv(terms))
    spread = (values - fitted) / np.sqrt(np.maximum(1.0 - leverage, 0.05))
    return fitted, spread - spread.mean()


def _resampled(points: np.ndarray, terms: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of trials drawn with replacement, with enough different mixtures among them to fit a curve."""
    while True:
        rows = rng.integers(len(points), size=len(points))
        if len(np.unique(points[rows], axis=0)) > terms and np.linalg.matrix_rank(scheffe(points[rows])) == terms:
            return rows
