"""Env steps/s of a game under random actions, for one way of resetting; legal ones on HackMatrix.

    python benchmarks/stepping.py queue 64
    python benchmarks/stepping.py queue 64 --game full

queue         our VecEnv: exact, independent resets from a queue of worlds
no_reset      our Env record's step and mask, vmapped; finished environments go on: the approximate ceiling
no_reset_raw  the same with Craftax's own step and no mask
auto_reset    Craftax's own auto-reset: every environment makes a world on every step

Everything runs inside one jitted scan with a donated state; rewards, observations, masks and ends are summed
and returned, so that nothing can be left out."""

from __future__ import annotations

import argparse
from functools import partial

import jax
import jax.numpy as jnp
from measure import compile_timed, report, time_calls

GAMES = {"classic": "Craftax-Classic-Symbolic-v1", "full": "Craftax-Symbolic-v1", "hackmatrix": "HackMatrix-v1"}
NUM_ACTIONS = {"classic": 17, "full": 43, "hackmatrix": 28}
MODES = ("queue", "no_reset", "no_reset_raw", "auto_reset")


def worlds(reset, key, num_envs: int):
    """First worlds, 8 at a time: a wide vmapped reset is many times slower on a CPU."""
    return jax.lax.map(reset, jax.random.split(key, num_envs), batch_size=8)


def queue(game: str, num_envs: int, size: int = 0):
    """(init, tick) of our VecEnv with `size` worlds in its queue (0: as it chooses).

    tick -> (state, reward[N], obs[N, *], mask, ended[N])
    """
    from mxnb.build import make
    from mxnb.envs.vector import vectorise

    envs = vectorise(make(GAMES[game]), num_envs, queue_size=size)

    def tick(state, key, action):
        state, step = envs.step(state, action)
        return state, step.reward, state.obs, state.mask, step.terminated | step.truncated

    return envs.init, tick


def no_reset(game: str, num_envs: int):
    """(init, tick) of our Env record without any reset."""
    from mxnb.build import make

    env = make(GAMES[game])

    def tick(state, key, action):
        keys = jax.random.split(key, num_envs)
        obs, state, reward, terminated, truncated, _ = jax.vmap(env.step)(keys, state, action)
        return state, reward, obs, jax.vmap(env.action_mask)(state), terminated | truncated

    return lambda key: worlds(env.reset, key, num_envs)[1], tick


def craftax(game: str, num_envs: int, auto_reset: bool):
    """(init, tick) of Craftax's own environment, with its auto-reset or without."""
    from craftax.craftax_env import make_craftax_env_from_name

    env = make_craftax_env_from_name(GAMES[game], auto_reset=auto_reset)
    params = env.default_params

    def tick(state, key, action):
        keys = jax.random.split(key, num_envs)
        obs, state, reward, done, _ = jax.vmap(env.step, in_axes=(0, 0, 0, None))(keys, state, action, params)
        return state, reward, obs, jnp.zeros(()), done

    return lambda key: worlds(lambda k: env.reset(k, params), key, num_envs)[1], tick


def play(tick, num_envs: int, num_ticks: int, num_actions: int, legal: bool = False):
    """state -> (state, sums): `num_ticks` ticks of uniformly random actions, or of uniformly random legal ones."""

    def body(carry, _):
        state, key = carry
        key, action_key, step_key = jax.random.split(key, 3)
        if legal:
            action = jax.random.categorical(action_key, jnp.where(state.mask, 0.0, -jnp.inf))
        else:
            action = jax.random.randint(action_key, (num_envs,), 0, num_actions)
        state, reward, obs, mask, ended = tick(state, step_key, action)
        return (state, key), (reward.sum(), obs.sum(), mask.sum(), ended.sum())

    def chunk(carry):
        carry, sums = jax.lax.scan(body, carry, None, num_ticks)
        return carry, jax.tree.map(lambda x: x.sum(), sums)

    return chunk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("num_envs", type=int)
    parser.add_argument("--game", choices=tuple(GAMES), default="classic")
    parser.add_argument("--seconds", type=float, default=5.0, help="shortest timed window")
    parser.add_argument("--queue-size", type=int, default=0, help="worlds made at once (0: vectorise chooses)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sides = {"queue": partial(queue, size=args.queue_size), "no_reset": no_reset}
    slow = args.mode == "auto_reset"
    if args.mode in sides:
        init, tick = sides[args.mode](args.game, args.num_envs)
    else:
        init, tick = craftax(args.game, args.num_envs, slow)
    num_ticks = 8 if slow else 64
    key = jax.random.key(args.seed)
    first, init_compile_s = compile_timed(init, key, donate=False)
    carry = (first(key), jax.random.key(args.seed + 1))
    legal = args.game == "hackmatrix" and args.mode == "queue"  # where illegal ones do nothing
    chunk, compile_s = compile_timed(play(tick, args.num_envs, num_ticks, NUM_ACTIONS[args.game], legal), carry)
    # Random episodes take about 142 steps: 192 ticks before the clock starts, so that deaths are spread out.
    count, seconds, cores, sums = time_calls(chunk, carry, warm_up=1 if slow else 3, calls=2, seconds=args.seconds)
    report(
        game=args.game,
        mode=args.mode,
        num_envs=args.num_envs,
        steps_per_s=count * num_ticks * args.num_envs / seconds,
        ended=int(sum(s[3] for s in sums)),
        ticks=count * num_ticks,
        window_s=seconds,
        cores_used=cores,
        compile_s=compile_s,
        init_compile_s=init_compile_s,
    )


if __name__ == "__main__":
    main()
