"""What HackMatrix tells of a step beside the reward's parts, and how long it takes to compile."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from games import ACTION, ENV, compiled

import mxnb.envs.hackmatrix as package
from mxnb.envs.hackmatrix import make_state

RESET = 14
BLOCK = {"row": 4, "col": 3, "kind": 2, "program": RESET, "spawn_count": 2}


def play(state: Any, *actions: str) -> tuple[Any, list[dict[str, float]]]:
    """The state after the actions, and what each told."""
    told = []
    for action in actions:
        _, state, _, _, _, info = compiled("one_step")(jax.random.key(0), state, ACTION[action])
        told.append({name: float(value) for name, value in info.items()})
    return state, told


def test_a_program_is_new_once_and_undo_takes_it_back() -> None:
    board = make_state(player=(3, 3), data_siphons=2, credits=3, owned=[9], blocks=[BLOCK])
    state, told = play(board, "siphon", "UNDO", "siphon", "siphon")
    assert [step["new_programs"] for step in told] == [1, -1, 1, 0]
    assert bool(state.owned_programs[RESET])


def test_a_program_that_is_owned_is_not_new() -> None:
    _, (told,) = play(make_state(player=(3, 3), data_siphons=1, owned=[RESET], blocks=[BLOCK]), "siphon")
    assert told["new_programs"] == 0


def test_an_illegal_action_tells_of_nothing_but_itself() -> None:
    _, (told,) = play(make_state(player=(3, 3), blocks=[BLOCK]), "siphon")
    expected = {"step_penalty": -0.01, "invalid_action": 1, "stage": 1, "hp": 3, "cause/alive": 1}
    assert {name: round(value, 6) for name, value in told.items() if value} == expected


@pytest.mark.parametrize("stage", [1, 4, 8])
def test_each_stage_that_was_entered_is_reached(stage: int) -> None:
    _, (before, after) = play(make_state(player=(5, 3), stage=stage), "right", "right")
    assert [before[f"reached_{n}"] for n in range(2, 9)] == [float(n <= stage) for n in range(2, 9)]
    assert [after[f"reached_{n}"] for n in range(2, 9)] == [float(n <= stage + 1) for n in range(2, 9)]
    assert after["completed"] == 1 and after["won"] == (stage == 8) == after["cause/win"]


def test_the_package_has_the_games_functions() -> None:
    """Those of section 4.1; `reset` and `step` are the ones of `hackmatrix()`, with its limit of 1,000 steps."""
    names = {"reset", "step", "action_mask", "observe", "flatten", "exit_distance", "siphon_quality", "make_state"}
    assert names | {"render"} <= set(package.__all__) and all(callable(getattr(package, name)) for name in names)
    obs, state = jax.eval_shape(package.reset, jax.random.key(0))
    out = jax.eval_shape(package.step, jax.random.key(0), state, 0)
    assert obs.shape == out[0].shape == (1545,) and len(out) == 6
    assert (package.reset, ENV.step.func, ENV.step.keywords) == (ENV.reset, package.step, {"max_episode_steps": 1000})
    assert inspect.signature(package.step).parameters["max_episode_steps"].default == 1000


def test_the_highest_stage_is_a_maximum() -> None:
    (named,) = [metric for metric, info in ENV.spec.step_maxima if info == "stage"]
    assert named == "stats/highest_stage"


COMPILE = """
import time
import jax
from mxnb.envs.hackmatrix import hackmatrix
env = hackmatrix()
start = time.perf_counter()
_, states = jax.block_until_ready(jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 256)))
reset = time.perf_counter() - start
def both(keys, states, actions):
    out = jax.vmap(env.step)(keys, states, actions)
    return out, jax.vmap(env.action_mask)(out[1])
start = time.perf_counter()
jax.jit(both).lower(jax.random.split(jax.random.key(1), 256), states, jax.numpy.zeros(256, int)).compile()
print(reset, time.perf_counter() - start)
"""


@pytest.mark.slow
def test_256_games_compile_within_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 19: the step with its mask in 30 s on 2 cores, a reset in 10 s; nothing kept from earlier runs."""
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_DISABLE_MOST_OPTIMIZATIONS"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, check=True)
    reset, step = np.array(done.stdout.split()[-2:], float)
    assert reset < 10 and step < 30, f"reset {reset:.1f} s, step {step:.1f} s"
