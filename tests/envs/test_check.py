"""The checker passes what is right and names the mend of each broken environment, and only there."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from tiny import driven, masked, timed
from zoo import WALK, ZOO

from mxnb.config import ENV_IDS
from mxnb.doctor import envs as check_envs
from mxnb.envs.api import Env, Spec
from mxnb.envs.check import Report, check

pytestmark = pytest.mark.brief

LARGE = [env_id for env_id in ENV_IDS if env_id.startswith(("craftax", "hackmatrix", "asterix", "freeway", "seaquest"))]
SMALL = [env_id for env_id in ENV_IDS if env_id not in LARGE]


def test_right_environments_pass() -> None:
    for env in (WALK, driven(), timed(5), masked()):
        report = check(env)
        assert report.ok and report.problems == (), str(report)
        assert f"{env.spec.id}: all rules hold" in str(report)
    words = {rule.name: rule.words for rule in check(WALK).rules}
    assert words["picture"] == "8 x 8 pixels" and "of 3 actions legal" in words["legal"]
    assert words["ends"] == "8 of 8 episodes ended within 256 steps"


@pytest.mark.parametrize("name", ZOO)
def test_each_broken_environment_is_caught_by_its_own_message(name: str) -> None:
    env, rule, words = ZOO[name]
    report = check(env)
    broken = {r.name: r.words for r in report.rules if r.ok is False}
    assert not report.ok and set(broken) == {rule}, str(report)
    assert words in broken[rule]
    assert "BROKEN" in str(report) and "not ready" in str(report)


def test_what_is_right_but_unusual_passes() -> None:
    """Always the same state; Python numbers as results; an error without words is told, not raised."""
    bandit = Spec("bandit-v0", (1,), num_actions=2)
    once = lambda key, state, action: (jnp.zeros(1), state, 1.0, True, False, {})
    assert check(Env(bandit, lambda key: (jnp.zeros(1), jnp.zeros(())), once)).ok

    def fails(state: Any) -> Any:
        raise NotImplementedError

    (words,) = check(Env(WALK.spec, WALK.reset, WALK.step, WALK.action_mask, fails)).problems
    assert words.startswith("picture: NotImplementedError at test_check.py:") and words.endswith("without a message")


def test_a_reset_without_a_state_is_told() -> None:
    (words,) = check(Env(WALK.spec, lambda key: jnp.zeros(3), WALK.step, WALK.action_mask)).problems
    assert words == "reset: reset returns one array; return the pair obs, state"


def test_an_info_that_is_no_dict_and_an_endless_environment_are_told() -> None:
    endless = Spec("endless-v0", (1,), num_actions=2)
    never = jnp.zeros((), bool)
    start = lambda key: (jnp.zeros(1), jax.random.uniform(key))
    report = check(Env(endless, start, lambda key, x, a: (jnp.zeros(1), x, 0.0, never, never, {})))
    words = {rule.name: rule.words for rule in report.rules}
    assert report.ok and words["ends"] == (
        "0 of 8 episodes ended within 256 steps; where there is a time limit, name it in Spec.max_steps"
    )
    (words,) = check(Env(endless, start, lambda key, x, a: (jnp.zeros(1), x, 0.0, never, never, None))).problems
    assert words == "results: info is NoneType; return a dict, {} where there is nothing to say"


def test_every_agents_bits_are_looked_at() -> None:
    spec = Spec("two-v0", (2,), num_binary=1, num_actions=2, agents=("a", "b"))
    obs = jnp.array([[1.0, 0.3], [0.5, 0.3]])
    step = lambda key, t, action: (obs, t + 1, jnp.zeros(2), t > 5, jnp.zeros((), bool), {})
    (words,) = check(Env(spec, lambda key: (obs, jnp.zeros(())), step)).problems
    assert words.startswith("numbers: entry 0 of a reset's observation is not 0 or 1")


def test_python_that_looks_at_later_values_is_told_what_to_use() -> None:
    def step(key: Any, state: Any, action: Any) -> Any:
        if action == 0:
            state = state.replace(x=state.x - 1)
        return WALK.step(key, state, action)

    (words,) = check(Env(WALK.spec, WALK.reset, step, WALK.action_mask)).problems
    assert words.startswith("observations: Python looks at a value that is only known later") and "jnp.where" in words


def test_a_mask_without_legal_actions_at_reset_only() -> None:
    """The mask may depend on anything in the state."""
    env = Env(WALK.spec, WALK.reset, WALK.step, lambda s: jnp.stack([s.t > 0] * 3))
    assert check(env).problems[0].startswith("legal: a reachable state has no legal action")


def test_continuous_actions_and_agents_are_checked() -> None:
    spec = Spec("push-v0", (2,), action_low=(-1.0,), action_high=(1.0,), agents=("a", "b"))

    def reset(key: Any) -> Any:
        x = jax.random.uniform(key, (2, 2))
        return x, x

    def step(key: Any, x: Any, action: Any) -> Any:
        x = x + action
        never = jnp.zeros((), bool)
        return x, x, x.sum(-1), jnp.abs(x).max() > 4, never, {}

    assert check(Env(spec, reset, step)).ok
    wrong = check(Env(spec, reset, lambda k, x, a: (*step(k, x, a)[:2], jnp.float32(0), *step(k, x, a)[3:])))
    assert wrong.problems == (
        "results: reward is float32[], expected float32[2]; return one float32 number (per agent)",
    )


def test_the_slow_rule_is_skipped_with_a_word() -> None:
    def walk_far(key: Any, state: Any, action: Any) -> Any:
        step = lambda s, k: (WALK.step(k, s, action)[1], None)
        return WALK.step(key, jax.lax.scan(step, state, jax.random.split(key, 500))[0], action)

    slow = Env(WALK.spec, WALK.reset, walk_far, WALK.action_mask)
    for report, words in ((check(WALK, unjitted=False), "as asked"), (check(slow), "take longer than 5 s")):
        rule = next(r for r in report.rules if r.name == "no jit")
        assert rule.ok is None and words in rule.words and "unjitted=True" in rule.words


def test_the_doctor_names_what_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    envs = {"cartpole-v1": WALK, "acrobot-v1": ZOO["a reward that is NaN"][0]}
    assert not check_envs(envs.__getitem__, list(envs))
    printed = capsys.readouterr().out
    assert "cartpole-v1  ok" in printed and "acrobot-v1   BROKEN" in printed
    assert "numbers: a reward is NaN" in printed and "1 of 2 environments are ready." in printed
    assert check_envs(envs.__getitem__, ["CartPole"])


def test_the_doctor_says_what_cannot_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    def make(env_id: str) -> Env:
        raise OSError("no textures")

    assert not check_envs(make, ["cartpole-v1"])
    assert "cannot be made: OSError: no textures" in capsys.readouterr().out


def test_the_command_refuses_unknown_ids() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mxnb", "doctor", "--envs", "cartpol"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "did you mean cartpole-v1" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("env_id", LARGE)
def test_every_large_environment_holds_the_contract(env_id: str) -> None:
    from mxnb import make

    with jax.numpy_rank_promotion("allow"):  # some of gymnax's tasks rely on it
        report: Report = check(make(env_id))
    assert report.ok, str(report)


@pytest.mark.parametrize("env_id", SMALL)
def test_every_small_environment_holds_the_contract(env_id: str) -> None:
    from mxnb import make

    with jax.numpy_rank_promotion("allow"):  # some of gymnax's tasks rely on it
        report: Report = check(make(env_id), unjitted=False)
    assert report.ok, str(report)
