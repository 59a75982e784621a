"""The probes' documented answers, computed again by trying every policy."""

from __future__ import annotations

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mxnb.build import make
from mxnb.config import PROBES
from mxnb.envs import probes
from mxnb.envs.check import check

NAMES = tuple(name.removeprefix("probe-").removesuffix("-v0") for name in PROBES)


def start(env: Any, sign: float) -> Any:
    for seed in range(50):
        obs, state = env.reset(jax.random.key(seed))
        if state.sign == sign:
            return obs, state
    raise AssertionError("both signs must occur")


def play(env: Any, sign: float, actions: Any) -> list[tuple[Any, float, bool]]:
    """[(observation, reward, legal)] of one episode with these actions, to its end or cut."""
    obs, state = start(env, sign)
    seen = []
    for action in actions:
        mask = env.action_mask(state)
        legal = mask is None or bool(mask[action])
        after, state, reward, terminated, truncated, _ = env.step(jax.random.key(0), state, jnp.int32(action))
        seen.append((tuple(np.asarray(obs).tolist()), float(reward), legal))
        obs = after
        if terminated or truncated:
            assert bool(truncated) == ("truncation" in env.spec.id) and not (terminated and truncated)
            return seen
    raise AssertionError("the episode must end")


LENGTHS = {"discount": 2, "memory": 2, "truncation": 5}


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("truncation", "memory")])
def test_answers_are_those_of_the_best_policy(name: str) -> None:
    env, length = make(f"probe-{name}-v0"), LENGTHS.get(name, 1)
    values: dict[Any, float] = {}
    best: dict[Any, int] = {}
    for sign in (-1.0, 1.0):
        returns = {}
        for actions in product(range(env.spec.num_actions), repeat=length):
            seen = play(env, sign, actions)
            if all(legal for _, _, legal in seen):
                returns[actions] = sum(probes.DISCOUNT**t * r for t, (_, r, _) in enumerate(seen))
        top = max(returns, key=returns.__getitem__)
        later = play(env, sign, top)
        for t, (obs, _, _) in enumerate(later):
            values[obs] = sum(probes.DISCOUNT**k * r for k, (_, r, _) in enumerate(later[t:]))
        if len(set(returns.values())) > 1:
            best[later[0][0]] = top[0]
    answer = probes.ANSWERS[name]
    assert values == pytest.approx(answer["values"])
    assert best == answer.get("actions", {})


def test_truncation_pays_for_ever() -> None:
    env = probes.truncation()
    seen = play(env, 1.0, [0] * 5)
    assert len(seen) == 5 and {(obs, r) for obs, r, _ in seen} == {((0.0,), 1.0)}
    assert probes.ANSWERS["truncation"]["values"][(0.0,)] == pytest.approx(sum(probes.DISCOUNT**t for t in range(500)))


def test_memory_pays_only_for_remembering() -> None:
    env = probes.memory()
    outcomes = {(s, a): sum(r for _, r, _ in play(env, s, [0, a])) for s in (-1.0, 1.0) for a in (0, 1)}
    assert outcomes == {(-1.0, 0): 1, (-1.0, 1): -1, (1.0, 0): -1, (1.0, 1): 1}
    second = {play(env, s, [0, 0])[1][0] for s in (-1.0, 1.0)}
    assert second == {(0.0, 1.0)}  # what is seen then tells nothing: without memory every policy earns 0
    by_policy = [np.mean([outcomes[s, a] for s in (-1.0, 1.0)]) for a in (0, 1)]
    assert by_policy == [probes.ANSWERS["memory"]["chance"]] * 2
    assert max(outcomes.values()) == probes.ANSWERS["memory"]["return"]


def test_the_masked_action_is_the_best_one() -> None:
    env = probes.mask()
    pays = [play(env, -1.0, [a])[0] for a in range(3)]
    assert [legal for *_, legal in pays] == [True, True, False]
    assert max(range(3), key=lambda a: pays[a][1]) == 2


@pytest.mark.parametrize("name", NAMES)
def test_probes_hold_the_contract(name: str) -> None:
    assert check(getattr(probes, name)()).ok and set(NAMES) == set(probes.ANSWERS)
