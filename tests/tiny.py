"""Environments small enough to know everything about, compile counts, hashes, and mutants, for several suites."""

from __future__ import annotations

import hashlib
import logging
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mxnb.envs.api import Env, Spec

PPO_SIZES: dict[str, Any] = {
    "num_envs": 8,
    "num_steps": 16,
    "total_timesteps": 8 * 16 * 10,
    "hidden_dim": 16,
    "num_minibatches": 4,
    "update_epochs": 2,
}

GO, TERMINATE, TRUNCATE, BOTH = range(4)


@struct.dataclass
class DrivenState:
    id: Any  # uint32: the world's first random number, which names it
    t: Any  # int32: steps since the reset
    start: Any  # float32[3]
    total: Any  # float32: reward so far


def driven() -> Env:
    """The action says how the step ends: 0 goes on, 1 terminates, 2 truncates, 3 does both.

    The world's name rides in the state. Observation: its random start, the time and the step's noise; the reward
    is that noise. Info: `total`, the return so far by the environment's own count.
    """

    def look(state: Any, noise: Any) -> Any:
        return jnp.concatenate([state.start, jnp.stack([state.t.astype(jnp.float32), noise])])

    def reset(key: Any) -> Any:
        state = DrivenState(
            jax.random.bits(key), jnp.int32(0), jax.random.uniform(jax.random.fold_in(key, 1), (3,)), jnp.float32(0)
        )
        return look(state, jnp.float32(0)), state

    def step(key: Any, state: Any, action: Any) -> Any:
        noise = jax.random.uniform(key)
        state = state.replace(t=state.t + 1, total=state.total + noise)
        terminated = (action == TERMINATE) | (action == BOTH)
        truncated = (action == TRUNCATE) | (action == BOTH)
        return look(state, noise), state, noise, terminated, truncated, {"total": state.total}

    spec = Spec("driven-v0", (5,), num_actions=4, action_names=("go", "terminate", "truncate", "both"), info=("total",))
    return Env(spec, reset, step)


@struct.dataclass
class TimedState:
    t: Any
    length: Any


def timed(longest: int, *, shortest: int | None = None, truncates: bool = True, reward: float = 1.0) -> Env:
    """Whatever is done, an episode lasts a length drawn from shortest..longest (default: always longest), then it
    is cut off (or ends, with truncates=False). Every step's reward is the same and the observation is constant:
    with cut-offs the true value is reward / (1 - discount) everywhere."""
    low = longest if shortest is None else shortest

    def reset(key: Any) -> Any:
        return jnp.ones(2), TimedState(jnp.int32(0), jax.random.randint(key, (), low, longest + 1))

    def step(key: Any, state: Any, action: Any) -> Any:
        state = state.replace(t=state.t + 1)
        over = state.t >= state.length
        never = jnp.zeros((), bool)
        flags = (never, over) if truncates else (over, never)
        return jnp.ones(2), state, jnp.float32(reward), *flags, {}

    return Env(Spec("timed-v0", (2,), num_actions=2, max_steps=longest), reset, step)


BITS = 11


@struct.dataclass
class MaskedState:
    bits: Any  # bool[BITS]; the first four say which actions are legal (action 0 always is)
    rest: Any  # float32[2]
    t: Any


def masked(*, limit: int = 7, no_legal: bool = False) -> Env:
    """Like a small Craftax: bits first, a mask that changes every step (bits 0..3), 4 actions of which 0 is
    always legal. A step pays the action's index where it was legal and -1 where it was not; action 3 ends the
    episode, the limit cuts it off. no_legal=True forgets to keep action 0 legal in a third of the states."""

    def world(key: Any, t: Any) -> Any:
        bits = jax.random.bernoulli(key, 0.5, (BITS,))
        lost = jnp.float32(no_legal) * jax.random.uniform(jax.random.fold_in(key, 2)) > 2 / 3
        bits = bits.at[0].set(True)
        bits = jnp.where(lost, bits.at[:4].set(False), bits)
        state = MaskedState(bits, jax.random.normal(jax.random.fold_in(key, 1), (2,)), t)
        return jnp.concatenate([state.bits.astype(jnp.float32), state.rest]), state

    def reset(key: Any) -> Any:
        return world(key, jnp.int32(0))

    def step(key: Any, state: Any, action: Any) -> Any:
        legal = state.bits[action]
        obs, after = world(key, state.t + 1)
        terminated = legal & (action == 3)
        truncated = (after.t >= limit) & ~terminated
        return obs, after, jnp.where(legal, action.astype(jnp.float32), -1.0), terminated, truncated, {}

    def mask(state: Any) -> Any:
        return state.bits[:4]

    def render(state: Any) -> Any:
        shown = state.bits.at[0].set(True).astype(jnp.uint8) * 255
        return jnp.broadcast_to(shown[None, :, None], (3, BITS, 3))

    spec = Spec("masked-v0", (BITS + 2,), num_binary=BITS, num_actions=4, max_steps=limit)
    return Env(spec, reset, step, mask, render)


def host(tree: Any) -> Any:
    """The same with NumPy leaves; PRNG keys as their numbers."""

    def plain(x: Any) -> np.ndarray:
        x = jax.random.key_data(x) if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        return np.asarray(x)

    return jax.tree.map(plain, tree)


def assert_same_bits(a: Any, b: Any, words: str = "") -> None:
    """Same structure, dtypes, shapes and bytes; names the first leaf that differs."""
    first, tree = jax.tree_util.tree_flatten_with_path(host(a))
    second, other = jax.tree_util.tree_flatten_with_path(host(b))
    assert tree == other
    for (path, x), (_, y) in zip(first, second, strict=True):
        where = f"{words} {jax.tree_util.keystr(path)}"
        assert (x.dtype, x.shape) == (y.dtype, y.shape), where
        assert x.tobytes() == y.tobytes(), f"{where}: {x} and {y}"


def sha256(tree: Any) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(host(tree))[0]:
        digest.update(f"{jax.tree_util.keystr(path)}{leaf.dtype}{leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


class _Compilations(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("Compiling "):
            self.names.append(text.split()[1])


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The names of the programs that jax compiles (or fetches from its cache) inside the block."""
    handler, logger = _Compilations(), logging.getLogger("jax")
    logger.addHandler(handler)
    try:
        with jax.log_compiles():
            yield handler.names
    finally:
        logger.removeHandler(handler)


def mutant(module: Any, old: str, new: str) -> Any:
    """`module` again under another name, with one piece of its source replaced; `old` must occur exactly once."""
    path = Path(module.__file__)
    source = path.read_text()
    assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times in {path.name}"
    name = f"mutant_{hashlib.sha256(new.encode()).hexdigest()[:8]}_{module.__name__.replace('.', '_')}"
    changed = types.ModuleType(name)
    changed.__file__ = str(path)
    sys.modules[name] = changed  # dataclasses look their module up
    exec(compile(source.replace(old, new), str(path), "exec"), changed.__dict__)
    return changed


def _ppo() -> Any:
    from mxnb.agents.ppo import PPOConfig, ppo

    return ppo(PPOConfig(**PPO_SIZES | {"total_timesteps": 8 * 16 * 120}), masked())


def _ppo_rnn() -> Any:
    from mxnb.agents.ppo_rnn import PPORnnConfig, ppo_rnn

    scales = {"normalise_obs": True, "normalise_value": True}  # more to keep
    return ppo_rnn(PPORnnConfig(**PPO_SIZES | scales | {"total_timesteps": 8 * 16 * 120}), masked())


def _average_reward() -> Any:
    from mxnb.agents.average_reward import AverageRewardConfig, average_reward
    from mxnb.envs.survival import survival

    config = AverageRewardConfig(**PPO_SIZES | {"total_timesteps": 8 * 16 * 120, "phase_steps": 20, "r_reset": 5})
    return average_reward(config, survival(masked(), config.r_reset))


DREAMER_SIZES: dict[str, Any] = {
    "num_envs": 4,
    "batch_size": 4,
    "num_steps": 8,
    "train_ratio": 8,
    "starts": 8,
    "horizon": 4,
    "replay_size": 4 * 64,
    "prefill": 64,
    "deter": 16,
    "hidden_dim": 8,
    "stoch": 4,
    "classes": 4,
    "blocks": 2,
    "units": 8,
    "num_layers": 1,
    "num_bins": 31,
    "lr": 1e-3,
    "warmup_steps": 5,
    "total_timesteps": 64 + 4 * 120,
}


def _dreamer() -> Any:
    from mxnb.agents.dreamer import DreamerConfig, dreamer

    return dreamer(DreamerConfig(**DREAMER_SIZES | {"use_mask": True}), masked())


def _craftax() -> Any:
    from mxnb.agents.ppo import PPOConfig, ppo
    from mxnb.envs.craftax import craftax

    return ppo(PPOConfig(**PPO_SIZES | {"num_envs": 4, "total_timesteps": 4 * 16 * 5}), craftax(classic=True))


def _hackmatrix() -> Any:
    from mxnb.agents.ppo import PPOConfig, ppo
    from mxnb.envs.hackmatrix import hackmatrix
    from mxnb.recipes import RECIPES

    sizes = {"num_envs": 4, "total_timesteps": 4 * 16 * 120, "cell_dim": 4}
    return ppo(PPOConfig(**PPO_SIZES | RECIPES[("ppo", "hackmatrix-v1")][0] | sizes), hackmatrix())


TRAINED: dict[str, Any] = {
    "ppo": _ppo,
    "ppo_rnn": _ppo_rnn,
    "average_reward": _average_reward,
    "dreamer": _dreamer,
    "craftax": _craftax,
    "hackmatrix": _hackmatrix,
}
"""Every agent on a tiny environment with small networks, and PPO on two games, for the tests of resume and kills."""
