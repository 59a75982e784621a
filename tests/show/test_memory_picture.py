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
