"""A run's page, opened from disk: it asks no server, and nothing is cut off on a phone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import shoot

from mxnb import fit, make, show
from mxnb.agents.ppo import PPOConfig, ppo


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run on a probe with a mask and pictures, which it learns within seconds."""
    config = PPOConfig(env_id="catch", total_timesteps=16_384, num_envs=16, num_steps=16, hidden_dim=32).resolve()
    folder = tmp_path_factory.mktemp("runs") / "catch"
    fit(ppo(config, make("catch")), folder)
    return show.page(folder)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, False), (360, True)])
def test_it_opens_from_disk(open_page: Callable[..., Any], page_file: Path, width: int, dark: bool) -> None:
    page = open_page(page_file, width, dark)
    page.wait_for_selector(".mxnb-player[data-ready]")
    shoot(page, f"page-{width}{'-dark' if dark else ''}")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("h2").all_inner_texts() == [
        "Watch it play",
        "What it learned",
        "How healthy it is",
        "How often each achievement was reached",
        "When each was learned",
        "Parameters, and where each came from",
        "What it ran on",
    ]
    assert page.locator("section:nth-of-type(2) img").evaluate("e => e.naturalWidth") > 300
    assert "reports no achievements" in page.locator("section:nth-of-type(4)").inner_text()
    text = page.locator("section:nth-of-type(6)").inner_text()
    assert "total_timesteps" in text and "16,384" in text and "given" in text
    health = page.locator("section:nth-of-type(3)")
    assert "no mask here" in health.inner_text() and "at least 0.1" in health.inner_text()
    numbers = health.locator("td:nth-child(2)")
    lines = """all => all.map(e => {
      const words = document.createRange(); words.selectNodeContents(e); return words.getClientRects().length; })"""
    assert numbers.evaluate_all(lines) == [1] * numbers.count()  # 4.9e-06 is not broken in two
    wide = page.evaluate(
        """[...document.querySelectorAll("section, table, img, p")]
        .filter(e => e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 1)
        .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert not wide
