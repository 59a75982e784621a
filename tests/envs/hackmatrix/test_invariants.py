"""What holds in every game of HackMatrix, over random legal play with random programs and resources."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import jax
import numpy as np
import pytest
from games import (
    ACTION,
    COMPONENTS,
    ENDS_TURN,
    ENV,
    LANES,
    choose,
    compiled,
    copies,
    legal,
    plain,
    reset,
    stack,
    step,
    take,
)
from referee import broken, exit_distance, mask, moves_from, observation, rewards, spot

from mxnb.envs.hackmatrix import hackmatrix, make_state

LIMIT = 300  # steps of a game
ILLEGAL = (-1, 28, 1000)
JAX = "0.10.2"
DIGESTS = {
    False: (
        "7348560519c7 474b1ea54a88 897d02e865af 71ba9e90c4a2 61372614509c "
        "1dc6f722d340 a5af5eade569 e992cd7b8c43 e6ffc405d006 2ee3aa66322e",
        "98b7f3349df4 411ff4514e53 74ee9fdd1662 345ff0046640 7a1d59f95209 "
        "a08e360f4840 bdf7bcaa2aa3 7fd85f7a277b f380bda13b60 5f2a5bbc0d0e",
        "eafa9df20fdb 52ac42fcf148 1cd91cca2854 f5fcb96ec3d9 842fdd66cd35 "
        "db0680942c94 ce103f82d56d 1bc3448c44a1 3031360e812d b7bb5ada922c",
    ),
    True: (
        "92dd455006f0 9ef302729d8f ed11929bbd5d 6c0dc661bd35 490025c36a47 "
        "95cd34b0daa9 fea7ad95bc6f 837fcdbad541 cd8c9d1e60cf 9da3aba8335f",
        "bd408a538dc6 0476317c4a8c a50f678aa573 d31cbed412d9 74cb4ccefcab "
        "9a1947be082a d7e5a8c9bc98 3ebc6d2708f9 29d86847f638 50f117395e71",
        "51a288b06396 cd83390eb158 65dd631065c1 2472c5429961 165d972328ef "
        "50100fcbbf01 7b295d311e60 359f69cc16a6 7b1acb64d45c 3badfc4b3c7f",
    ),
}  # of each 100 steps so far


def enriched(rng: np.random.Generator, state: Any) -> Any:
    """New games on any stage, with random programs, resources and strength."""
    n = len(state.row)
    number = lambda low, high: rng.integers(low, high, n).astype(np.int32)
    rich = rng.random(n) < 0.7
    stage = np.where(rng.random(n) < 0.5, 1, number(1, 9)).astype(np.int32)
    interval = np.maximum(13 - stage, 4).astype(np.int32)
    return state.replace(
        owned_programs=rng.random((n, 23)) < rng.random((n, 1)),
        credits=np.where(rich, number(0, 30), state.credits),
        energy=np.where(rich, number(0, 30), state.energy),
        data_siphons=np.where(rich, number(0, 5), state.data_siphons),
        attack_damage=np.where(rich, number(1, 4), 1).astype(np.int32),
        stage=stage,
        scheduled_task_interval=interval,
        next_scheduled_task_turn=interval,
    )


def toward_exit(state: Any, open_moves: Any) -> Any:
    """A direction that shortens the way to the exit, -1 where none is open."""
    out = spot(state.exit_row, state.exit_col)
    far = moves_from(out, (state.block_type == 0) | spot(state.row, state.col))
    edge = np.pad(np.where(far < 0, 99, far), ((0, 0), (1, 1), (1, 1)), constant_values=99)
    lanes, r, c = np.arange(len(out)), state.row + 1, state.col + 1
    ways = np.stack([edge[lanes, r + a, c + b] for a, b in ((1, 0), (-1, 0), (0, -1), (0, 1))], 1)
    ways = np.where(open_moves, ways, 99)
    return np.where((ways < 99).any(1), ways.argmin(1), -1)


def games(seed: int) -> Iterator[tuple[Any, Any, Any, Any, Any]]:
    """Batches of steps of random legal play without end: (state, mask, action, outcome of the step, lanes ended).

    A third of the lanes mostly walk to the exit; HP is raised now and then; lanes that ended begin anew.
    """
    rng = np.random.default_rng(seed)
    state = enriched(rng, reset(seed))
    for number in range(10**6):
        open_actions, _, distance = plain(compiled("look")(state))
        assert (distance == exit_distance(state)).all()
        walk = toward_exit(state, open_actions[:, :4])
        runs = (np.arange(LANES) % 3 == 0) & (rng.random(LANES) < 0.7) & (walk >= 0)
        action = np.where(runs, walk, legal(rng, open_actions))
        outcome = step(state, action, seed, number)
        _, after, _, terminated, truncated, _ = outcome
        ended = terminated | truncated | (after.episode_step >= LIMIT)
        yield state, open_actions, action, outcome, ended
        if ended.any():
            after = choose(ended, enriched(rng, reset(seed, number + 1)), after)
        healed = (rng.random(LANES) < 0.1) & (after.hp < 3)
        state = after.replace(hp=np.where(healed, 3, after.hp).astype(np.int32))


def judge(state: Any, open_actions: Any, action: Any, outcome: Any) -> list[str]:
    """Everything that is wrong about a batch of steps."""
    seen, after, reward, terminated, truncated, info = outcome
    problems = [
        f"{name}: lanes {np.flatnonzero(bad).tolist()}" for name, bad in broken(state, action, after) if bad.any()
    ]

    def same(name: str, got: Any, wanted: Any, where: Any = True, scale: float = 1e-5) -> None:
        bad = (np.abs(np.asarray(got, float) - wanted) > scale * np.maximum(1, np.abs(wanted) * 0.1)) & where
        if bad.any():
            lane = int(np.argwhere(bad)[0][0])
            one, other = (np.broadcast_to(x, np.shape(bad))[lane] for x in (got, wanted))
            problems.append(f"{name}: lane {lane}: {one}, not {other}, after {action[lane]}")

    same("mask", open_actions, mask(state))
    same("observation", seen, observation(after))
    same("sum of the components", sum(info[name].astype(float) for name in COMPONENTS), reward)
    for name, wanted in rewards(state, action, after, info).items():
        same(name, info[name], wanted, action != ACTION["UNDO"])
    same("won", info["won"], after.stage == 9)
    same("died", info["died"], after.hp == 0)
    same("terminated", terminated, (after.stage == 9) | (after.hp == 0))
    same("cause/death", info["cause/death"], terminated & (after.stage != 9))
    same("cause/win", info["cause/win"], after.stage == 9)
    same("cause/limit", info["cause/limit"], truncated)
    same("cause/alive", info["cause/alive"], ~(terminated | truncated))
    same("truncated", truncated, (after.episode_step >= 1000) & ~terminated)
    same("invalid_action", info["invalid_action"], 0.0 * reward)
    same("episode_step", after.episode_step, state.episode_step + 1)
    for name in ("stage", "score", "hp"):
        same(name, info[name], getattr(after, name))
    if not (np.isfinite(seen).all() and np.isfinite(reward).all() and ((seen >= 0) & (seen <= 1)).all()):
        problems.append("observation outside 0 to 1, or something infinite")
    if not np.isin(seen[:, 10:33], [0, 1]).all():
        problems.append("programs are not 0 or 1")
    return problems


def play(seed: int, enough: int) -> dict[str, int]:
    """Judges at least `enough` games, and tells what happened in them."""
    count = {"games": 0, "steps": 0, "won": 0, "died": 0, "completed": 0}
    used = np.zeros(28, int)
    for state, open_actions, action, outcome, ended in games(seed):
        problems = judge(state, open_actions, action, outcome)
        assert not problems, problems
        count["games"] += int(ended.sum())
        count["steps"] += LANES
        used += np.bincount(action, minlength=28)
        for name in ("won", "died", "completed"):
            count[name] += int(outcome[5][name].sum())
        if count["games"] >= enough:
            break
    print(count, used.tolist())
    assert used.min() > 20 and min(count.values()) > 20
    return count


def test_random_play() -> None:
    play(0, 1_000)


@pytest.mark.slow
def test_random_play_for_long() -> None:
    play(1, 10_000)


@cache
def all_played(seed: int = 2) -> dict[int, Any]:
    """LANES living boards after each number of steps that a test asks for, of one random play."""
    return {at: state for at, (state, *_) in zip(range(151), games(seed)) if at in (5, 20, 60, 100, 150)}


def played(number: int = 60) -> Any:
    """LANES living boards after some steps of random play."""
    return all_played()[number]


@cache
def rich(number: int = 60) -> Any:
    """Such boards, where all programs are owned and can be paid."""
    state = played(number)
    many = np.full(LANES, 40, np.int32)
    return state.replace(owned_programs=np.ones((LANES, 23), bool), credits=many, energy=many)


def different(one: Any, other: Any) -> list[str]:
    """Names of the leaves that are not bit-identical."""
    pairs = zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True)
    return [jax.tree_util.keystr(path) for (path, a), b in pairs if np.asarray(a).tobytes() != np.asarray(b).tobytes()]


@pytest.mark.parametrize("number", [5, 60, 150])
def test_illegal_actions_change_nothing(number: int) -> None:
    state = played(number)
    open_actions, seen, _ = plain(compiled("look")(state))
    flat = np.concatenate([part.reshape(LANES, -1).astype(np.float32) for part in seen], 1)
    for action in (*range(28), *ILLEGAL):
        lanes = ~open_actions[:, action] if 0 <= action < 28 else np.ones(LANES, bool)
        got, after, reward, terminated, truncated, info = take(step(state, action, number), lanes)
        start = take(state, lanes)
        assert not different(after, start.replace(episode_step=start.episode_step + 1)), action
        assert (reward == np.float32(-0.01)).all() and not (terminated | truncated).any()
        assert (got == flat[lanes]).all() and info["invalid_action"].all()
        assert all(not info[name].any() for name in (*COMPONENTS[1:], "completed", "died", "won", "dropped_spawns"))


def test_the_flat_observation_is_the_structured_one() -> None:
    state = rich()
    _, seen, _ = plain(compiled("look")(state))
    flat = step(state, -1)[0]
    assert (flat[:, :10] == seen.player_state).all() and (flat[:, 10:33] == seen.programs).all()
    for r, c, feature in np.random.default_rng(0).integers(0, (6, 6, 42), (200, 3)):
        assert (flat[:, 33 + (6 * r + c) * 42 + feature] == seen.grid[:, r, c, feature]).all()


def free_programs(state: Any, rng: np.random.Generator) -> Any:
    """A random legal program other than UNDO and WAIT, -1 where there is none."""
    able = mask(state) & ~ENDS_TURN
    able[:, ACTION["UNDO"]] = False
    return np.where(able.any(1), legal(rng, able), -1)


@pytest.mark.parametrize("number", [20, 60, 100, 150])
def test_undo_takes_everything_back(number: int) -> None:
    """A turn, up to three programs, UNDO: the old board, and rewards that sum to its price."""
    rng = np.random.default_rng(number)
    start = rich(number)
    action = legal(rng, mask(start) & ENDS_TURN)
    _, state, *_, info = step(start, action, number)
    total = {name: info[name].astype(float) for name in COMPONENTS}
    fine, spent = (info["completed"] == 0) & (mask(start) & ENDS_TURN).any(1), np.ones(LANES)
    for more in range(3):
        action = np.where(rng.random(LANES) < 0.8, free_programs(state, rng), -1)
        _, after, *_, info = step(state, np.maximum(action, 0), number, more + 1)
        state, acted = choose(action >= 0, after, state), (action >= 0)
        total = {name: total[name] + acted * info[name] for name in COMPONENTS}
        fine, spent = fine & ~(acted & (info["completed"] > 0)), spent + acted
    fine &= mask(state)[:, ACTION["UNDO"]]
    _, back, reward, *_, info = step(state, ACTION["UNDO"], number, 9)
    price = {"step_penalty": -0.01 * (spent + 1), "resource_gain": -0.05}
    for name in COMPONENTS:
        np.testing.assert_allclose((total[name] + info[name])[fine], np.broadcast_to(price.get(name, 0), LANES)[fine],
                                   atol=1e-5, err_msg=name)  # fmt: skip
    np.testing.assert_allclose(sum(info[name] for name in COMPONENTS), reward, atol=1e-5)
    wanted = start.replace(
        credits=np.maximum(start.credits - 1, 0), snapshot=back.snapshot, undo_accumulator=0 * back.undo_accumulator,
        snapshot_valid=np.zeros(LANES, bool), episode_step=back.episode_step,
    )  # fmt: skip
    assert not different(take(back, fine), take(wanted, fine))
    assert fine.sum() > 150 and not mask(back)[fine, ACTION["UNDO"]].any()


def test_undo_of_a_player_who_had_no_credits() -> None:
    """9.3: credits stop at 0, and the price of 0.05 is charged all the same."""
    here = {"row": 3, "col": 3, "credits": 2}
    state = copies(make_state(data_siphons=1, owned=[9], resources=[here]))
    _, after, *_, info = step(state, ACTION["siphon"])
    _, back, *_, undone = step(after, ACTION["UNDO"])
    assert (after.credits == 2).all() and (back.credits == 0).all() and (back.data_siphons == 1).all()
    np.testing.assert_allclose(info["resource_gain"], 0.1, atol=1e-6)
    np.testing.assert_allclose(undone["resource_gain"], -0.15, atol=1e-6)


def test_a_board_alone_and_in_a_batch() -> None:
    """64 equal boards with equal keys, 64 different ones, and the same call twice: bit-identical states."""
    state = rich()
    lanes = np.where(np.arange(LANES) < 64, 7, np.arange(LANES))
    start, keys = take(state, lanes), jax.random.split(jax.random.key(5), LANES)[lanes]
    for action in (ACTION["siphon"], ACTION["WAIT"], ACTION["POLY"], ACTION["WARP"], ACTION["up"]):
        actions = np.full(LANES, action, np.int32)
        batch = plain(compiled("step")(keys, start, actions))
        assert not different(batch, plain(compiled("step")(keys, start, actions)))
        assert all(not different(take(batch, lane), take(batch, 0)) for lane in range(64))
        for lane in (0, *range(64, 128)):
            one = plain(compiled("one_step")(keys[lane], take(start, lane), actions[lane]))
            assert not different(one[1], take(batch[1], lane)), lane
            np.testing.assert_allclose(one[2], batch[2][lane], rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(one[0], batch[0][lane], rtol=1e-6, atol=1e-6)
    batch = plain(compiled("reset")(keys)[1])
    for lane in (0, *range(64, 128)):
        assert not different(plain(compiled("one_reset")(keys[lane])[1]), take(batch, lane))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_batch_plays_as_each_board_alone(seed: int) -> None:
    """20 steps on 256 boards, programs half the time; 32 of them, 16 of which begin beside the exit, alone too."""
    rng, alone, used = np.random.default_rng(seed), 8 * np.arange(32), np.zeros(28, int)
    foe = {"type": 3, "row": 2, "col": 2, "hp": 2}
    near = copies(make_state(player=(5, 4), data_siphons=1, owned=[0, 9], credits=9, energy=9, enemies=[foe]))
    state, completed = choose(np.arange(LANES) % 16 == 0, near, rich(60 + 90 * seed)), 0
    for number in range(20):
        open_actions = mask(state)
        programs = open_actions & (np.arange(28) >= 5) & (rng.random((LANES, 1)) < 0.5)
        actions = legal(rng, np.where(programs.any(1, keepdims=True), programs, open_actions)).astype(np.int32)
        actions[::16] = ACTION["right"] if number == 0 else actions[::16]
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), number), LANES)
        batch = plain(compiled("step")(keys, state, actions))
        for lane in alone:
            one = plain(compiled("one_step")(keys[lane], take(state, lane), actions[lane]))
            assert not different(one[1], take(batch[1], lane)), (number, lane, actions[lane])
            for together, single in ((batch[0], one[0]), (batch[2], one[2])):
                np.testing.assert_allclose(together[lane], single, rtol=1e-6, atol=1e-6)
            assert all(batch[at][lane] == one[at] for at in (3, 4))
        used += np.bincount(actions[alone], minlength=28)
        completed += int(batch[5]["completed"][alone].sum())
        after = batch[1]
        state = after.replace(hp=np.full(LANES, 3, np.int32), stage=np.minimum(after.stage, 8).astype(np.int32))
    assert min(used[ACTION[name]] for name in ("PUSH", "PULL", "UNDO", "WARP", "siphon")) > 0 and completed > 4


@pytest.mark.parametrize("seed", [0, 1])
def test_without_jit(seed: int) -> None:
    """Random legal play, mostly of programs; states are the same number by number."""
    rng, state = np.random.default_rng(seed), take(rich(), seed)
    for number in range(20):
        open_actions = mask(stack([state]))
        action = np.int32(legal(rng, open_actions)[0])
        key = jax.random.fold_in(jax.random.key(seed), number)
        with jax.disable_jit():
            slow = plain(ENV.step(key, state, action))
        fast = plain(compiled("one_step")(key, state, action))
        floats = lambda tree: [leaf for leaf in jax.tree.leaves(tree) if leaf.dtype == np.float32]
        whole = lambda tree: [leaf for leaf in jax.tree.leaves(tree) if leaf.dtype != np.float32]
        assert not different(whole(slow), whole(fast)), (number, action)
        for a, b in zip(floats(slow), floats(fast), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
        state = fast[1].replace(hp=np.int32(3)) if not fast[3] else take(rich(), seed + 2 + number)


def test_finished_games_stay_finite() -> None:
    """16 and 6: whatever is done to a lost or a won game, nothing is infinite, outside 0 to 1, or off the board."""
    for finished in (rich().replace(hp=np.zeros(LANES, np.int32)), rich().replace(stage=np.full(LANES, 9, np.int32))):
        for action in range(28):
            seen, after, reward, *_, info = step(finished, action, action)
            assert np.isfinite(seen).all() and np.isfinite(reward).all() and ((seen >= 0) & (seen <= 1)).all()
            assert all(np.isfinite(value).all() for value in info.values())
            assert all(((x >= 0) & (x <= 5)).all() for x in (after.row, after.col, after.exit_row, after.exit_col))


def test_truncation() -> None:
    """16: at the limit, with legal and illegal actions alike, unless the game ended; UNDO turns no clock back."""
    late = rich().replace(episode_step=np.full(LANES, 998, np.int32))
    legal_undo = mask(late)[:, ACTION["UNDO"]]
    _, after, _, terminated, truncated, _ = step(late, ACTION["UNDO"])
    assert legal_undo.any() and (after.episode_step == 999).all() and not (terminated | truncated).any()
    hurt = after.replace(hp=np.where(np.arange(LANES) % 2, 1, 3).astype(np.int32))
    for action in (ACTION["WAIT"], -1):
        _, last, _, terminated, truncated, _ = step(hurt, action)
        assert (last.episode_step == 1000).all() and (truncated == ~terminated).all() and truncated.any()
        assert terminated.any() == (action == ACTION["WAIT"])
    one = take(rich(), 0).replace(episode_step=np.int32(4999))
    with jax.disable_jit():
        assert not hackmatrix(0).step(jax.random.key(0), one, ACTION["WAIT"])[4]
        assert not hackmatrix(5001).step(jax.random.key(0), one, ACTION["WAIT"])[4]
        assert hackmatrix(5000).step(jax.random.key(0), one, ACTION["WAIT"])[4]


def digests(seed: int, rich: bool, number: int = 1000) -> list[str]:
    """Of all integers and flags of the states of random legal play until step 100, 200 ..; games that end begin anew.

    rich: on any stage, with random programs and resources.
    """
    told = []
    key, hashed = jax.random.key(seed), hashlib.sha256()
    rng = np.random.default_rng(seed)
    starts = map(partial(take, enriched(rng, reset(seed))), range(LANES)) if rich else iter(())
    begin = lambda new: next(starts) if rich else plain(compiled("one_reset")(new)[1])
    state = begin(key)
    for at in range(number):
        pick, play_key, new = jax.random.split(jax.random.fold_in(key, at), 3)
        open_actions = np.flatnonzero(compiled("one_look")(state)[0])
        action = open_actions[int(jax.random.bits(pick)) % len(open_actions)]
        _, state, _, terminated, truncated, _ = plain(compiled("one_step")(play_key, state, np.int32(action)))
        if terminated | truncated:
            state = begin(new)
        for leaf in jax.tree.leaves(state):
            if leaf.dtype != np.float32:
                hashed.update(leaf.astype("<i4").tobytes())
        if (at + 1) % 100 == 0:
            told.append(hashed.hexdigest()[:12])
    return told


@pytest.mark.parametrize("rich", [False, True], ids=("new games", "rich games"))
@pytest.mark.parametrize("seed", range(3))
def test_the_same_games_as_ever(seed: int, rich: bool) -> None:
    """1,000 steps are what they were. A change of the rules, of their draws or of JAX's random numbers changes this."""
    found, wanted = digests(seed, rich), DIGESTS[rich][seed].split()
    first = next((100 * i for i, (new, old) in enumerate(zip(found, wanted, strict=True)) if new != old), None)
    assert first is None, f"other games from steps {first} to {first + 100} on; the digests are of JAX {JAX}"
