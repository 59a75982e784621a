"""Achievements over time, rules with their ranges, and two runs compared."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mxnb import show
from mxnb.show._curves import middle_half
from mxnb.show._training import _brief


def rising(n: int = 40) -> list[dict[str, Any]]:
    """Wood is found more and more often, iron never; 4 episodes end in each row, in the last one 400."""
    return [
        {
            "update": u,
            "timesteps": 1000 * u,
            "time/wall_seconds": 6.0 * u,
            "train/num_episodes": 400.0 if u == n else 4.0,
            "train/mean_episode_return": float(u),
            "train/entropy_frac": 0.5 if u > 10 else 0.05,
            "train/approx_kl": 0.02,
            "stats/collect_wood": u / n,
            "stats/collect_iron": 0.0,
            "stats/cause/death": 1.0,
            "stats/life": 250.0,
        }
        for u in range(1, n + 1)
    ]


def test_the_heat_map_pools_over_episodes(make_run: Any, texts: Any, cut_off: Any) -> None:
    fig = show.achievements_over_time(make_run(rows=rising()), columns=4)
    (ax,) = fig.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["collect wood", "collect iron"]
    shown = np.asarray(ax.images[0].get_array())
    last = np.average([u / 40 for u in range(31, 41)], weights=[4.0] * 9 + [400.0])
    np.testing.assert_allclose(shown[0, -1], last)
    np.testing.assert_allclose(shown[0, 0], np.mean([u / 40 for u in range(1, 11)]))
    assert (shown[1] == 0).all() and not cut_off(fig)
    assert "environment steps (thousands)\nnumbers: % of the episodes that ended in that part" in texts(fig)


def test_the_heat_map_begins_and_ends_at_round_numbers(make_run: Any) -> None:
    rows = [row | {"timesteps": 24_975 * row["update"]} for row in rising()]
    (ax,) = show.achievements_over_time(make_run(rows=rows)).axes
    assert ax.images[0].get_array().shape == (2, 6)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "0.33", "0.67", "1"]
    assert [_brief(x) for x in (10.92, 122.6, 9.97, 0.0205, 1234.0)] == ["11", "123", "10", "0.021", "1,234"]


def test_parts_in_which_nothing_ended_stay_empty(make_run: Any) -> None:
    rows = [row | {"train/num_episodes": 0.0 if 10 < row["update"] <= 20 else 4.0} for row in rising()]
    (ax,) = show.achievements_over_time(make_run(rows=rows), columns=4).axes
    empty = np.ma.getmaskarray(ax.images[0].get_array())
    assert empty.tolist() == [[False, True, False, False]] * 2


def test_over_minutes(make_run: Any, texts: Any) -> None:
    run = make_run(rows=rising())
    assert any("minutes trained" in text for text in texts(show.achievements_over_time(run, x="minutes")))
    fig = show.health_curves(run, x="minutes")
    assert fig.axes[0].lines[0].get_xdata()[-1] == pytest.approx(4.0)
    with pytest.raises(ValueError, match="choose 'steps' or 'minutes'"):
        show.health_curves(run, x="hours")


def test_no_achievements_say_so(make_run: Any) -> None:
    with pytest.raises(ValueError, match="reports no achievements"):
        show.achievements_over_time(make_run(rows=[{"update": 1, "timesteps": 8, "train/num_episodes": 2.0}]))
    lives = [{name: value for name, value in row.items() if "collect" not in name} for row in rising()]
    with pytest.raises(ValueError, match="reports no achievements"):  # a life's length is no share
        show.achievements_over_time(make_run("lives", rows=lives))
    with pytest.raises(ValueError, match="columns is 0"):
        show.achievements_over_time(make_run("b"), columns=0)


def test_health_shades_what_is_healthy(make_run: Any, texts: Any, cut_off: Any) -> None:
    fig = show.health_curves(make_run(rows=rising()))
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["Policy entropy", "KL to the old policy"]
    assert fig.axes[1].get_ylabel().replace("\n", " ") == "approximate KL (nats)"
    band = fig.axes[0].patches[0].get_extents().transformed(fig.axes[0].transData.inverted())
    assert band.y0 == pytest.approx(0.1) and band.y1 >= 0.5
    sick = fig.axes[0].lines[1].get_xdata()
    assert list(sick) == list(range(1, 11)) and "environment steps (thousands)" in fig.axes[1].get_xlabel()
    assert "train/approx_kl, healthy: at most 0.06" in texts(fig) and not cut_off(fig)
    with pytest.raises(ValueError, match="no rows with the metrics"):
        show.health_curves(make_run("bare", rules=[]))


def shade(ax: Any) -> tuple[float, float]:
    box = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    return box.y0, box.y1


def dashes(ax: Any) -> list[float]:
    return [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"]


@pytest.mark.parametrize(
    ("low", "high", "value", "shaded", "bounds", "limits"),
    [
        (0.0, 0.3, 0.0, (0, 0.3), [0.3], (0, 0.33)),  # constantly 0: up to what is healthy
        (0.0, 0.0, 0.0, (-0.08, 0), [0.0], (-0.08, 1)),  # only 0 is healthy: the shade is below
        (None, 0.06, 0.001, (0, 0.0011), [], (0, 0.0011)),  # a bound far off would flatten the line
        (-1e-3, 0.06, 0.03, (0, 0.06), [0.06], (0, 0.066)),
        (0.1, 1.01, 0.5, (0.1, 0.55), [0.1], (0, 0.55)),  # the high end is room for rounding
        (0.1, 0.9, 0.01, (0.1, 0.132), [0.1], (0, 0.132)),
        (0.1, None, float("nan"), (0.1, 0.132), [0.1], (0, 0.132)),
    ],
)
def test_a_healthy_range_is_always_seen(
    make_run: Any, low: Any, high: Any, value: float, shaded: Any, bounds: list[float], limits: Any
) -> None:
    rows = [{"update": u, "timesteps": u, "train/some": value} for u in (1, 2, 3)]
    (ax,) = show.health_curves(make_run(rows=rows, rules=[{"metric": "train/some", "low": low, "high": high}])).axes
    assert shade(ax) == pytest.approx(shaded) and dashes(ax) == bounds and ax.get_ylim() == pytest.approx(limits)
    assert ax.get_title(loc="left") == "train/some"


def test_two_runs_compared(make_run: Any) -> None:
    first, second = make_run("a", rows=12), make_run("b", rows=20)
    told = json.loads((second / "config.json").read_text()) | {"seed": 7, "versions": {"jax": "0.9"}}
    (second / "config.json").write_text(json.dumps(told))
    found = show.compare(first, second)
    assert found.differences == {"total_timesteps": (1200, 2000), "seed": (0, 7), "version of jax": ("-", "0.9")}
    bundle = found._repr_mimebundle_()
    assert "seed: 0 / 7" in bundle["text/plain"] and "<td" in bundle["text/html"]
    same = show.compare(first, first)
    assert same.labels == ("a (first)", "a (second)") and "the same parameters" in repr(same)
    with pytest.raises(FileNotFoundError, match=r"no readable .*config\.json"):
        show.compare(first, first.parent)


def test_curves_over_minutes(make_run: Any, texts: Any) -> None:
    fig = show.curves(make_run(rows=rising()), x="minutes", smooth=0)
    assert fig.axes[0].lines[-1].get_xdata()[-1] == pytest.approx(4.0) and "minutes trained" in texts(fig)
    with pytest.raises(ValueError, match="choose 'steps' or 'minutes'"):
        show.curves(make_run("b"), x="hours")


def test_the_middle_half_ignores_the_outer_quarters() -> None:
    y = np.array([[-1000.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [1000.0]])
    mean, low, high = middle_half(y)
    assert mean == pytest.approx(3.5) and low < mean < high
    again = middle_half(y)
    assert (again[1], again[2]) == (low, high)
    wide = np.diff([m[0] for m in middle_half(np.random.default_rng(1).normal(size=(5, 1)))[1:]])
    narrow = np.diff([m[0] for m in middle_half(np.random.default_rng(1).normal(size=(80, 1)))[1:]])
    assert narrow < wide


def test_an_interval_for_several_runs(make_run: Any, texts: Any) -> None:
    runs = [make_run(f"s{i}", rows=20, start=float(i)) for i in range(5)]
    fig = show.curves({"ours": runs}, band="iqm", smooth=0)
    assert "mean of the middle half of the seeds; band: 95 % interval" in texts(fig)
    assert fig.axes[0].lines[0].get_ydata()[0] == pytest.approx(np.mean([1 + 1, 2 + 1, 3 + 1]))


def paid(n: int = 80) -> list[dict[str, Any]]:
    """100 steps a row with 4 episodes, so 25 an episode; a gain that grows, a loss that does not, and little else."""
    small = {f"reward/small_{i}": 0.001 for i in range(8)}
    return [
        {
            "update": u, "timesteps": 100 * u, "time/wall_seconds": 6.0 * u, "train/num_episodes": 4.0,
            "reward/stage_completion": 0.04 * u / n, "reward/damage": -0.02,
        } | small
        for u in range(1, n + 1)
    ]  # fmt: skip


def test_parts_of_the_reward_add_up_to_what_an_episode_paid(make_run, texts, cut_off):
    fig = show.reward_parts(make_run(rows=paid()))
    (ax,) = fig.axes
    (total, zero) = ax.lines
    assert list(zero.get_ydata()) == [0, 0] and len(total.get_xdata()) == 40
    assert (total.get_xdata()[-1], ax.get_xlabel()) == (8, "environment steps (thousands)")
    # The last part holds rows 79 and 80.
    assert total.get_ydata()[-1] == pytest.approx(25 * (0.04 * 79.5 / 80 - 0.02 + 8 * 0.001))
    words = [text.get_text() for text in fig.legends[0].get_texts()]
    assert words[:2] == ["stage completion", "damage"] and words[-2:] == ["others", "sum"] and len(words) == 9
    assert "reward an episode" in texts(fig) and not cut_off(fig)
    minutes = show.reward_parts(make_run("b", rows=paid()), x="minutes", most=1)
    assert minutes.axes[0].lines[0].get_xdata()[-1] == pytest.approx(8.0)
    assert [t.get_text() for t in minutes.legends[0].get_texts()] == ["stage completion", "others", "sum"]


def test_parts_that_are_not_there_are_told(make_run):
    with pytest.raises(ValueError, match="reports no parts of the reward, or no episode has ended yet"):
        show.reward_parts(make_run(rows=rising()))
    with pytest.raises(ValueError, match="most is 8; use 1 to 7"):
        show.reward_parts(make_run("b", rows=paid()), most=8)
