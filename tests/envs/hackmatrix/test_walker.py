"""The player who only walks to the exit: shortest ways, and how far that leads."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from mxnb.envs.hackmatrix import action_mask, exit_distance, flatten, hackmatrix, make_state, observe, walk
from mxnb.evaluate import evaluate, random_policy, rule_policy


def chosen(**board: object) -> int:
    state = make_state(**board)  # pyright: ignore[reportArgumentType]
    return int(jax.jit(walk)(flatten(observe(state)), action_mask(state)))


def test_it_goes_round_blocks_and_attacks_who_stands_in_the_way() -> None:
    assert chosen(player=(5, 4)) == 3 and chosen(player=(4, 5)) == 0 and chosen(player=(0, 0), exit=(0, 5)) == 3
    wall = [{"row": row, "col": 2, "kind": 1, "points": 1} for row in range(5)]
    assert chosen(player=(0, 1), exit=(0, 5), blocks=wall) == 0
    foe = [{"type": 1, "row": 5, "col": 3, "hp": 3}]
    assert chosen(player=(5, 2), enemies=foe) == 3
    boxed = [{"row": 4, "col": 5, "kind": 1, "points": 1}, {"row": 5, "col": 4, "kind": 1, "points": 1}]
    assert chosen(player=(0, 0), blocks=boxed) == 0  # no way: the first legal action


def test_every_step_is_one_nearer_where_nobody_bars_the_way() -> None:
    env = hackmatrix()
    step, at = jax.jit(env.step), jax.jit(exit_distance)
    toward = jax.jit(lambda obs, state: walk(obs, env.action_mask(state)))
    for seed in range(5):
        obs, state = jax.jit(env.reset)(jax.random.key(seed))
        state = state.replace(trans_mask=np.zeros(20, bool), scheduled_tasks_disabled=np.array(True))
        for _ in range(int(at(state)) - 1):
            before = int(at(state))
            obs, state, *_ = step(jax.random.key(0), state, toward(obs, state))
            assert int(at(state)) == before - 1


@pytest.mark.brief
def test_how_far_that_leads() -> None:
    """About stage 2.75."""
    env = hackmatrix()
    stages = evaluate(rule_policy(env.spec, walk), env, 128, jax.random.key(0)).info["stage"]
    assert 2.4 < stages.mean() < 3.1


@pytest.mark.brief
def test_random_legal_play_hardly_leaves_the_first_stage() -> None:
    """What learning starts from: about 1.16."""
    env = hackmatrix()
    stages = evaluate(random_policy(env.spec, use_mask=True), env, 128, jax.random.key(0)).info["stage"]
    assert 1.02 < stages.mean() < 1.35
