"""From the figures of trials to curves over mixtures, with bands and a best point that says how sure it is.

A figure over mixtures is a quadratic Scheffé polynomial, the textbook model for mixtures: over two components it is
the quadratic in one share. Along a line of mixtures there are two more forms, a + b exp(-k x) and a + b x^p, for a task
that has enough of its data soon: they fit a steep end that would bend a quadratic everywhere else. The form with the
smallest squared error is taken; all have three parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from qsit_plugin.errors import QSiTError

RATES = (2.0, 4.0, 8.0, 16.0, 32.0)
"""k of the saturating form."""
POWERS = (0.25, 0.5)
"""p of the power form."""
DRAWS = 1000
CONFIDENCE = 0.95


class TooFewTrials(QSiTError, ValueError):
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
            for power in POWERS:
                curve = points[:, share] ** power
                yield f"power {power:g} of share {share + 1}", np.column_stack([np.ones_like(curve), curve])


@dataclass(frozen=True)
class Surface:
    """A figure over mixtures.

    ``fit``: (m,) at the candidates; ``draws``: (B, m), the same after resampling; ``error``: standard deviation of
    the trials' residuals, with the parameters counted off.
    """

    form: str
    fit: np.ndarray
    draws: np.ndarray
    error: float

    def within(self, low: float, high: float) -> Surface:
        """The same, held inside what the figure can be."""
        return replace(self, fit=np.clip(self.fit, low, high), draws=np.clip(self.draws, low, high))

    def band(self, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.quantile(self.draws, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0)
        return low, high


def fit_surfaces(
    points: np.ndarray,
    figures: np.ndarray,
    candidates: np.ndarray,
    *,
    shifts: np.ndarray | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Surface]:
    """Surfaces of several figures of the same trials.

    Args:
        points: (n, q) shares of the trials. Those that all trials lack may be left out.
        figures: (n, f).
        candidates: (m, q) where the surfaces are wanted.
        shifts: (draws, n, f) by how much the figures are off in each draw beside what resampling tells: what the choice
            of validation rows does.
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
    weights = np.ones((draws, len(points)))
    weights[1::2] = [_resampled(points, terms, rng) for _ in range(draws // 2)]
    again = rng.integers(len(points), size=weights[::2].shape)  # the same rows for all figures
    surfaces = []
    for number, column in enumerate(figures.T):
        form, fitted, spread, fit = _fit_one(points, column, candidates)
        values = np.tile(column, (draws, 1))
        values[::2] = fitted + spread[again]
        if shifts is not None:
            values += shifts[:, :, number]
        left = column - fitted
        error = float(np.sqrt(left @ left / max(1, len(points) - _parameters(form, terms))))
        surfaces.append(Surface(form, fit, _refit(points, values, weights, candidates), error))
    return surfaces


def tied(values: np.ndarray, draws: np.ndarray, confidence: float = CONFIDENCE) -> tuple[int, np.ndarray]:
    """The best candidate, and a bool (m,) of all that the trials cannot tell from it.

    ``values``: (m,) of the objective, ``draws``: (B, m) of it. A candidate is worse where the best is ahead of it in
    all but (1 - ``confidence``) / 2 of the draws; or else it is tied.
    """
    best = int(np.argmax(values))
    ahead = np.mean(draws[:, [best]] > draws, axis=0)
    return best, ahead < 0.5 + confidence / 2


def noise(points: np.ndarray, figures: np.ndarray) -> np.ndarray:
    """Standard deviation (f,) of trials at equal mixtures with other seeds, pooled; nan without such."""
    total = np.zeros(figures.shape[1])
    for point in np.unique(points, axis=0):
        same = figures[np.all(points == point, axis=1)]
        total += ((same - same.mean(axis=0)) ** 2).sum(axis=0)
    free = freedom(points)
    return np.sqrt(total / free) if free else np.full(figures.shape[1], np.nan)


def freedom(points: np.ndarray) -> int:
    """Degrees of freedom of ``noise``: trials beyond the first of each mixture."""
    return len(points) - len(np.unique(points, axis=0))


def srcc_error(rho: float, count: int) -> float:
    """Standard error of SRCC from ``count`` images by itself: (1 - rho^2) sqrt((1 + rho^2 / 2) / (n - 3)) (Bonett and
    Wright, Psychometrika 2000)."""
    return (1.0 - rho**2) * float(np.sqrt((1.0 + rho**2 / 2.0) / max(count - 3, 1)))


def accuracy_error(accuracy: float, count: int) -> float:
    """Standard error of an accuracy on ``count`` questions by itself (binomial)."""
    return float(np.sqrt(accuracy * (1.0 - accuracy) / max(count, 1)))


def half_interval(parts: Sequence[tuple[float, float]], confidence: float = CONFIDENCE) -> float:
    """Half of the interval of a sum of independent estimates.

    ``parts``: variance of each and the degrees of freedom that this variance is known with (inf: known as it is).
    Student's t with Satterthwaite's degrees of freedom, as in Welch's test.
    """
    from scipy.stats import norm, t

    total = sum(variance for variance, _ in parts)
    unsure = sum(variance**2 / free for variance, free in parts)
    if total == 0.0:
        return 0.0
    level = 0.5 + confidence / 2
    quantile = float(norm.ppf(level) if unsure == 0.0 else t.ppf(level, total**2 / unsure))
    return quantile * float(np.sqrt(total))


def _parameters(form: str, terms: int) -> int:
    return terms if form == "quadratic" else 3  # rate or power is chosen too


def _fit_one(
    points: np.ndarray, values: np.ndarray, candidates: np.ndarray
) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """The best form, its values at the points, residuals made as wide as errors, and its values at the candidates. A
    fit pulls its points towards itself, so residuals are narrower than errors, by the leverage of each point."""
    tried = []
    for (form, terms), (_, wanted) in zip(forms(points), forms(candidates), strict=True):
        inverse = np.linalg.pinv(terms)
        left = values - terms @ (inverse @ values)
        tried.append((float(left @ left), form, terms, inverse, wanted))
    _, form, terms, inverse, wanted = min(tried, key=lambda one: one[0])
    fitted = terms @ (inverse @ values)
    leverage = np.einsum("ij,ji->i", terms, inverse)
    spread = (values - fitted) / np.sqrt(np.maximum(1.0 - leverage, 0.05))
    return form, fitted, spread - spread.mean(), wanted @ (inverse @ values)


def _refit(points: np.ndarray, values: np.ndarray, weights: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Fits of B resamples at once. values, weights: (B, n). Returns (B, m), each by the form that fits it best."""
    least = np.full(len(values), np.inf)
    out = np.empty((len(values), len(candidates)))
    for (_, terms), (_, wanted) in zip(forms(points), forms(candidates), strict=True):
        square = np.einsum("bn,np,nq->bpq", weights, terms, terms, optimize=True)
        right = np.einsum("bn,np->bp", weights * values, terms)
        found = np.einsum("bpq,bq->bp", np.linalg.pinv(square, rcond=1e-10, hermitian=True), right)
        errors = np.sum(weights * (values - found @ terms.T) ** 2, axis=1)
        better = errors < least
        least[better] = errors[better]
        out[better] = found[better] @ wanted.T
    return out


def _resampled(points: np.ndarray, terms: int, rng: np.random.Generator) -> np.ndarray:
    """How often each trial is drawn, with replacement, with enough different mixtures among them to fit a curve."""
    while True:
        rows = rng.integers(len(points), size=len(points))
        if len(np.unique(points[rows], axis=0)) > terms and np.linalg.matrix_rank(scheffe(points[rows])) == terms:
            return np.bincount(rows, minlength=len(points)).astype(float)
