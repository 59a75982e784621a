"""Playing with a policy: unbiased returns over whole episodes, and one episode recorded for pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mxnb.envs.api import NUMBERS, REACHED, TICK_INFO, Env, Spec, finite_bounds
from mxnb.envs.vector import make_worlds
from mxnb.kernels.lives import mean_life, median_life, renewal_gain, reward_rate, survival_curve


@dataclass(frozen=True)
class Policy:
    """Something that acts: `act` as in `mxnb.agents.api.Agent`, bound to its parameters by `params`."""

    spec: Spec
    params: Any
    memory: Callable[..., Any]
    act: Callable[..., Any]


@dataclass(frozen=True)
class Episodes:
    """Whole episodes, one entry each.

    returns: float32[E] undiscounted; lengths: int32[E] steps; terminated, truncated: bool[E] (both False
    where max_steps stopped the evaluation first); info: Spec.info at the last step, [E] each.
    """

    returns: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    info: dict[str, np.ndarray] = field(default_factory=dict)

    def summary(self) -> dict[str, float]:
        """Means, the standard error of the mean return, and for each info its mean."""
        n = len(self.returns)
        return {
            "episodes": n,
            "return": float(self.returns.mean()),
            "return_standard_error": float(self.returns.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan"),
            "length": float(self.lengths.mean()),
            **{name: float(values.mean()) for name, values in self.info.items() if name not in TICK_INFO},
        }

    def report(self) -> dict[str, Any]:
        """What was measured with its 95 % intervals, ready for JSON.

        return, length: {mean, low, high}, mean +- 1.96 standard errors. rates: each info that is 0 or 1 in every
        episode (Craftax's achievements, how it ended), with Wilson's interval (1927), which never leaves 0..1.
        crafter_score: exp(mean over achievements of ln(1 + 100 rate)) - 1, from rates averaged over episodes,
        in percent (Hafner 2021, arXiv:2109.06780, section 3.2). Achievements are the rates without a "/" in their
        name that are not a stage of a game (reached_2); where there are fewer than two there is no score.
        """
        counted = {k: v for k, v in self.info.items() if k not in (*TICK_INFO, *NUMBERS)}
        rates = {k: _wilson(v) for k, v in counted.items() if np.isin(v, (0.0, 1.0)).all()}
        shares = [rate["mean"] for name, rate in rates.items() if not ("/" in name or name.startswith(REACHED))]
        found: dict[str, Any] = {
            "episodes": len(self.returns),
            "return": _interval(self.returns),
            "length": _interval(self.lengths),
            "unfinished": int((~(self.terminated | self.truncated)).sum()),
            "rates": rates,
        }
        if len(shares) > 1:
            found["crafter_score"] = float(np.expm1(np.mean(np.log1p(100.0 * np.asarray(shares)))))
        return found

    def survival(self, r_reset: int) -> dict[str, Any]:
        """The lives as one endless stream in which a death costs `r_reset` steps, ready for JSON.

        gain: steps alive for each step (mean, low, high: 95 % renewal interval); reward: what was paid for each step,
        the gain of a task that pays its own rewards; life: mean steps for each death, and median_life (null where they
        are not finite); deaths, limits, wins, unfinished, alive_steps; curve: `survival_curve` as lists. A win or a
        limit is no death. From episodes of any environment; those of `mxnb.envs.survival` tell how long they lived.
        """
        if r_reset < 0:
            raise ValueError(f"r_reset is {r_reset}; a death costs 0 steps or more (50 is usual)")
        lived, wins, died = self._lives()
        finite = lambda x: float(x) if math.isfinite(x) else None
        named = lambda estimate: {name: finite(x) for name, x in estimate._asdict().items()}
        return {
            "r_reset": r_reset,
            "gain": named(renewal_gain(lived, died, r_reset)),
            "reward": named(reward_rate(self.returns, lived, died, r_reset)),
            "life": named(mean_life(lived, died)),
            "median_life": finite(median_life(lived, died)),
            "deaths": int(died.sum()),
            "limits": int((self.truncated & ~self.terminated & ~wins).sum()),
            "wins": int(wins.sum()),
            "unfinished": int((~(self.terminated | self.truncated | died)).sum()),
            "alive_steps": int(lived.sum()),
            "curve": {name: x.tolist() for name, x in self.survival_curve()._asdict().items()},
        }

    def survival_curve(self) -> Any:
        """(times, share, low, high) of the lives that still go on; see `mxnb.kernels.lives.survival_curve`."""
        lived, _, died = self._lives()
        return survival_curve(lived, died)

    def _lives(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(steps lived int[E], won bool[E], died bool[E]); empty steps of a chain are no life."""
        lived = np.asarray(self.info.get("life", self.lengths)).astype(np.int64)
        wins = self.info.get("cause/win", np.zeros(len(lived))) > 0
        # An evaluation may stop within the empty steps, where nothing has ended yet and the death is past.
        died = self.info["cause/death"] > 0 if "cause/death" in self.info else self.terminated & ~wins
        return lived, wins, died


def as_text(found: dict[str, Any]) -> str:
    """`Episodes.report` as lines to read; found: with policy, env, greedy, and perhaps checkpoint and survival."""
    play = "greedy" if found["greedy"] else "sampled"
    which = f", checkpoint {found['checkpoint']}," if "checkpoint" in found else ""
    lines = [f"{found['policy']}{which} on {found['env']}: {found['episodes']} whole episodes, {play}, 95 % intervals"]
    for name in ("return", "length"):
        of = found[name]
        interval = "" if of["low"] is None else f"   {of['low']:.3f} to {of['high']:.3f}"
        lines.append(f"  {name:<28} {of['mean']:10.3f}{interval}")
    for name, of in sorted(found["rates"].items(), key=lambda item: -item[1]["mean"]):
        lines.append(f"  {name:<28} {of['mean']:10.1%}   {of['low']:.1%} to {of['high']:.1%}")
    if "crafter_score" in found:
        lines.append(f"  {'crafter score':<28} {found['crafter_score']:10.2f} %")
    if lives := found.get("survival"):
        steps = lambda x, digits=1: "no end seen" if x is None else f"{x:.{digits}f}"
        gain, life, paid = lives["gain"], lives["life"], lives["reward"]
        bound = lambda x: "?" if x is None else f"{x:.4g}"
        lines += [
            f"  as one endless stream in which a death costs {lives['r_reset']} steps (not counted above):",
            f"  {'gain, steps alive a step':<28} {gain['mean']:10.3f}   {gain['low']:.3f} to {gain['high']:.3f}",
            f"  {'reward a step':<28} {paid['mean']:10.4g}   {bound(paid['low'])} to {bound(paid['high'])}",
            f"  {'life, steps':<28} {steps(life['mean']):>10}   {steps(life['low'])} to {steps(life['high'])}",
            f"  {'median life, steps':<28} {steps(lives['median_life'], 0):>10}",
            "  " + ", ".join(f"{lives[name]} {name}" for name in ("deaths", "limits", "wins")),
        ]
        if not lives["deaths"]:
            lines.append(
                "  no death was seen: the gain's lower end is what a hazard of 3 in all these steps would give"
            )
    if found["unfinished"]:
        lines.append(f"  {found['unfinished']} episodes were still going on at the step limit")
    return "\n".join(lines)


def _interval(values: np.ndarray) -> dict[str, float | None]:
    mean, n = float(np.mean(values, dtype=np.float64)), len(values)
    half = 1.96 * float(np.std(values, ddof=1, dtype=np.float64)) / math.sqrt(n) if n > 1 else None
    return {"mean": mean, "low": None if half is None else mean - half, "high": None if half is None else mean + half}


def _wilson(values: np.ndarray) -> dict[str, float]:
    share, n, z = float(np.mean(values, dtype=np.float64)), len(values), 1.96
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return {"mean": share, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


@dataclass(frozen=True)
class Recording:
    """One episode with all that a viewer shows; T is its length.

    frames: uint8[T + 1, H, W, 3], or None without a picture; actions int32[T]; rewards, values, entropies
    float32[T]; probs float32[T, A]; masks bool[T, A] or None; infos: Spec.info after each step, [T] each.
    """

    frames: Any
    actions: np.ndarray
    rewards: np.ndarray
    values: np.ndarray
    entropies: np.ndarray
    probs: np.ndarray
    masks: Any
    terminated: bool
    truncated: bool
    action_names: tuple[str, ...]
    infos: dict[str, np.ndarray]

    @property
    def info(self) -> dict[str, float]:
        """Spec.info at the end."""
        return {name: float(values[-1]) for name, values in self.infos.items()}


def random_policy(spec: Spec, *, use_mask: bool = False) -> Policy:
    """All actions alike, or all legal ones with `use_mask`; continuous ones uniform between their bounds."""
    act = _random_act(spec.num_actions) if spec.num_actions else _uniform_act(*finite_bounds(spec))
    return Policy(spec, jnp.array(use_mask), _no_memory, act)


def noop_policy(spec: Spec) -> Policy:
    """Does nothing: the action called "noop", else action 0; the middle of continuous bounds."""
    if spec.num_actions:
        noop = spec.action_names.index("noop") if "noop" in spec.action_names else 0
        action, probs = jnp.int32(noop), jax.nn.one_hot(noop, spec.num_actions)
    else:
        low, high = finite_bounds(spec)
        action, probs = jnp.asarray([(a + b) / 2 for a, b in zip(low, high, strict=True)]), jnp.zeros((0,))
    return Policy(spec, (action, probs), _no_memory, _noop_act)


def rule_policy(spec: Spec, rule: Callable[[Any, Any], Any]) -> Policy:
    """Does what rule(obs, mask) -> action says; discrete actions. For scripted opponents of what was learned."""

    def act(params: Any, obs: Any, mask: Any, memory: Any, key: Any) -> Any:
        action, zero = rule(obs, mask), jnp.zeros(())
        probs = jax.nn.one_hot(action, spec.num_actions)
        return action, memory, {"value": zero, "log_prob": zero, "entropy": zero, "probs": probs}

    return Policy(spec, (), _no_memory, act)


def _no_memory(params: Any) -> tuple[()]:
    return ()


def _noop_act(params: Any, obs: Any, mask: Any, memory: Any, key: Any) -> Any:
    zero = jnp.zeros(())
    return params[0], memory, {"value": zero, "log_prob": zero, "entropy": zero, "probs": params[1]}


@cache
def _uniform_act(low: tuple[float, ...], high: tuple[float, ...]) -> Callable[..., Any]:
    bottom, size = np.asarray(low, np.float32), np.asarray(high, np.float32) - np.asarray(low, np.float32)
    entropy = float(np.log(size).sum())

    def act(params: Any, obs: Any, mask: Any, memory: Any, key: Any) -> Any:
        share = jnp.full(size.shape, 0.5) if key is None else jax.random.uniform(key, size.shape)
        extras = {"value": 0.0, "log_prob": -entropy, "entropy": entropy}
        return bottom + size * share, memory, jax.tree.map(jnp.float32, extras) | {"probs": jnp.zeros((0,))}

    return act


@cache
def _random_act(num_actions: int) -> Callable[..., Any]:
    def act(params: Any, obs: Any, mask: Any, memory: Any, key: Any) -> Any:
        legal = jnp.ones(num_actions, bool) if mask is None else mask | ~params
        surprise = jnp.log(legal.sum().astype(jnp.float32))  # every legal action has probability 1 / count
        logits = jnp.where(legal, 0.0, -jnp.inf)
        action = legal.argmax() if key is None else jax.random.categorical(key, logits)
        extras = {
            "value": jnp.zeros(()),
            "log_prob": -surprise,
            "entropy": surprise,
            "probs": jnp.where(legal, jnp.exp(-surprise), 0.0),
        }
        return action, memory, extras

    return act


def periodic(agent: Any, env: Env, num_episodes: int, seed: int = 0) -> Callable[[Any], dict[str, float]]:
    """For `fit(evaluate=...)`: numbers of `num_episodes` whole episodes of the policy of that moment.

    The same worlds every time, so that two evaluations differ by the policy alone.
    """

    def numbers(params: Any) -> dict[str, float]:
        policy = Policy(agent.spec, params, agent.memory, agent.act)
        summary = evaluate(policy, env, num_episodes, jax.random.key(seed)).summary()
        return {k: v for k, v in summary.items() if k != "episodes" and math.isfinite(v)}

    return numbers


def evaluate(
    policy: Policy, env: Env, num_episodes: int, key: Any, *, greedy: bool = False, max_steps: int | None = None
) -> Episodes:
    """Plays `num_episodes` whole episodes side by side, each in an environment of its own.

    Only each environment's first episode counts, from start to end: counting the episodes that end within
    a fixed number of steps would favour short ones. max_steps: stops there; default the spec's time limit.
    """
    check_fit(policy, env)
    limit = max_steps or env.spec.max_steps or 10_000
    out = _play(policy.act, policy.memory, env, num_episodes, greedy, policy.params, key, limit)
    returns, lengths, terminated, truncated, info = jax.device_get(out)
    return Episodes(returns, lengths, terminated, truncated, info)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _play(act: Any, first: Any, env: Env, count: int, greedy: bool, params: Any, key: Any, limit: Any) -> Any:
    key, world_key = jax.random.split(key)
    obs, state = make_worlds(env, world_key, count)
    memory = jax.vmap(lambda _: first(params))(jnp.arange(count))
    none = jnp.zeros(count, bool)
    info = {name: jnp.zeros(count) for name in env.spec.info}
    record = (jnp.zeros(count), jnp.zeros(count, jnp.int32), none, none, info)

    def running(carry: Any) -> Any:
        *_, (_, _, terminated, truncated, _), t = carry
        return (~(terminated | truncated)).any() & (t < limit)

    def tick(carry: Any) -> Any:
        key, obs, state, memory, (returns, lengths, terminated, truncated, info), t = carry
        key, act_key, step_key = jax.random.split(key, 3)
        alive = ~(terminated | truncated)
        action, memory, _ = _act_all(act, env, params, obs, state, memory, None if greedy else act_key)
        fresh = jax.vmap(env.step)(jax.random.split(step_key, count), state, action)
        (obs, state) = jax.tree.map(lambda new, old: new.astype(old.dtype), fresh[:2], (obs, state))
        info = {name: jnp.where(alive, fresh[5][name], info[name]) for name in info}
        record = (
            returns + jnp.where(alive, fresh[2], 0.0),
            lengths + alive,
            jnp.where(alive, fresh[3], terminated),
            jnp.where(alive, fresh[4], truncated),
            info,
        )
        return key, obs, state, memory, record, t + 1

    return jax.lax.while_loop(running, tick, (key, obs, state, memory, record, 0))[4]


def _act_all(act: Any, env: Env, params: Any, obs: Any, state: Any, memory: Any, key: Any) -> Any:
    """`act` in every environment, each with its own key (None: greedy) and mask."""
    count = obs.shape[0]

    def one(obs: Any, state: Any, memory: Any, key: Any) -> Any:
        return act(params, obs, env.action_mask(state), memory, key)

    if key is None:
        return jax.vmap(partial(one, key=None))(obs, state, memory)
    return jax.vmap(one)(obs, state, memory, jax.random.split(key, count))


def record(policy: Policy, env: Env, key: Any, *, greedy: bool = False, max_steps: int = 500) -> Recording:
    """Plays one episode, at most `max_steps` long, and keeps every frame and what the policy thought."""
    check_fit(policy, env)
    trace = jax.device_get(_trace(policy.act, policy.memory, env, greedy, max_steps, policy.params, key))
    states, masks, action, reward, terminated, truncated, extras, info = trace
    ended = np.flatnonzero(terminated | truncated)
    steps = int(ended[0]) + 1 if len(ended) else max_steps
    pictures = [env.render(jax.tree.map(lambda x: jnp.asarray(x[t]), states)) for t in range(steps + 1)]  # noqa: B023
    frames = None if pictures[0] is None else np.stack([np.asarray(picture) for picture in pictures])
    return Recording(
        frames=frames,
        actions=action[:steps],
        rewards=reward[:steps],
        values=extras["value"][:steps],
        entropies=extras["entropy"][:steps],
        probs=extras["probs"][:steps],
        masks=None if masks is None else masks[:steps],
        terminated=bool(terminated[steps - 1]),
        truncated=bool(truncated[steps - 1]),
        action_names=env.spec.action_names,
        infos={name: values[:steps] for name, values in info.items()},
    )


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _trace(act: Any, first: Any, env: Env, greedy: bool, steps: int, params: Any, key: Any) -> Any:
    """`steps` steps of one environment: states [steps + 1, ...], the rest [steps, ...]."""
    key, world_key = jax.random.split(key)
    obs, start = jax.tree.map(lambda x: x[0], make_worlds(env, world_key, 1))

    def tick(carry: Any, key: Any) -> Any:
        obs, state, memory = carry
        act_key, step_key = jax.random.split(key)
        mask = env.action_mask(state)
        action, memory, extras = act(params, obs, mask, memory, None if greedy else act_key)
        new_obs, new_state, reward, terminated, truncated, info = env.step(step_key, state, action)
        new = jax.tree.map(lambda new, old: new.astype(old.dtype), (new_obs, new_state), (obs, state))
        kept = {name: info[name] for name in env.spec.info}
        return (*new, memory), (new[1], mask, action, reward, terminated, truncated, extras, kept)

    _, (states, *rest) = jax.lax.scan(tick, (obs, start, first(params)), jax.random.split(key, steps))
    states = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), start, states)
    return states, *rest


def check_fit(policy: Policy, env: Env) -> None:
    """ValueError where the policy was made for other observations or actions than the environment's."""
    ours, theirs = policy.spec, env.spec
    if (ours.obs_shape, ours.num_actions) != (theirs.obs_shape, theirs.num_actions):
        raise ValueError(
            f"the policy was made for {ours.id} (observation {ours.obs_shape}, {ours.num_actions} actions), "
            f"{theirs.id} has observation {theirs.obs_shape} and {theirs.num_actions} actions"
        )
    if (ours.action_low, ours.action_high) != (theirs.action_low, theirs.action_high):
        raise ValueError(
            f"the policy was made for {ours.id} with actions from {ours.action_low} to {ours.action_high}, "
            f"{theirs.id} has them from {theirs.action_low} to {theirs.action_high}"
        )
