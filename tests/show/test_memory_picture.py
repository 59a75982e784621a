"""The budget as a picture: how much of the device, and what for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mxnb import show
from mxnb.run.memory import Budget
from mxnb.show._figures import BLUE, ORANGE

GIB = 2**30


def a_budget(work: float) -> Budget:
    parts = {"parameters": GIB // 8, "optimiser": GIB // 4, "environments": GIB // 8, "the rest": 64}
    return Budget("T4 (estimated)", int(11.2 * GIB), parts, int(work * GIB))


@pytest.mark.parametrize(("work", "words"), [(4.0, "planned for: 7.84 GiB"), (9.5, ", so it does not fit")])
def test_a_bar_within_the_device_and_one_of_parts(work: float, words: str, texts: Any, cut_off: Any) -> None:
    found = a_budget(work)
    fig = show.budget(SimpleNamespace(budget=found))  # a plan
    told = texts(fig)
    assert f"{work + 0.5:.3g} GiB of 11.2 GiB usable on T4 (estimated)" in told
    assert any(words in text for text in told) and not cut_off(fig)
    whole, kinds = fig.axes
    limit, peak = whole.patches
    assert peak.get_width() == found.peak and limit.get_width() == found.limit
    from matplotlib.colors import to_hex

    assert to_hex(peak.get_facecolor()).upper() == (BLUE if found.fits else ORANGE)
    assert [bar.get_label() for bar in kinds.containers] == [
        "parameters 128 MiB",
        "optimiser 256 MiB",
        "environments 128 MiB",
        f"work {work:.3g} GiB",
    ]
    assert sum(bar.get_width() for bar in kinds.patches) == pytest.approx(100, abs=1e-3)


def test_a_budget_can_be_drawn_by_itself() -> None:
    assert show.budget(a_budget(1.0)).axes


def test_several_budgets_lie_below_each_other(texts: Any, cut_off: Any) -> None:
    fig = show.budgets({"as it is": a_budget(4.0), "in 2 parts": SimpleNamespace(budget=a_budget(1.0))}, "Levers")
    (ax,) = fig.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["as it is", "in 2 parts"]
    assert {"Levers", "4.5 GiB", "1.5 GiB", "peak, GiB", "work"} <= set(texts(fig)) and not cut_off(fig)
    for i, whole in enumerate((4.5, 1.5)):  # each row's pieces touch and add up
        pieces = [c.patches[i] for c in ax.containers]
        assert sum(piece.get_width() for piece in pieces) == pytest.approx(whole, abs=1e-6)
        ends = [piece.get_x() + piece.get_width() for piece in pieces]
        assert [piece.get_x() for piece in pieces[1:]] == pytest.approx(ends[:-1])
    assert "the rest" not in texts(fig)  # 64 bytes


@pytest.mark.parametrize(("limit", "told"), [(7.84, "T4: 7.84 GiB planned for, 17 times the longest bar"), (0.3, "")])
def test_a_limit_is_a_line_where_it_is_near(limit: float, told: str, texts: Any, cut_off: Any) -> None:
    small = Budget("this CPU", GIB, {"parameters": GIB // 8}, GIB // 3)
    fig = show.budgets({"one": small}, limits={"T4": limit * GIB})
    words = "\n".join(texts(fig))
    assert (told in words) if told else ("times the longest" not in words)
    lines = [line for line in fig.axes[0].lines if line.get_label() == "planned for: T4"]
    assert len(lines) == (0 if told else 1) and not cut_off(fig)
    assert not lines or lines[0].get_xdata()[0] == pytest.approx(limit * 1024)  # in MiB


def test_each_field_has_its_memory_and_its_speed(texts: Any, cut_off: Any) -> None:
    rows = [
        {"field": field, "value": 2**k, "peak": 2**k * 10_000_000, "steps_per_second": None if k == 8 else 100.0 * k}
        for field in ("num_envs", "num_steps")
        for k in (8, 5, 6)
    ]
    fig = show.sizes(rows, {"T4: 7.84 GiB planned for": 7.84 * GIB})
    assert len(fig.axes) == 4 and not cut_off(fig)
    memory, speed = fig.axes[:2]
    assert list(memory.lines[0].get_xdata()) == [32, 64, 256] and list(speed.lines[0].get_xdata()) == [32, 64]
    assert list(speed.lines[0].get_ydata()) == [500.0, 600.0]
    assert memory.lines[0].get_ydata()[-1] == pytest.approx(256e7 / GIB)
    assert memory.lines[1].get_ydata()[0] == pytest.approx(7.84) and memory.get_ylim()[1] > 7.84
    assert {"Peak, GiB", "Steps per second", "num_envs", "256", "not\nrun", "T4: 7.84 GiB planned for"} <= set(
        texts(fig)
    )


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match="one at least"):
        show.budgets({})
    with pytest.raises(ValueError, match="one at least"):
        show.sizes([])
