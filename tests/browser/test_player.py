"""The player in a browser: it plays to its end without a kernel or a server, and nothing sticks out of a phone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import shoot

from mxnb.show._playback import Playback

NAMES = ("noop", "left", "right", "up", "down", "do", "sleep", "place stone", "place table", "make wood pickaxe")
EARNED = {"collect_wood": 7, "place_table": 23, "eat_cow": None, "make_wood_pickaxe": 24}


def an_episode(steps: int = 40, reward_at: int = 7) -> Any:
    """Frame t is all of colour t, so that a pixel tells which frame is shown."""
    draw = np.random.default_rng(0)
    frames = np.zeros((steps + 1, 63, 63, 3), np.uint8)
    frames[..., 0] = np.arange(steps + 1)[:, None, None] * 5
    infos = {
        name: (np.arange(steps) >= (steps if at is None else at)).astype(np.float32) for name, at in EARNED.items()
    }
    infos["cause/death"] = (np.arange(steps) == steps - 1).astype(np.float32)
    probs = draw.dirichlet(np.ones(len(NAMES)), steps)
    masks = np.ones((steps, len(NAMES)), bool)
    masks[:, 8:], probs[:, 8:] = False, 0.0
    rewards = np.where(np.arange(steps) == reward_at, 1.0, 0.0)
    return SimpleNamespace(
        frames=frames, actions=probs.argmax(-1), rewards=rewards, values=np.linspace(3, -0.4, steps),
        entropies=-(probs * np.log(np.maximum(probs, 1e-9))).sum(-1), probs=probs, masks=masks, terminated=True,
        truncated=False, action_names=NAMES, infos=infos, info={name: float(x[-1]) for name, x in infos.items()},
    )  # fmt: skip


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    both = Playback((an_episode(), an_episode(steps=12, reward_at=3)), title="two episodes")
    return both.save(tmp_path_factory.mktemp("player") / "episodes.html")


def shown_step(page: Any) -> int:
    """The step that the words tell; the frame's colour, the slider and the words must agree."""
    page.wait_for_timeout(60)
    colour = page.evaluate(
        "document.querySelector('[data-mx=frame]').getContext('2d').getImageData(5, 5, 1, 1).data[0]"
    )
    words = page.inner_text("[data-mx=said]")
    step = int(re.match(r"Step (\d+) of", words)[1])  # type: ignore[index]
    assert colour == 5 * step and page.input_value("[aria-label=Step]") == str(step)
    return step


def test_it_plays_to_the_last_frame_and_begins_anew(open_page: Callable[..., Any], page_file: Path) -> None:
    page = open_page(page_file)
    page.wait_for_selector("[data-ready]")
    assert shown_step(page) == 0
    page.select_option("[aria-label=Speed]", "40")
    page.click("[aria-label=Play]")
    page.wait_for_selector("[data-step='40']", timeout=10_000)
    assert shown_step(page) == 40 and page.get_attribute("[data-mx=play]", "aria-label") == "Play"
    assert "death" in page.inner_text("[data-mx=said]") and "return 1.00" in page.inner_text("[data-mx=said]")
    page.select_option("[aria-label=Speed]", "5")
    page.click("[aria-label=Play]")
    page.wait_for_selector("[aria-label=Pause]")
    page.wait_for_function("document.querySelector('.mxnb-player').dataset.step >= 2")
    page.click("[aria-label=Pause]")
    paused = page.get_attribute(".mxnb-player", "data-step")
    page.wait_for_timeout(200)
    assert page.get_attribute(".mxnb-player", "data-step") == paused


def test_it_jumps_to_events(open_page: Callable[..., Any], page_file: Path) -> None:
    page = open_page(page_file)
    seen = []
    for _ in range(4):
        page.click("[aria-label='Event after']")
        seen.append(shown_step(page))
    assert seen == [7, 23, 24, 40] and page.is_disabled("[aria-label='Event after']")
    page.click("[aria-label='Event before']")
    assert shown_step(page) == 24
    page.select_option("[aria-label='Jump to an event']", label="step 7: collect wood")
    assert shown_step(page) == 7
    assert page.inner_text("[data-mx=said]").startswith("Step 7 of 40: ") and "reward +1.00" in page.inner_text(
        "[data-mx=said]"
    )
    got = page.locator(".mx-yes").all_inner_texts()
    assert got == ["✓ collect wood, step 7"]


def test_keys_and_pointer(open_page: Callable[..., Any], page_file: Path) -> None:
    page = open_page(page_file)
    page.focus(".mxnb-player")
    for key, step in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 40), ("Home", 0), ("n", 7)):
        page.keyboard.press(key)
        assert shown_step(page) == step, key
    page.keyboard.press("p")
    assert shown_step(page) == 7  # nothing lies before
    page.keyboard.press(" ")
    page.wait_for_selector("[aria-label=Pause]")
    page.keyboard.press(" ")
    box = page.locator("[data-mx=time]").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 9, box["y"] + 20)
    assert shown_step(page) == 40
    page.fill("[aria-label=Step]", "13")
    assert shown_step(page) == 13


def test_actions_masks_and_the_other_episode(open_page: Callable[..., Any], page_file: Path) -> None:
    page = open_page(page_file)
    lines = page.locator(".mx-act")
    assert lines.count() == len(NAMES)
    assert lines.nth(9).inner_text().split("\n") == ["make wood pickaxe", "masked"]
    taken = an_episode().actions[0]
    assert page.locator(".mx-taken").all_inner_texts()[0].startswith(NAMES[taken])
    page.select_option("[aria-label=Episode]", "1")
    assert shown_step(page) == 0 and "of 12" in page.inner_text("[data-mx=said]")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, False), (360, True)])
def test_nothing_sticks_out(open_page: Callable[..., Any], page_file: Path, width: int, dark: bool) -> None:
    page = open_page(page_file, width, dark)
    page.click("[aria-label='Event after']")
    page.wait_for_timeout(100)
    shoot(page, f"player-{width}{'-dark' if dark else ''}")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = page.evaluate(
        """[...document.querySelectorAll(".mxnb-player *")]
        .filter(e => e.getClientRects().length && e.scrollWidth > e.clientWidth + 1)
        .filter(e => getComputedStyle(e).display !== "inline").map(e => e.className || e.tagName)"""
    )
    assert not outside
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, select, input, canvas')].filter(e => e.getClientRects().length && "
        "!e.getAttribute('aria-label')).map(e => e.outerHTML)"
    )
    assert not unnamed


def test_without_scripts_the_filmstrip_is_there(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.is_visible(".mx-strip img") and not page.is_visible(".mx-body")
    context.close()
