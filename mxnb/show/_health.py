"""How healthy a run is, in words with the cure: the rules an agent wrote into config.json against its rows."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mxnb.show._runs import number, pooled_mean, read_json, read_metrics, run_path, tail

OK, WARNING, NO_DATA = "ok", "warning", "no data yet"
SIGNS = {OK: "✓", WARNING: "⚠", NO_DATA: "·"}


@dataclass(frozen=True)
class Judgement:
    """One rule's verdict: `state` is "ok", "warning" or "no data yet"; `value` the recent mean, or None."""

    metric: str
    value: float | None
    low: float
    high: float
    state: str
    words: str
    cure: str
    healthy: str = ""  # what is healthy where two bounds do not say it

    @property
    def range(self) -> str:
        """What is healthy, in words: "0.1 to 1", "at most 0.06", "at least 0.1".

        A low end at or below 0 is only room for rounding: no metric with a rule is meant to be negative.
        """
        if self.healthy:
            return self.healthy
        if math.isinf(self.low) and math.isinf(self.high):
            return "any number"
        if math.isinf(self.low) or (self.low <= 0 <= self.high < math.inf):
            return f"at most {self.high:g}"
        return f"at least {self.low:g}" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}"

    @property
    def number(self) -> str:
        """The value with three digits, or a dash."""
        return "-" if self.value is None else f"{self.value:.3g}"


@dataclass(frozen=True, repr=False)
class HealthTable:
    """The verdicts over a run; a table in a notebook, plain text elsewhere."""

    title: str
    judgements: tuple[Judgement, ...]

    @property
    def ok(self) -> bool:
        """True when no rule warns."""
        return not self.warnings

    @property
    def warnings(self) -> tuple[Judgement, ...]:
        """The rules that warn."""
        return tuple(j for j in self.judgements if j.state == WARNING)

    def __str__(self) -> str:
        lines = [self.title]
        width = max((len(j.metric) for j in self.judgements), default=0)
        for j in self.judgements:
            value = "" if j.value is None else f"  {j.number} (healthy: {j.range})"
            lines.append(f"  {SIGNS[j.state]} {j.metric:<{width}}  {j.state}{value}")
            if j.state == WARNING:
                lines += [f"      {j.words}", f"      Cure: {j.cure}"]
        return "\n".join(lines if self.judgements else [*lines, "  this run's config.json names no health rules"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        e = html.escape
        # No text colours but for the state, which also has a sign and a word: it must read in dark themes too.
        colour = {OK: "#009E73", WARNING: "#D55E00", NO_DATA: "#8A8A8A"}
        cell = "text-align:left;vertical-align:top;padding:4px 8px;white-space:normal"
        head = "".join(f'<th style="{cell}">{name}</th>' for name in ("", "metric", "now", "healthy", "what to do"))
        body = []
        for j in self.judgements:
            say = f"{e(j.words)}<br><b>Cure:</b> {e(j.cure)}" if j.state == WARNING else ""
            mark = f'<b style="color:{colour[j.state]};white-space:nowrap">{SIGNS[j.state]} {j.state}</b>'
            cells = (mark, f"<code>{e(j.metric)}</code>", e(j.number), e(j.range), say)
            body.append("<tr>" + "".join(f'<td style="{cell}">{text}</td>' for text in cells) + "</tr>")
        if not body:
            body = [f'<tr><td colspan="5" style="{cell}">this run\'s config.json names no health rules</td></tr>']
        return (
            f'<div style="overflow-x:auto"><b>{e(self.title)}</b><table style="border-collapse:collapse">'
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        )


def health(run_dir: Any) -> HealthTable:
    """Judge a run by the health rules in its config.json, over the last 10 % of its rows.

    Args:
        run_dir: the run folder, or the `Result` of `fit`.

    Returns:
        A table that a notebook shows as HTML and `print` as text; `.ok` and `.warnings` are for programs.
        A metric that no recent row has is "no data yet", a NaN is a warning.

    Raises:
        FileNotFoundError: the folder has no readable config.json.
    """
    folder = run_path(run_dir)
    config = read_json(folder, "config.json")
    if not config:
        raise FileNotFoundError(
            f"no readable {folder / 'config.json'}: give the folder that fit(agent, run_dir) wrote to, or train first."
        )
    try:
        rows = read_metrics(folder)
    except FileNotFoundError:
        rows = []  # the run has only begun
    recent = tail(rows)
    name = " on ".join(str(config[key]) for key in ("agent", "env") if config.get(key))
    when = f"mean of the last {len(recent)} of {len(rows)} updates" if rows else "no update has ended yet"
    verdicts = judge(config.get("health") or (), recent)
    return HealthTable(f"Health of {name or folder.name}: {when}", (*verdicts, *_learning(rows, recent)))


def _learning(rows: Sequence[dict[str, Any]], recent: Sequence[dict[str, Any]]) -> list[Judgement]:
    """The two rules about a run as a whole, where they are broken: the policy moves, the return rises."""
    broken = []
    if all(pooled_mean(recent, f"train/{name}") == 0 for name in ("approx_kl", "clip_frac")):
        words, cure = "KL and clip fraction are both 0: nothing is learned", "raise lr; check that rewards vary"
        broken.append(Judgement("policy moves", 0.0, 0.0, math.inf, WARNING, words, cure, "a KL above 0"))
    name, tenth = "train/mean_episode_return", len(rows) // 10
    first, last = (pooled_mean(part, name) for part in (rows[:tenth], rows[len(rows) - tenth :]))
    if tenth >= 5 and first is not None and last is not None:
        values = [value for row in rows[:tenth] if (value := number(row, name)) is not None]
        least = first + statistics.pstdev(values) / math.sqrt(tenth)
        if last <= least:
            words = f"the return is flat: {first:.3g} at first, {last:.3g} now"
            cure = "train longer, raise lr or ent_coef, look at an episode"
            broken.append(Judgement("return rises", last, least, math.inf, WARNING, words, cure))
    return broken


def judge(rules: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> tuple[Judgement, ...]:
    """Each rule {metric, low, high, words, cure} against the mean of its metric over `rows`."""
    verdicts = []
    for rule in rules:
        low, high = _bound(rule.get("low"), -math.inf), _bound(rule.get("high"), math.inf)
        value = pooled_mean(rows, rule["metric"])
        # Asked this way round, NaN warns.
        state = NO_DATA if value is None else OK if low <= value <= high else WARNING
        verdicts.append(Judgement(rule["metric"], value, low, high, state, rule.get("words", ""), rule.get("cure", "")))
    return tuple(verdicts)


def _bound(value: Any, otherwise: float) -> float:
    return otherwise if value is None else float(value)  # "inf" as a string too: strict JSON has no infinity
