"""JupyterLab as a reader meets it: open notebook 02, run all cells, and play the agent's episode."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import shoot

ROOT = Path(__file__).parents[2]
STATUS = "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """The address of a server on this machine whose folder holds notebook 02; it asks for no password."""
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "02_masked_ppo.ipynb", tmp_path / "notebooks")
    told = os.environ | {
        "MXNB_PRESET": "smoke",
        "MXNB_RUN_DIR": str(tmp_path / "run"),
        "PYTHONPATH": str(ROOT),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
    }
    flags = ["--no-browser", "--port=0", "--ip=127.0.0.1", "--IdentityProvider.token=", "--allow-root"]
    flags += ["--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={tmp_path}"]
    log = tmp_path / "lab.log"
    with log.open("w") as out:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *flags], env=told, stdout=out, stderr=out)
    try:
        for _ in range(600):
            found = re.search(r"http://127\.0\.0\.1:(\d+)/lab", log.read_text())
            if found:
                break
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        else:
            pytest.fail(log.read_text())
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        server.terminate()
        server.wait(30)


def test_run_all_and_play_the_episode(browser: Any, lab: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(f"{lab}/lab/tree/notebooks/02_masked_ppo.ipynb")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.wait_for_function(f"{STATUS} === 'idle'")
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_selector(".mxnb-player[data-ready]", state="attached", timeout=400_000)
    page.wait_for_function(f"{STATUS} === 'idle'", timeout=400_000)  # the cells below the player, too
    assert (
        page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr'] .ansi-red-fg").count() == 0
    )
    player = page.locator(".mxnb-player").first
    player.scroll_into_view_if_needed()
    player.locator("[aria-label=Speed]").select_option("40")
    player.locator("[aria-label=Play]").click()
    last = int(player.locator("[aria-label=Step]").get_attribute("max"))
    page.wait_for_function(
        f"document.querySelector('.mxnb-player').dataset.step === '{last}'", timeout=2_000 * (last / 40 + 10)
    )
    player.locator("[aria-label='Event before']").click()
    assert int(player.get_attribute("data-step")) < last
    player.focus()
    page.keyboard.press("Home")  # the notebook's own keys must not take it
    assert player.get_attribute("data-step") == "0"
    shoot(page, "jupyterlab-02")
    page.close()
