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


def an_episode(
    steps: int = 40, reward_at: int = 7, names: tuple[str, ...] = NAMES, size: tuple[int, int] = (63, 63)
) -> Any:
    """Frame t is all of colour t, so that a pixel tells which frame is shown."""
    draw = np.random.default_rng(0)
    frames = np.zeros((steps + 1, *size, 3), np.uint8)
    frames[..., 0] = np.arange(steps + 1)[:, None, None] * 5
    infos = {
        name: (np.arange(steps) >= (steps if at is None else at)).astype(np.float32) for name, at in EARNED.items()
    }
    infos["cause/death"] = (np.arange(steps) == steps - 1).astype(np.float32)
    probs = draw.dirichlet(np.ones(len(names)), steps)
    masks = np.ones((steps, len(names)), bool)
    masks[:, 8:], probs[:, 8:] = False, 0.0
    rewards = np.where(np.arange(steps) == reward_at, 1.0, 0.0)
    return SimpleNamespace(
        frames=frames, actions=probs.argmax(-1), rewards=rewards, values=np.linspace(3, -0.4, steps),
        entropies=-(probs * np.log(np.maximum(probs, 1e-9))).sum(-1), probs=probs, masks=masks, terminated=True,
        truncated=False, action_names=names, infos=infos, info={name: float(x[-1]) for name, x in infos.items()},
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
    said = page.inner_text("[data-mx=said]")
    assert said.startswith("Step 7 of 40: ") and "event: collect wood · reward +1.00" in said
    assert page.locator(".mx-yes").count() == 0  # its action is about to be taken
    assert page.locator(".mx-now").all_inner_texts() == ["collect wood: now"]
    page.click("[aria-label='Step on']")
    assert page.locator(".mx-yes").all_inner_texts() == ["✓ collect wood, step 7"]
    assert page.locator(".mx-now").count() == 0 and "event" not in page.inner_text("[data-mx=said]")


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
    strip = page.locator(".mx-strip summary")
    assert strip.inner_text() == "Filmstrip of the first episode"
    strip.focus()
    page.keyboard.press(" ")  # opens what has the focus, and plays nothing
    assert page.is_visible(".mx-strip img") and page.get_attribute("[data-mx=play]", "aria-label") == "Play"
    assert not page.is_visible(".mx-still")


def test_actions_masks_and_the_other_episode(open_page: Callable[..., Any], page_file: Path) -> None:
    page = open_page(page_file)
    lines = page.locator(".mx-act")
    assert lines.count() == len(NAMES)
    assert lines.nth(9).inner_text().split("\n") == ["make wood pickaxe", "masked"]
    taken = an_episode().actions[0]
    assert page.locator(".mx-taken").all_inner_texts()[0].startswith(NAMES[taken])
    page.select_option("[aria-label=Episode]", "1")
    assert shown_step(page) == 0 and "of 12" in page.inner_text("[data-mx=said]")
    assert not page.is_visible(".mx-fold")  # few actions are all shown


MANY = (*NAMES, *(f"make something {i}" for i in range(33)))


def test_many_actions_fold_what_is_always_masked(open_page: Callable[..., Any], tmp_path: Path) -> None:
    """Rows keep their order and places while it plays; one that is legal at times says so where it is not."""
    first, free = an_episode(names=MANY), an_episode(12, 3, MANY)
    first.masks[20:, 9] = True
    free.masks[:] = True
    page = open_page(Playback((first, free)).save(tmp_path / "e.html"), 360)
    shown = page.locator(".mx-act:visible")
    names = lambda: [text.split("\n")[0] for text in shown.all_inner_texts()]
    assert names() == [*MANY[:8], MANY[9]]
    assert shown.last.inner_text().split("\n") == ["make wood pickaxe", "masked"]
    assert page.inner_text(".mx-fold summary") == "34 masked in the whole episode"
    page.fill("[aria-label=Step]", "20")
    assert names() == [*MANY[:8], MANY[9]] and shown.last.inner_text() != "make wood pickaxe\nmasked"
    page.click(".mx-fold summary")
    assert names() == [*MANY[:8], MANY[9], MANY[8], *MANY[10:]]
    assert shown.last.inner_text().split("\n") == [MANY[-1], "masked"]
    page.select_option("[aria-label=Episode]", "1")
    assert names() == list(MANY) and not page.is_visible(".mx-fold")
    assert page.locator("[data-mx=got]").bounding_box()["y"] < page.locator("[data-mx=acts]").bounding_box()["y"]


INKED = """() => {
  const canvas = document.querySelector("[data-mx=time]");
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return [...data].filter((v, i) => i % 4 === 3 && v).length;
}"""
DRAWN = "document.querySelector('[data-mx=time]').toDataURL()"


def test_the_timeline_is_drawn_and_its_cursor_moves(open_page: Callable[..., Any], page_file: Path) -> None:
    page = open_page(page_file)
    page.wait_for_timeout(100)
    assert page.evaluate(INKED) > 1500
    first = page.evaluate(DRAWN)
    page.click("[aria-label='Step on']")
    assert page.evaluate(DRAWN) != first


def test_the_cursor_hides_neither_reward_nor_event(open_page: Callable[..., Any], page_file: Path) -> None:
    page = open_page(page_file)
    page.wait_for_timeout(100)
    marked = """() => {
      const canvas = document.querySelector("[data-mx=time]"), pen = canvas.getContext("2d");
      const data = pen.getImageData(0, 0, canvas.width, canvas.height).data, found = [0, 0];
      const dots = canvas.height - 36;
      for (let i = 0; i < data.length; i += 4)
        if (data[i] === 213 && data[i + 1] === 94 && data[i + 2] === 0) found[+(i / 4 / canvas.width >= dots)] += 1;
      return found;
    }"""
    before = page.evaluate(marked)
    page.click("[aria-label='Event after']")
    assert shown_step(page) == 7
    assert min(before) > 10 and page.evaluate(marked) == before


def test_two_players_on_one_page_do_not_disturb_each_other(open_page: Callable[..., Any], tmp_path: Path) -> None:
    """As in a notebook whose cell was run twice, or that shows two agents."""
    parts = [Playback((an_episode(),)).html(), Playback((an_episode(steps=12, reward_at=3),)).html()]
    path = tmp_path / "two.html"
    path.write_text("<!doctype html><meta charset=utf-8>" + "".join(parts))
    page = open_page(path)
    players = page.locator(".mxnb-player[data-ready]")
    assert players.count() == 2
    players.nth(1).locator("[aria-label='Step on']").click()
    assert [players.nth(i).get_attribute("data-step") for i in (0, 1)] == ["0", "1"]


@pytest.mark.parametrize(
    ("width", "dark", "actions"),
    [(1280, False, 10), (360, False, 10), (360, True, 10), (1280, False, 43), (360, False, 43)],
)
def test_nothing_sticks_out(
    open_page: Callable[..., Any], tmp_path: Path, width: int, dark: bool, actions: int
) -> None:
    names = MANY[:actions]
    path = Playback((an_episode(names=names), an_episode(12, 3, names)), "two episodes").save(tmp_path / "e.html")
    page = open_page(path, width, dark)
    page.click("[aria-label='Event after']")
    page.wait_for_timeout(100)
    shoot(page, f"player-{width}{'-dark' if dark else ''}{'-many' if actions > 10 else ''}")
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


@pytest.mark.parametrize(("size", "shown"), [((63, 63), 440), ((536, 304), 304), ((300, 700), 440)])
def test_a_large_picture_is_shown_as_it_is(
    open_page: Callable[..., Any], tmp_path: Path, size: tuple[int, int], shown: int
) -> None:
    """A picture with words in it is neither enlarged nor made smaller where there is room; a phone has room for 304."""
    path = Playback((an_episode(12, 3, size=size),), "one").save(tmp_path / "e.html")
    wide = "document.querySelector('[data-mx=frame]').getBoundingClientRect().width"
    page = open_page(path)
    page.wait_for_selector("[data-ready]")
    assert page.evaluate(wide) == pytest.approx(shown, abs=15)
    phone = open_page(path, 360)
    phone.wait_for_selector("[data-ready]")
    assert phone.evaluate(wide) == pytest.approx(min(shown, 314), abs=15)
    inside = "document.querySelector('[data-mx=frame]').clientWidth"
    assert size[1] != 304 or page.evaluate(inside) == phone.evaluate(inside) == 304


def test_without_scripts_the_filmstrip_is_there(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.is_visible(".mx-strip img") and not page.is_visible(".mx-body")
    assert "File > Trust Notebook" in page.inner_text(".mx-still")
    context.close()


def test_an_exported_notebook_keeps_the_player(browser: Any, tmp_path: Path) -> None:
    """nbconvert's HTML, opened where no server can be reached."""
    import nbformat
    from nbconvert import HTMLExporter

    shown = Playback((an_episode(),))._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", data=shown)
    cell = nbformat.v4.new_code_cell("watched", outputs=[output], execution_count=1)
    text, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    path = tmp_path / "exported.html"
    path.write_text(text)
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(path.as_uri(), wait_until="domcontentloaded")
    page.wait_for_selector(".mxnb-player[data-ready]")
    page.click("[aria-label='Event after']")
    assert shown_step(page) == 7
    context.close()
