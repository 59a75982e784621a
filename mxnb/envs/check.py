"""Is this environment what an agent may rely on? Rule by rule, in words that name the mend.

`check(env)` plays a few random episodes and looks at everything that passes. It never raises for a broken
environment: each broken rule is a red row of the report.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mxnb.envs.api import Env, Spec

_LANES = 8
# Un-jitted, an operation takes about a millisecond: more than this many would take longer than 5 seconds.
_OPERATIONS = 4000


@dataclass(frozen=True)
class EnvChecksConfig:
    """What notebook 01 looks at."""

    env_id: str = "craftax-classic-symbolic-v1"
    """The environment whose masks, speed and episode are shown."""
    num_envs: int = 64
    """Environments in step where speed is measured."""
    num_steps: int = 256
    """Steps of each environment in a timed run."""
    check_all: bool = True
    """Whether every environment is checked, or a few of different kinds."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where each value came from; written by `mxnb.parameters`, part of no comparison."""

    def resolve(self) -> EnvChecksConfig:
        """The same; ValueError lists sizes below 1."""
        small = [
            f"{n} is {getattr(self, n)}; use at least 1" for n in ("num_envs", "num_steps") if getattr(self, n) < 1
        ]
        if small:
            raise ValueError("\n".join(small))
        return self


@dataclass(frozen=True)
class Rule:
    """One rule of the contract: ok is None where it could not be looked at; words say what to mend, or why."""

    name: str
    ok: bool | None
    words: str = ""


@dataclass(frozen=True)
class Report:
    """What `check` found: `.ok` says whether every rule holds, `.rules` each one; prints as a table."""

    env_id: str
    rules: tuple[Rule, ...]

    @property
    def ok(self) -> bool:
        """Whether no rule is broken."""
        return all(rule.ok is not False for rule in self.rules)

    @property
    def problems(self) -> tuple[str, ...]:
        """The broken rules, each with the words that name the mend."""
        return tuple(f"{rule.name}: {rule.words}" for rule in self.rules if rule.ok is False)

    def __str__(self) -> str:
        signs = {True: "ok", False: "BROKEN", None: "-"}
        rows = [f"  {signs[r.ok]:<7} {r.name:<12} {r.words}".rstrip() for r in self.rules]
        return "\n".join([f"{self.env_id}: {'all rules hold' if self.ok else 'not ready'}", *rows])


class _Broken(Exception):
    """A broken rule; its text is the row's words."""


class _Skipped(Exception):
    """A rule that was not looked at; its text says why."""


def check(env: Env, *, seed: int = 0, steps: int = 256, unjitted: bool | None = None) -> Report:
    """Looks at `env` rule by rule; see `Report`.

    steps: of random legal play, in 8 lanes, each until its first end. unjitted: whether one step is compared
    with itself without jit; None does so only where that takes no more than about 5 seconds.
    """
    look = _Look(env, seed, steps, unjitted)
    rules: list[Rule] = []
    for name, rule, needs in _RULES:
        missing = [n for n in needs if next(r for r in rules if r.name == n).ok is not True]
        if missing:
            rules.append(Rule(name, None, f"not looked at: mend {' and '.join(missing)} first"))
            continue
        try:
            rules.append(Rule(name, True, rule(look) or ""))
        except _Skipped as error:
            rules.append(Rule(name, None, str(error)))
        except _Broken as error:
            rules.append(Rule(name, False, str(error)))
        except Exception as error:
            rules.append(Rule(name, False, _in_words(error)))
    return Report(env.spec.id, tuple(rules))


def _in_words(error: Exception) -> str:
    if isinstance(error, jax.errors.ConcretizationTypeError | jax.errors.TracerArrayConversionError):
        return "Python looks at a value that is only known later (if, int(), numpy); use jnp.where or jax.lax.cond"
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
    return f"{type(error).__name__} at {where}: {next(iter(str(error).splitlines()), 'without a message')}"


class _Look:
    """The environment and what was seen of it, each computed once and only when a rule asks."""

    def __init__(self, env: Env, seed: int, steps: int, unjitted: bool | None) -> None:
        self.env, self.spec, self.steps, self.unjitted = env, env.spec, steps, unjitted
        self.key = jax.random.key(seed)
        self._play: Any = None

    def action(self, key: Any, mask: Any) -> Any:
        return random_action(self.spec, key, mask)

    def first(self) -> Any:
        """(obs, state) of a reset, as shapes."""
        return jax.eval_shape(self.env.reset, self.key)

    def shapes(self) -> Any:
        """(obs, state) of a reset and the results of a step, as shapes."""
        obs, state = self.first()
        mask = jax.eval_shape(self.env.action_mask, state)
        action = jax.eval_shape(self.action, self.key, mask)
        return (obs, state), jax.eval_shape(self.env.step, self.key, state, action)

    def play(self) -> Any:
        """(first (obs, state), everything seen [T, lanes, ...], the last state, the key that ended each lane)."""
        if self._play is None:
            self.reset = jax.jit(jax.vmap(self.env.reset))
            first = self.reset(jax.random.split(self.key, _LANES))
            self._play = (first, *jax.jit(partial(_episodes, self))(first[1], jax.random.fold_in(self.key, 1)))
        return self._play


def random_action(spec: Spec, key: Any, mask: Any) -> Any:
    """A uniformly random legal action of one environment; infinite bounds count as -1 and 1."""
    if not spec.num_actions:
        low, high = (jnp.nan_to_num(jnp.asarray(b), posinf=1.0, neginf=-1.0) for b in _bounds(spec))
        shape = (len(spec.agents), *low.shape) if spec.agents else low.shape
        return jax.random.uniform(key, shape, minval=jnp.clip(low, -1e6), maxval=jnp.clip(high, None, 1e6))
    shape = (len(spec.agents), spec.num_actions) if spec.agents else (spec.num_actions,)
    legal = jnp.ones(shape, bool) if mask is None else mask
    return jax.random.categorical(key, jnp.where(legal, 0.0, -1e9))


def _bounds(spec: Spec) -> tuple[Any, Any]:
    return spec.action_low or (), spec.action_high or ()


def _episodes(look: _Look, state: Any, key: Any) -> Any:
    env = look.env

    def one(key: Any, state: Any, alive: Any, end_key: Any) -> Any:
        action_key, step_key = jax.random.split(key)
        mask = env.action_mask(state)
        action = look.action(action_key, mask)
        obs, after, reward, terminated, truncated, _info = env.step(step_key, state, action)
        keep = lambda new, old: jnp.where(alive, new, old)
        data = jax.random.key_data
        end_key = jax.random.wrap_key_data(jnp.where(alive, data(step_key), data(end_key)))
        seen = (obs, mask, reward, terminated, truncated, alive)
        done = jnp.asarray(terminated, bool) | jnp.asarray(truncated, bool)
        return jax.tree.map(_keys_too(keep), after, state), alive & ~done, end_key, seen

    def tick(carry: Any, key: Any) -> Any:
        state, alive, end_key = carry
        *carry, seen = jax.vmap(one)(jax.random.split(key, _LANES), state, alive, end_key)
        return tuple(carry), seen

    start = (state, jnp.ones(_LANES, bool), jax.random.split(key, _LANES))
    (state, _, end_key), seen = jax.lax.scan(tick, start, jax.random.split(key, look.steps))
    return seen, state, end_key


def _keys_too(keep: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def choose(new: Any, old: Any) -> Any:
        if jnp.issubdtype(new.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(keep(jax.random.key_data(new), jax.random.key_data(old)))
        return keep(new, old)

    return choose


def _spec(look: _Look) -> None:
    spec = look.spec
    if not isinstance(spec.obs_shape, tuple) or not all(isinstance(n, int) for n in spec.obs_shape):
        raise _Broken(f"obs_shape is {spec.obs_shape!r}; give a tuple of ints")
    if spec.num_actions < 0 or (spec.num_actions == 0 and not (spec.action_low and spec.action_high)):
        raise _Broken("give num_actions >= 1, or action_low and action_high for continuous actions")
    if not spec.num_actions:
        low, high = (np.asarray(b, float) for b in _bounds(spec))
        if low.shape != high.shape or not (low < high).all():
            raise _Broken(f"action_low {spec.action_low} must be below action_high {spec.action_high}, entry by entry")
    if spec.action_names and len(spec.action_names) != spec.num_actions:
        raise _Broken(f"{len(spec.action_names)} action_names for {spec.num_actions} actions; name each, or none")
    if not 0 <= spec.num_binary <= math.prod(spec.obs_shape):
        raise _Broken(f"num_binary is {spec.num_binary}, but an observation has {math.prod(spec.obs_shape)} entries")


def _reset(look: _Look) -> None:
    results = look.first()
    if not isinstance(results, tuple) or len(results) != 2:
        got = "one array" if hasattr(results, "shape") else f"a {type(results).__name__}"
        raise _Broken(f"reset returns {got}; return the pair obs, state")


def _same_type(what: str, x: Any, shape: tuple[int, ...], dtype: Any, mend: str) -> None:
    if not hasattr(x, "shape") or tuple(x.shape) != tuple(shape) or x.dtype != jnp.dtype(dtype):
        got = f"{x.dtype}{list(x.shape)}" if hasattr(x, "shape") else type(x).__name__
        raise _Broken(f"{what} is {got}, expected {jnp.dtype(dtype)}{list(shape)}; {mend}")


def _observations(look: _Look) -> None:
    (obs, _), results = look.shapes()
    agents = (len(look.spec.agents),) if look.spec.agents else ()
    shape = (*agents, *look.spec.obs_shape)
    mend = "mend it or the Spec's obs_shape and obs_dtype"
    _same_type("reset's observation", obs, shape, look.spec.obs_dtype, mend)
    if not isinstance(results, tuple) or len(results) != 6:
        count = len(results) if isinstance(results, tuple) else type(results).__name__
        raise _Broken(f"step returns {count} results; return obs, state, reward, terminated, truncated, info")
    _same_type("step's observation", results[0], shape, look.spec.obs_dtype, mend)


def _state(look: _Look) -> None:
    (_, before), results = look.shapes()
    after = results[1]
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise _Broken(
            f"step's state has another structure than reset's: {jax.tree.structure(after)} instead of "
            f"{jax.tree.structure(before)}; return the same fields from both"
        )
    for (path, old), (_, new) in zip(*(jax.tree_util.tree_leaves_with_path(t) for t in (before, after)), strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise _Broken(
                f"state{jax.tree_util.keystr(path)} is {old.dtype}{list(old.shape)} after reset and "
                f"{new.dtype}{list(new.shape)} after a step, so a scan cannot carry it; cast it in step"
            )


def _results(look: _Look) -> None:
    _, (_, _, reward, terminated, truncated, info) = look.shapes()
    agents = (len(look.spec.agents),) if look.spec.agents else ()
    _same_type("reward", reward, agents, jnp.float32, "return one float32 number (per agent)")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        _same_type(name, flag, (), bool, "return one boolean per environment")
    if not isinstance(info, dict):
        raise _Broken(f"info is {type(info).__name__}; return a dict, {{}} where there is nothing to say")
    missing = [name for name in look.spec.all_info if name not in info]
    if missing:
        raise _Broken(f"info lacks {', '.join(missing)}, which Spec.info names; add them or drop the names")
    for name in look.spec.all_info:
        _same_type(f"info[{name!r}]", info[name], (), jnp.float32, "make it one float32 number")


def _numbers(look: _Look) -> str:
    (obs0, _), (obs, _, reward, _, _, alive), *_ = look.play()
    for what, x in (("a reset's observation", obs0), ("a step's observation", obs[np.asarray(alive)])):
        x = np.asarray(x)
        if not np.isfinite(x).all():
            raise _Broken(f"{what} holds NaN or infinity; look for a division by 0 or an overflow")
        bits = x.reshape(-1, math.prod(look.spec.obs_shape))[:, : look.spec.num_binary]
        if not ((bits == 0) | (bits == 1)).all():
            at = int(np.flatnonzero(~((bits == 0) | (bits == 1)).all(0))[0])
            raise _Broken(f"entry {at} of {what} is not 0 or 1, but num_binary is {look.spec.num_binary}; lower it")
    reward = np.asarray(reward)[np.asarray(alive)]
    if not np.isfinite(reward).all():
        raise _Broken("a reward is NaN or infinite; look for a division by 0 or a logarithm of 0")
    return f"rewards {reward.min():.3g} to {reward.max():.3g}"


def _mask(look: _Look) -> str:
    _, state = look.first()
    mask = jax.eval_shape(look.env.action_mask, state)
    if mask is None:
        return "none: every action is always legal"
    agents = (len(look.spec.agents),) if look.spec.agents else ()
    _same_type("the mask", mask, (*agents, look.spec.num_actions), bool, "return one boolean an action, True = legal")
    return ""


def _legal(look: _Look) -> str:
    _, (_, mask, _, _, _, alive), *_ = look.play()
    if mask is None:
        return ""
    mask = np.asarray(mask)[np.asarray(alive)]
    if not mask.any(-1).all():
        raise _Broken("a reachable state has no legal action; keep one action (NOOP, say) legal everywhere")
    share = mask.mean(tuple(range(mask.ndim - 1)))
    return f"{mask.sum(-1).mean():.1f} of {look.spec.num_actions} actions legal; {(share == 0).sum()} never seen legal"


def _ends(look: _Look) -> str:
    _, (_, _, _, terminated, truncated, alive), *_ = look.play()
    alive, over = np.asarray(alive), np.asarray(terminated) | np.asarray(truncated)
    lengths = alive.sum(0)
    limit = look.spec.max_steps
    if limit and (lengths > limit).any():
        raise _Broken(f"an episode went on for {lengths.max()} steps, but Spec.max_steps is {limit}; truncate there")
    ended = (over & alive).any(0).sum()
    hint = "" if ended or limit else "; where there is a time limit, name it in Spec.max_steps"
    return f"{ended} of {_LANES} episodes ended within {look.steps} steps{hint}"


def _final(look: _Look) -> str:
    (_, first), (_obs, _, _, terminated, truncated, alive), state, end_key = look.play()
    ended = ((np.asarray(terminated) | np.asarray(truncated)) & np.asarray(alive)).any(0)
    if not ended.any():
        return "no episode ended, so nothing to see"
    if all((np.asarray(x) == np.asarray(x)[:1]).all() for x in jax.tree.leaves(_numbers_of(first))):
        return "every episode begins alike, so a reset would not show"
    for keys in (end_key, *jnp.moveaxis(jax.vmap(jax.random.split)(end_key), 1, 0)):
        fresh = look.reset(keys)[1]
        same = np.ones(_LANES, bool)
        for a, b in zip(jax.tree.leaves(_numbers_of(fresh)), jax.tree.leaves(_numbers_of(state)), strict=True):
            same &= (np.asarray(a) == np.asarray(b)).reshape(_LANES, -1).all(-1)
        if (same & ended).any():
            raise _Broken(
                "step resets the environment itself, so the episode's last observation is lost; "
                "return the state that the step led to, vectorise does the resets"
            )
    return ""


def _numbers_of(tree: Any) -> Any:
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, jax.tree.map(jnp.asarray, tree))


def _one_step(look: _Look) -> Any:
    obs, state = look.env.reset(look.key)
    action_key, step_key = jax.random.split(look.key)
    action = look.action(action_key, look.env.action_mask(state))
    return _numbers_of((obs, look.env.step(step_key, state, action)[:5]))


def _repeats(look: _Look) -> None:
    """Traced twice: randomness from outside the key is frozen into each trace, and differs between them."""
    one, two = (jax.device_get(jax.jit(lambda: _one_step(look))()) for _ in range(2))
    for (path, a), (_, b) in zip(*(jax.tree_util.tree_leaves_with_path(t) for t in (one, two)), strict=True):
        if a.tobytes() != b.tobytes():
            raise _Broken(
                f"the same key gives different results ({jax.tree_util.keystr(path)}); draw every random "
                "number from the key that reset and step are given"
            )


def _without_jit(look: _Look) -> None:
    if look.unjitted is False:
        raise _Skipped("skipped, as asked; check(env, unjitted=True) does it")
    operations = _count(jax.make_jaxpr(lambda: _one_step(look))().jaxpr)
    if look.unjitted is None and operations > _OPERATIONS:
        raise _Skipped(f"skipped: {operations:,} operations take longer than 5 s; check(env, unjitted=True) does it")
    with jax.disable_jit():
        plain = jax.device_get(_one_step(look))
    jitted = jax.device_get(jax.jit(lambda: _one_step(look))())
    for (path, a), (_, b) in zip(*(jax.tree_util.tree_leaves_with_path(t) for t in (plain, jitted)), strict=True):
        if not np.allclose(np.asarray(a, float), np.asarray(b, float), rtol=1e-4, atol=1e-5):
            raise _Broken(
                f"a step without jit gives another result ({jax.tree_util.keystr(path)}: {a} and {b}); keep "
                "Python side effects and host values out of reset and step"
            )


def _count(jaxpr: Any) -> int:
    """Operations in a program, inner programs included; a scan's body counts as often as it runs, a while's once."""
    total = 0
    for eqn in jaxpr.eqns:
        times = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
        inner = [p for p in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr) if _is_jaxpr(p)]
        total += 1 + times * sum(_count(getattr(p, "jaxpr", p)) for p in inner)
    return total


def _is_jaxpr(x: Any) -> bool:
    return hasattr(x, "eqns") or hasattr(getattr(x, "jaxpr", None), "eqns")


def _picture(look: _Look) -> str:
    state = jax.tree.map(lambda x: x[0], look.play()[0][1])
    frame = look.env.render(state)
    if frame is None:
        return "none"
    frame = np.asarray(frame)
    if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
        raise _Broken(f"render returns {frame.dtype}{list(frame.shape)}; return uint8[H, W, 3], or None for no picture")
    return f"{frame.shape[0]} x {frame.shape[1]} pixels"


_RULES: tuple[tuple[str, Callable[[_Look], str | None], tuple[str, ...]], ...] = (
    ("spec", _spec, ()),
    ("reset", _reset, ("spec",)),
    ("mask", _mask, ("reset",)),
    ("observations", _observations, ("mask",)),
    ("state", _state, ("observations",)),
    ("results", _results, ("observations",)),
    ("numbers", _numbers, ("state", "results")),
    ("legal", _legal, ("state", "results", "mask")),
    ("ends", _ends, ("state", "results")),
    ("final obs", _final, ("state", "results")),
    ("key", _repeats, ("state", "results")),
    ("no jit", _without_jit, ("state", "results", "key")),
    ("picture", _picture, ("state", "results")),
)
