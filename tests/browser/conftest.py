"""A real browser: Debian's chromium, driven by playwright. Where it is missing these tests are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SHOTS = Path(__file__).parents[2] / ".reports" / "screenshots"  # what people open and judge


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed; `make system` as root installs it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """open(path, width=1280, dark=False) -> the page of a file on disk; fails at the end on any error or request."""
    contexts, faults = [], []

    def open_file(path: Path, width: int = 1280, dark: bool = False) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", device_scale_factor=1
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        own = path.as_uri()
        page.on("request", lambda r: faults.append(r.url) if not r.url.startswith(("data:", own)) else None)
        page.goto(own)
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert not faults


def shoot(page: Any, name: str) -> None:
    """A picture of the whole page in .reports/screenshots."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
