"""JupyterLab as a reader meets it: open notebook 02, run all cells, and play the agent's episode."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import shoot

ROOT = Path(__file__).parents[2]
STATUS = "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status"


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


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
        address = ""
        for _ in range(1200):  # it tells its address a moment before it listens there
            found = re.search(r"http://127\.0\.0\.1:(\d+)/lab", log.read_text())
            address = f"http://127.0.0.1:{found[1]}" if found else ""
            if address and answers(f"{address}/api"):
                break
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        else:
            pytest.fail(log.read_text())
        yield address
    finally:
        server.terminate()
        server.wait(30)


CELLS = (
    """import mxnb
from mxnb.agents.ppo import PPOConfig, ppo
config = PPOConfig(env_id="catch", total_timesteps=256, num_envs=8, num_steps=8, hidden_dim=8).resolve()
run = mxnb.fit(ppo(config, mxnb.make("catch")), "catch", save_updates=2)""",
    "rolls = mxnb.show.player(run)\nrolls",
    "game = mxnb.show.take_over(run, seed=3)\ngame",
)


def run_all(browser: Any, lab: str, name: str, width: int = 1280) -> Any:
    """The page of a notebook whose cells have all been run."""
    page = browser.new_page(viewport={"width": width, "height": 1000})
    page.goto(f"{lab}/lab/tree/notebooks/{name}")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.wait_for_function(f"{STATUS} === 'idle'")
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")  # comes back when all have run
    return page


def test_widgets_roll_out_and_hand_over(browser: Any, lab: str, tmp_path: Path) -> None:
    """What `player` and `take_over` show in a live front end: pictures change with every click and key."""
    import nbformat

    cells = [nbformat.v4.new_code_cell(text) for text in CELLS]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, tmp_path / "notebooks" / "widgets.ipynb")
    page = run_all(browser, lab, "widgets.ipynb")
    page.wait_for_selector("text=roll out", timeout=200_000)
    page.wait_for_selector("text=agent: one step", timeout=200_000)
    page.wait_for_function(f"{STATUS} === 'idle'", timeout=200_000)
    pictures, said = page.locator(".jupyter-widgets.widget-image"), page.locator(".widget-html-content")
    shown = lambda i: pictures.nth(i).evaluate(
        "async e => { await e.decode(); return (await (await fetch(e.src)).text()).length + e.src; }"
    )
    assert pictures.count() == 2 and "step 0 of 9" in said.nth(0).inner_text()
    first = shown(0)
    seed = page.locator(".jupyter-widgets input[type=number]").first
    seed.fill("12")
    seed.press("Enter")
    page.get_by_text("roll out").click()
    page.wait_for_function(f"{STATUS} === 'idle'")
    page.wait_for_timeout(500)
    assert shown(0) != first
    page.get_by_text("action 0 (a)").click()
    page.wait_for_selector("text=you: action 0")
    page.get_by_placeholder("or click here and type").press_sequentially("ca", delay=150)
    page.wait_for_selector("text=step 3:")
    page.get_by_text("agent: play on").click()
    page.wait_for_selector("text=step 9:")
    shoot(page, "jupyterlab-widgets")
    page.close()


def test_run_all_and_play_the_episode(browser: Any, lab: str) -> None:
    page = run_all(browser, lab, "02_masked_ppo.ipynb")
    page.wait_for_selector(".mxnb-player[data-ready]", state="attached", timeout=400_000)
    page.wait_for_function(f"{STATUS} === 'idle'", timeout=400_000)  # the cells below the player, too
    page.wait_for_selector("button:has-text('roll out')")  # somebody may click, so the notebook offers the widgets
    page.wait_for_selector("button:has-text('agent: play on')")
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


CHECKS = (
    "import mxnb\nmxnb.doctor()",
    """from mxnb.agents.ppo import PPOConfig
plan = mxnb.plan(PPOConfig(env_id="catch", total_timesteps=256, num_envs=8, num_steps=8, hidden_dim=8).resolve(), "T4")
mxnb.show.budget(plan)""",
)


@pytest.mark.parametrize("width", [1280, 700])
def test_doctor_and_budget_are_read_without_scrolling(browser: Any, lab: str, tmp_path: Path, width: int) -> None:
    import nbformat

    cells = [nbformat.v4.new_code_cell(text) for text in CHECKS]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "notebooks" / "checks.ipynb")
    page = run_all(browser, lab, "checks.ipynb", width)
    page.wait_for_selector(".jp-OutputArea-output img", timeout=200_000)
    table = page.locator(".jp-OutputArea-output table").first
    assert table.locator("tr").count() >= 11
    shoot(page, f"lab_doctor_{width}")
    for shown in (table, page.locator(".jp-OutputArea-output img").first):
        hidden = shown.evaluate(
            """e => { let most = 0;
            for (let o = e; o && !o.matches('.jp-Notebook'); o = o.parentElement)
                most = Math.max(most, e.getBoundingClientRect().right - o.getBoundingClientRect().right);
            return most; }"""
        )
        assert hidden <= 1, f"{hidden} pixels are cut off on the right"
