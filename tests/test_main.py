"""The command line: every option reaches what notebooks use, and every mistake is told before anything is trained."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mxnb.__main__ import _field_docs, main
from mxnb.agents.ppo import PPOConfig
from mxnb.agents.ppo_rnn import PPORnnConfig
from mxnb.config import ALIASES

TINY = "--num-envs 8 --num-steps 8 --total-timesteps 256 --hidden-dim 8 --preset smoke --env-id Probe-Mask"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(line: str) -> int:
    return main(line.split())


def refused(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        run(line)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_train_evaluate_and_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "papermill_runs" / "local" / "mine"
    (tmp_path / "notebooks").mkdir()
    assert (
        run(f"train {TINY} --agent ppo --run-dir {folder} --learning-rate 1e-2 -p ent_coef 0.02 --eval-updates 2") == 0
    )
    said = capsys.readouterr().out
    assert "lr                   0.01" in said and "override" in said and "finished after 4 updates" in said
    config = json.loads((folder / "config.json").read_text())
    assert config["config"]["env_id"] == "probe-mask-v0" and config["config"]["ent_coef"] == 0.02
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [("eval/return" in row) for row in rows] == [False, True, False, True]
    assert f"a page to look at: {folder / 'page.html'}" in said
    assert "mxnb-player" in (folder / "page.html").read_text()

    assert run(f"train {TINY} --run-dir {folder} --learning-rate 1e-2 -p ent_coef 0.02") == 0
    assert "nothing is trained" in capsys.readouterr().out

    assert run(f"train {TINY} --run-dir {folder}/compare/other --seed 1") == 0  # a part of the run, though newer
    capsys.readouterr()
    assert run("evaluate --run latest --episodes 20 --greedy") == 0
    said = capsys.readouterr().out
    found = json.loads((folder / "evaluation.json").read_text())
    assert found["episodes"] == 20 and found["length"]["mean"] == 1 and 0 <= found["return"]["mean"] <= 1
    assert "20 whole episodes, greedy" in said and "written to" in said

    assert run("watch --run latest --episodes 2 --seed 4 --greedy --gif") == 0
    said = capsys.readouterr().out
    page = folder / "episodes" / "player-seed-4-greedy.html"
    assert f"written to {page}\nwritten to {page.with_suffix('.gif')}\n" in said and "1 steps, return" in said
    assert page.read_text().count('"name":"') == 2
    assert "<title>ppo in mine, newest policy: probe-mask-v0, greedy, seed 4</title>" in page.read_text()
    (folder / "page.html").unlink()
    assert run("watch --run latest --checkpoint 4 --page") == 0
    said = capsys.readouterr().out
    assert said.endswith(f"player-checkpoint-4-seed-0.html\nwritten to {folder / 'page.html'}\n")
    assert "<title>ppo in mine, policy of update 4: " in next(folder.glob("episodes/*4-seed-0.html")).read_text()

    assert run("runs") == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and "done" in said[3] and "probe-mask-v0" in said[3] and said[3].endswith("mine")


def test_recurrent_from_the_command_line_and_a_warm_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"train {TINY} --agent ppo_rnn --run-dir first") == 0
    assert run(f"train {TINY} --agent ppo_rnn --run-dir second --init-from first --seed 1 --log-interval 1") == 0
    said = capsys.readouterr().out
    assert "began with the policy of first" in said
    assert json.loads((tmp_path / "second" / "config.json").read_text())["init_from"] == "first"
    assert run("evaluate --run second --episodes 4 --out e.json") == 0
    assert json.loads((tmp_path / "e.json").read_text())["env"] == "probe-mask-v0"


@pytest.mark.parametrize("policy", ["random", "noop"])
def test_policies_that_were_not_trained(policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"evaluate --policy {policy} --env-id probe-action-v0 --episodes 400 --out o.json") == 0
    found = json.loads((tmp_path / "o.json").read_text())
    low, high = found["return"]["low"], found["return"]["high"]
    assert low <= (0 if policy == "random" else -1) <= high
    assert run(f"evaluate --policy {policy} --env-id pendulum-v1 --episodes 2") == 0
    assert "return" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train cartpole-v1", "unexpected argument cartpole-v1; every value follows its option"),
        ("train --num-env 8", "error: unknown option --num-env (did you mean --num-envs or --n-envs?)\n"),
        ("train --agent pppo --env-id cartpole-v1", "unknown agent 'pppo'; did you mean ppo?"),
        (
            f"train {TINY} -p num_epochs 3",
            "num_epochs: unknown field of PPOConfig (did you mean num_steps or update_epochs?)",
        ),
        (f"train {TINY} --gamma 1.5", "discount is 1.5; use a number from 0 to 1"),
        (f"train {TINY} --num-minibatches two", "num_minibatches: expected a whole number, got 'two'"),
        (f"train {TINY} --lr 1 -p learning_rate 2", "lr: given more than once; give it once, as an option or with -p"),
        (f"train {TINY} --use-mask maybe", "use_mask: expected True or False, got 'maybe'"),
        (f"train {TINY} --init-from nowhere", "there is no folder nowhere; `python -m mxnb runs` lists the runs"),
        ("train --preset smoke --env-id cartpol", "did you mean cartpole-v1"),
        (f"train {TINY} --project games", "--rewind and --no-artifact need --wandb"),
        ("train --preset small", "'small' is not one of smoke, cpu"),
        (f"train {TINY} --save-updates -1 --keep 0", "save_updates is -1; use 0 or more; keep is 0; use 1 or more"),
        (f"train {TINY} --eval-updates 2 --eval-episodes 0", "eval_episodes is 0; use 1 or more"),
        (f"train {TINY} -p lr 1 -p learning_rate 2", "lr: given more than once; give it once"),
        (f"train {TINY} --lambda 0.9 -p lambda 0.8", "lambda_: given more than once"),
        ("evaluate --policy noop --env-id catch-bsuite --checkpoint 3", "--checkpoint needs --run"),
        ("evaluate --episodes 3", "one of the arguments --run --policy is required"),
        ("evaluate --policy random", "--policy needs --env-id"),
        ("evaluate --run nowhere", "there is no folder nowhere"),
        ("evaluate --run latest", "no run with a policy in"),
        ("watch --run latest", "no run with a policy in"),
        ("watch --run . --episodes 0", "--episodes is 0; use at least 1"),
        ("watch --run .", "has no policy yet; wait for its first save, or train it to the end"),
        ("watch --run . --checkpoint new", "--checkpoint is 'new'; it takes the number of an update, or best"),
        ("evaluate --policy noop --env-id catch-bsuite --episodes 0", "--episodes is 0; use at least 1"),
    ],
)
def test_mistakes_are_told(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in refused(line, capsys)


@pytest.mark.parametrize(("agent", "config_class"), [("ppo", PPOConfig), ("ppo_rnn", PPORnnConfig)])
def test_help_names_every_field_with_its_words_and_aliases(
    agent: str, config_class: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(f"train --agent {agent} --help")
    assert stopped.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    names = {f.name for f in fields(config_class)} - {"origins"}
    docs = _field_docs(config_class)
    assert set(docs) == names and all(docs.values())
    for name in (*names, *ALIASES):
        assert f"--{name.strip('_').replace('_', '-')} " in said.replace(",", " ")
    assert "Ratios outside 1 +- clip_eps earn no further gradient." in said
    assert docs["num_layers"].endswith("behind the memory." if agent == "ppo_rnn" else "actor and critic.")


def test_policies_that_do_not_fit_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"train {TINY} --run-dir here --eval-updates 2") == 0
    said = refused("evaluate --run here --env-id cartpole-v1", capsys)
    assert "the policy was made for probe-mask-v0 (observation" in said
    assert "--checkpoint is 'last'; it takes the number of an update, or best" in refused(
        "evaluate --run here --checkpoint last", capsys
    )
    said = refused(f"train {TINY} --run-dir there --init-from here --num-layers 3", capsys)
    assert "holds other parameters than this network" in said and not Path("there").exists()
    said = refused(f"train {TINY} --run-dir here --init-from here", capsys)
    assert "here holds a run that did not begin with init_from='here'" in said
    assert "init_from is the folder that the run itself" in refused(
        f"train {TINY} --run-dir here --init-from here --no-resume", capsys
    )
    assert run(f"train {TINY} --run-dir there --init-from here") == 0
    assert run(f"train {TINY} --run-dir there --init-from here") == 0  # the same again is shown
    assert "nothing is trained" in capsys.readouterr().out
    for which in ("best", "4"):
        assert run(f"evaluate --run here --checkpoint {which} --episodes 4") == 0


@pytest.mark.parametrize(
    "line",
    [
        "--run-dir r --save-minutes 3 --save-updates 5 --keep 7 --eval-updates 2 --log-interval 9 --preset smoke "
        "--no-wandb",
        "--checkpoint-dir r --save-interval-minutes 3 --save-interval 5 --keep 7 --eval-updates 2 --log-interval 9 "
        "--auto-tune --no-wandb",
        "--run-dir r --save-minutes 3 --save-updates 5 --keep 7 --eval-updates 2 --log-interval 9 --wandb "
        "--project games --entity us --run-name walk --run-suffix=-b --rewind --no-artifact",
    ],
)
def test_the_options_of_fit_reach_it_under_all_names(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    fit = lambda agent, run_dir, **given: told.append((run_dir, given)) or SimpleNamespace(status="interrupted")
    monkeypatch.setattr("mxnb.fit", fit)
    monkeypatch.setenv("MXNB_PRESET", "smoke")
    assert run(f"train --env-id probe-mask {line} --eval-episodes 6 --seed 4 --no-resume") == 130
    ((run_dir, given),) = told
    assert run_dir == Path("r") and callable(given.pop("evaluate"))
    assert given == {
        "seed": 4,
        "resume": False,
        "save_minutes": 3.0,
        "save_updates": 5,
        "keep": 7,
        "eval_updates": 2,
        "init_from": None,
        "log_updates": 9,
        "wandb": "games" in line
        and {"project": "games", "entity": "us", "name": "walk", "suffix": "-b", "rewind": True, "artifacts": False},
    }


def test_the_run_folder_may_come_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MXNB_RUN_DIR", str(tmp_path / "elsewhere"))
    assert run(f"train {TINY}") == 0
    assert (tmp_path / "elsewhere" / "policy" / "params.npz").exists()


def test_another_configuration_in_the_folder_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"train {TINY} --run-dir here") == 0
    said = refused(f"train {TINY} --run-dir here --ent-coef 0.5", capsys)
    assert "here holds a run of another configuration" in said and "ent_coef: 0.01 there, 0.5 asked for" in said
    assert run(f"train {TINY} --run-dir here --ent-coef 0.5 --no-resume") == 0


def test_the_mirror_is_told_what_the_command_line_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    silent = SimpleNamespace(id="abc", url="", log=lambda row, step: None, finish=lambda exit_code: None)
    server = SimpleNamespace(login=lambda **how: False, init=lambda **settings: told.append(settings) or silent)
    monkeypatch.setitem(sys.modules, "wandb", server)
    line = f"train {TINY} --project games --entity us --run-name walk --run-suffix=-b --rewind --no-artifact"
    assert run(f"train {TINY} --run-dir off") == 0 and not told
    assert run(f"{line} --run-dir on --wandb") == 0
    assert [told[0][name] for name in ("project", "entity", "name", "resume")] == ["games", "us", "walk-b", "allow"]


def test_what_cannot_be_watched_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A chain draws no pictures: its page says so, and `watch` does."""
    line = "train --preset smoke --agent average_reward --env-id two-states --total-timesteps 256 --phase-steps 4"
    assert run(f"{line} --run-dir run") == 0
    assert "a page to look at: run/page.html" in capsys.readouterr().out
    assert "draws no pictures" in (tmp_path / "run" / "page.html").read_text()
    assert run("watch --run run --max-steps 9") == 1
    assert "python -m mxnb watch: " in (said := capsys.readouterr().err) and "draws no pictures" in said


def test_a_page_that_fails_costs_no_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise PermissionError("nobody may write here")

    monkeypatch.setattr("mxnb.show._page.replace_file", broken)
    assert run(f"train {TINY} --run-dir run") == 0
    assert "no page was written (PermissionError: nobody may write here)" in capsys.readouterr().out
    assert run(f"train {TINY} --run-dir other --no-page") == 0
    assert "page" not in capsys.readouterr().out


def test_an_interrupted_run_gets_its_page_too(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert run(f"train {TINY} --run-dir run --no-page") == 0
    monkeypatch.setattr("mxnb.fit", lambda *_, **__: SimpleNamespace(status="interrupted"))
    assert run(f"train {TINY} --run-dir run") == 130
    assert "a page to look at: run/page.html" in capsys.readouterr().out and Path("run/page.html").exists()

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mxnb.show.page", stopped)
    assert run(f"train {TINY} --run-dir run") == 130
    assert "no page was written (KeyboardInterrupt: )" in capsys.readouterr().out


def test_an_ffmpeg_that_fails_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"train {TINY} --run-dir run --no-page") == 0
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho no such codec >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    assert run("watch --run run --mp4") == 1
    assert "python -m mxnb watch: ffmpeg failed: no such codec" in capsys.readouterr().err


def test_listing_runs_imports_no_jax(tmp_path: Path) -> None:
    code = "import sys; from mxnb.__main__ import main; main(['runs', '.']); sys.exit('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_empty_folder_has_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"runs {tmp_path}") == 0
    assert "no runs in" in capsys.readouterr().out


def test_the_doctor_looks_at_the_machine_or_at_environments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    module = sys.modules["mxnb.doctor"] if "mxnb.doctor" in sys.modules else importlib.import_module("mxnb.doctor")
    monkeypatch.setattr(module, "envs", lambda make, ids: asked.append(ids) or True)
    assert (run("doctor --envs"), run("doctor --envs CartPole")) == (0, 0)
    assert asked == [[], ["cartpole-v1"]]
    broken = module.Checkup((module.Row("jax", "broken", "too old", "install it"),))
    monkeypatch.setattr(module, "doctor", lambda: broken)
    assert run("doctor") == 1 and len(asked) == 2
    assert "✗ jax  too old" in capsys.readouterr().out


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "mxnb", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    for command in ("train", "evaluate", "watch", "runs", "doctor"):
        assert command in done.stdout


def test_the_average_reward_agent_as_it_was_called_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that its forerunner's README shows, word for word."""
    told: list[Any] = []
    fit = lambda agent, run_dir, **given: told.append(agent.config) or SimpleNamespace(status="done")
    monkeypatch.setattr("mxnb.fit", fit)
    line = (
        "train --agent average_reward --env-id craftax-classic-v1 --num-envs 2048 --unroll 64 --total-frames 10_000_000"
    )
    assert main([*line.split(), "--r-reset", "50"]) == 0
    (config,) = told
    assert (config.num_envs, config.num_steps, config.total_timesteps, config.r_reset) == (2048, 64, 10_000_000, 50)
    assert config.env_id == "craftax-classic-symbolic-v1" and config.num_updates == 76


def test_survival_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = "--preset smoke --agent average_reward --env-id cartpole --total-timesteps 256 --phase-steps 4"
    assert run(f"train {sizes} --r-reset 20 --run-dir run") == 0
    capsys.readouterr()
    assert run("watch --run run --max-steps 30") == 0
    capsys.readouterr()
    assert run("evaluate --run run --episodes 20") == 0
    said = capsys.readouterr().out
    assert "in which a death costs 20 steps" in said and "gain" in said
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())["survival"]
    assert found["r_reset"] == 20 and found["deaths"] + found["limits"] == 20
    assert found["gain"]["low"] <= found["gain"]["mean"] <= found["gain"]["high"]
    assert run("evaluate --policy noop --env-id cartpole --episodes 20 --r-reset 20") == 0
    assert "life, steps" in capsys.readouterr().out
    assert "--r-reset is -1; a death costs 0 steps or more" in refused(
        "evaluate --policy noop --env-id cartpole --r-reset -1", capsys
    )
    assert "r_reset: expected a count of 0 or more, got -1" in refused(
        "train --agent average_reward --env-id cartpole --preset smoke --r-reset -1", capsys
    )
    said = refused("evaluate --run run --env-id acrobot --episodes 2", capsys)
    assert "survival-cartpole-v1" in said and "survival-acrobot-v1" in said


@pytest.mark.parametrize(
    "sizes",
    [
        "--num-envs 4 --unroll 2 --total-frames 64 --hidden-dim 32 --phase-steps 4",
        pytest.param("--num-envs 2048 --unroll 64 --total-frames 393_216", marks=pytest.mark.slow),
    ],
    ids=["4 x 2", "2048 x 64, 3 updates"],
)
def test_surviving_on_craftax_from_the_command_line(sizes: str, tmp_path: Path) -> None:
    """The smallest takes seconds once compiled; the largest is the forerunner's own size."""
    line = f"train --agent average_reward --env-id craftax-classic-v1 {sizes} --r-reset 50 --run-dir run"
    assert run(line) == 0
    rows = [json.loads(row) for row in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    small = "2048" not in sizes
    assert len(rows) == (8 if small else 3)
    assert all(0 < row["train/rho"] <= 1 for row in rows)
    if small:
        assert sum(8 / row["time/steps_per_second"] for row in rows) < 60  # seconds, compiling aside
