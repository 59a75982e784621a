"""The statistics of a sweep: the middle half, probability of improvement, and what a parameter explains.

Everything that is drawn by chance is drawn from a fixed seed, so a figure is the same every time.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

DRAWS = 2000  # resamples of a bootstrap, shuffles of a permutation band
LEAST = 4  # seeds; the middle half of fewer is all of them, and resampling them says little
FEW = 20  # ways to shuffle; of fewer, even the rarest happens more often than once in twenty
_VALUES = 8  # a number that takes more values than this is cut into parts
_INTERVAL = (2.5, 97.5)


def iqm(y: Any) -> np.ndarray:
    """Mean of the middle half along the last axis: floor(n / 4) values are dropped at each end.

    Source: Agarwal et al. 2021, arXiv:2108.13264.
    """
    y = np.sort(np.asarray(y, float), -1)
    cut = y.shape[-1] // 4
    return y[..., cut : y.shape[-1] - cut].mean(-1)


def middle(y: Any) -> tuple[float, float, float]:
    """(value, low, high) of one set's seeds [n]: `iqm` and its 95 % interval, by drawing n seeds anew.

    Of fewer than 4 the mean, and NaN where an interval would be made up.
    """
    y = np.asarray(y, float)
    if len(y) < LEAST:
        return float(y.mean()), math.nan, math.nan
    chosen = np.random.default_rng(0).integers(len(y), size=(DRAWS, len(y)))
    low, high = np.percentile(iqm(y[chosen]), _INTERVAL)
    return float(iqm(y)), float(low), float(high)


def improvement(x: Any, y: Any) -> tuple[float, float, float]:
    """(P(X > Y), low, high): how likely a seed of x [n] beats a seed of y [m], a tie counting half.

    U / (n m), with U of Mann and Whitney (1947); 95 % by resampling the seeds of each side, NaN where a side has fewer
    than 4. Source: Agarwal et al. 2021, arXiv:2108.13264.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    wins = (np.sign(x[:, None] - y[None]) + 1) / 2
    if min(wins.shape) < LEAST:
        return float(wins.mean()), math.nan, math.nan
    dice = np.random.default_rng(0)
    first, second = (dice.multinomial(n, np.full(n, 1 / n), size=DRAWS) / n for n in wins.shape)
    low, high = np.percentile(((first @ wins) * second).sum(1), _INTERVAL)
    return float(wins.mean()), float(low), float(high)


def explained(labels: Any, y: Any, strata: Any = None) -> Any:
    """Epsilon squared: the share of the variance of y [N] that groups explain, without the bias of many small groups.

    With k groups, B the sum of squares between their means and W within them, (B - (k - 1) W / (N - k)) / (B + W); the
    correlation ratio is B / (B + W). strata [N]: what else was varied. B and W are then those of y less the mean of its
    stratum, so that what else does is no part of W; N - k loses one for each stratum but the first, and the share stays
    one of all of y's variance. labels: whole numbers [..., N], of the same k groups. 0 where y does not vary (within
    strata) or there is one group; NaN where no run is left to measure noise by, as where each group has one member.
    Source: Kelley 1935, An unbiased correlation ratio measure.
    """
    labels, y = np.asarray(labels), np.asarray(y, float)
    off = y - y.mean()
    total = float(off @ off)
    different, stratum = np.unique(np.zeros(len(y)) if strata is None else strata, return_inverse=True)
    off = off - (np.bincount(stratum, off) / np.bincount(stratum))[stratum]
    within = float(off @ off)
    groups = np.unique(labels)
    free = len(y) - len(groups) - (len(different) - 1)
    if len(groups) < 2 or np.ptp(y) == 0 or within <= 1e-12 * total:  # less is what rounding leaves
        return np.zeros(labels.shape[:-1])
    if free < 1:
        return np.full(labels.shape[:-1], math.nan)
    between = np.zeros(labels.shape[:-1])
    for label in groups:
        member = labels == label
        between = between + (member @ off) ** 2 / np.maximum(member.sum(-1), 1)
    return (between - (len(groups) - 1) * (within - between) / free) / total


def ways(labels: np.ndarray, strata: np.ndarray) -> float:
    """In how many ways groups [N] can be laid out anew within their strata [N], whatever each group is called.

    Names do not count, for shares do not depend on them: 3 and 3 of 6 are 10 ways, the best of which comes up once in
    10 shuffles.
    """
    _, row = np.unique(strata, return_inverse=True)
    _, column = np.unique(labels, return_inverse=True)
    sizes = np.zeros((row.max() + 1, column.max() + 1))  # members of each group in each stratum
    np.add.at(sizes, (row, column), 1)
    _, alike = np.unique(sizes, axis=1, return_counts=True)  # groups that may change names
    fact = np.vectorize(lambda n: math.lgamma(n + 1))
    return math.exp(min(fact(sizes.sum(1)).sum() - fact(sizes).sum() - fact(alike).sum(), 700.0))


def shuffled(labels: np.ndarray, strata: np.ndarray, draws: int = DRAWS) -> np.ndarray:
    """labels [N] laid out anew at random within their strata [N], `draws` times: [draws, N]."""
    order = np.argsort(strata, kind="stable")
    _, stratum = np.unique(strata, return_inverse=True)
    drawn = np.argsort(stratum + np.random.default_rng(0).random((draws, len(labels))), axis=1)
    found = np.empty((draws, len(labels)), labels.dtype)
    found[:, order] = labels[drawn]
    return found


class Effect(NamedTuple):
    """What a parameter explains of the final metric's variance, and what 95 % of shuffles stay under."""

    name: str
    share: float
    band: float
    values: int  # or the parts that a range was cut into
    told: str = ""  # why there is no share, or no claim

    @property
    def real(self) -> bool:
        """Whether it explains more than chance does, and more than nothing."""
        return not self.told and self.share > max(0.0, self.band)


def effects(values: Mapping[str, Sequence[Any]], y: Any) -> list[Effect]:
    """The main effect of each parameter on y [N], the largest first; values: name -> [N], such as numbers or names.

    Parameters that always change together are one. The band holds 95 % of the shares of shuffled runs. In a grid, runs
    change places only with runs that differ in this parameter alone, so that another one's effect is never taken for
    noise; drawn at random, whole sets of values change places, so that seeds of one set are not taken for independent.
    A share, too, is measured after the crossed others have been taken out of y (`explained` with strata), else one
    beside a strong neighbour would look like less than nothing.
    """
    y = np.asarray(y, float)
    labels: dict[str, np.ndarray] = {}  # the values of a parameter, or the parts of a range
    codes: dict[str, np.ndarray] = {}
    for name, column in values.items():
        label = _codes(_parts(column))
        twin = next((other for other, known in labels.items() if (known == label).all()), "")
        if twin:
            labels, codes = ({f"{twin} + {name}" if k == twin else k: v for k, v in d.items()} for d in (labels, codes))
        elif label.max() > 0:
            labels[name], codes[name] = label, _codes(column)
    crossed = {name for name in codes if _crossed(codes, labels, name)}
    found = [_effect(name, labels[name], codes, crossed, y) for name in codes]
    return sorted(found, key=lambda effect: -effect.share if math.isfinite(effect.share) else math.inf)


def _effect(
    name: str, labels: np.ndarray, codes: Mapping[str, np.ndarray], crossed: Collection[str], y: np.ndarray
) -> Effect:
    count, drawn = int(labels.max()) + 1, [other for other in codes if other not in crossed]
    if count == len(y):
        return Effect(name, math.nan, math.nan, count, "one run a value: too few")
    if name in crossed:
        unit = np.arange(len(y))
        beside = strata = _together([code for other, code in codes.items() if other != name], len(y))
    else:
        unit = _together([codes[other] for other in drawn], len(y))
        strata = np.zeros(unit.max() + 1, int)
        beside = _together([codes[other] for other in codes if other in crossed], len(y))
        if len(drawn) > 1 and count > unit.max():
            return Effect(name, math.nan, math.nan, count, "one set a value: too few")
    share = float(explained(labels, y, beside))
    _, first = np.unique(unit, return_index=True)
    told = "" if math.isfinite(share) and ways(labels[first], strata) >= FEW else "too few runs to tell from chance"
    chance = explained(shuffled(labels[first], strata)[:, unit], y, beside)
    return Effect(name, share, float(np.percentile(chance, 95)), count, told)


def _codes(column: Sequence[Any]) -> np.ndarray:
    """A whole number for each value, in order of first appearance; values may be lists or dicts."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(repr(value), len(seen)) for value in column])


def _together(codes: Sequence[np.ndarray], n: int) -> np.ndarray:
    return _codes([tuple(int(code[i]) for code in codes) for i in range(n)])


def _crossed(codes: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], name: str) -> bool:
    """Whether most runs have one that differs in this parameter alone, as in a grid.

    A range is drawn at random, as is what takes so many values that each comes with one value of another parameter: a
    number in a search of few sets names its set.
    """
    own = codes[name]
    names_another = any(
        len(set(zip(own.tolist(), code.tolist(), strict=True))) == own.max() + 1
        for other, code in codes.items()
        if other != name
    )
    if own.max() != labels[name].max() or names_another:
        return False
    others = _together([code for other, code in codes.items() if other != name], len(own))
    several = {o for o in set(others.tolist()) if len(set(own[others == o].tolist())) > 1}
    return bool(np.isin(others, list(several)).mean() >= 0.5)


def is_range(column: Sequence[Any]) -> bool:
    """Whether a parameter takes so many numbers that they are cut into parts."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in column)
    return numbers and len(set(column)) > _VALUES


def _parts(column: Sequence[Any]) -> Any:
    """The values themselves, or of a range as many parts of equal size as hold five values each, two to five."""
    if not is_range(column):
        return column
    return parts(column, min(5, max(2, len(set(column)) // 5)))


def parts(column: Sequence[Any], count: int) -> np.ndarray:
    """Which of `count` parts each number lies in; each part holds about as many different numbers."""
    different, place = np.unique(np.asarray(column, float), return_inverse=True)
    return place * count // len(different)
