"""How good Dreamer's world model is, measured on episodes that it was not trained on.

    rows = held_out(config, env, params, key)            play some
    told = open_loop(config, env, params, rows, key)     see 16 rows, foresee the next ones by their actions alone
    judge_model(config, env, params, rows, key)          the numbers, each beside what a simple predictor reaches

Losses alone hide the worst mistakes (a reward head that knows what it has seen and foresees nothing); these do not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mxnb.agents import world
from mxnb.agents.dreamer import begin, networks, tick
from mxnb.agents.replay import Row, load
from mxnb.envs.api import Env
from mxnb.envs.vector import vectorise
from mxnb.kernels.imagined import lambda_returns
from mxnb.networks.rssm import sample_latent
from mxnb.networks.world_model import decoded

CONTEXT = 16  # rows that are seen before foresight begins
HORIZON = 16  # rows that are then foreseen


def held_out(config: Any, env: Env, params: Any, key: Any, *, num_envs: int = 32, steps: int = 512) -> Row:
    """Rows [steps, num_envs, ...] of fresh worlds, played by the policy with draws."""
    config = replace(config, num_envs=num_envs, replay_size=num_envs)
    nets = networks(config, env.spec)
    venv = vectorise(env, num_envs, autoreset="next_step")

    @jax.jit
    def roll(params: Any, key: Any) -> Any:
        start_key, key = jax.random.split(key)
        stream = begin(config, nets, venv, start_key).replace(replay=None)  # type: ignore[attr-defined]
        one = lambda stream, key: tick(config, nets, venv, params, stream, key)
        return jax.lax.scan(one, stream, jax.random.split(key, steps))[1][0]

    return load(env.spec, roll(params, key), config.use_mask)


class Foresight(NamedTuple):
    """What was foreseen of W windows for H rows after the context, and what came."""

    obs: Any  # float32[H, W, *obs_shape]: one future; chances for bits, 0 to 1 for pictures
    mean: Any  # the same, as the mean of many futures: what the model holds likely
    reward: Any  # float32[H, W], as the mean too
    cont: Any  # float32[H, W]: the discounted chance to go on
    truth: Row  # rows [H, W]
    last: Any  # [W, *obs_shape]: the last observation that was seen


def windows(rows: Row, length: int) -> Row:
    """Whole windows [length, W, ...] of rows [T, N, ...] that lie within one episode after their context."""
    count = rows.reward.shape[0] // length
    cut = lambda x: jnp.moveaxis(x[: count * length].reshape(count, length, *x.shape[1:]), 1, 0)
    many = jax.tree.map(lambda x: cut(x).reshape(length, -1, *x.shape[2:]), rows)
    whole = np.flatnonzero(~np.asarray(many.is_first[CONTEXT:]).any(0))
    if not len(whole):
        raise ValueError(f"no window of {length} rows lies within one episode; these are too short for it")
    return jax.tree.map(lambda x: x[:, whole], many)


def open_loop(
    config: Any, env: Env, params: Any, rows: Row, key: Any, *, horizon: int = HORIZON, futures: int = 16
) -> Foresight:
    """Windows of `rows` seen for 16 rows, then foreseen for `horizon` more from their actions alone, `futures` times.

    Raises ValueError where no episode is long enough.
    """
    nets = networks(config, env.spec)
    spec = env.spec
    cut = windows(rows, CONTEXT + horizon)

    @jax.jit
    def foresee(params: Any, cut: Row, key: Any) -> Any:
        seen_key, key = jax.random.split(key)
        many = cut.reward.shape[1]
        draws = jax.random.uniform(seen_key, (CONTEXT, many, nets.world.stoch))
        h, z, _ = world.observe(nets, params, cut.obs[:CONTEXT], cut.action[:CONTEXT], cut.is_first[:CONTEXT], draws)

        def go(carry: Any, now: Any) -> Any:
            action, draw = now
            h = nets.model(params, "core", *carry, nets.coded(action))
            z = sample_latent(nets.model(params, "prior", h), draw)
            return (h, z), jnp.concatenate([h, z], -1)

        def future(key: Any) -> Any:
            free = jax.random.uniform(key, (horizon, many, nets.world.stoch))
            feature = jax.lax.scan(go, (h[-1], z[-1]), (cut.action[CONTEXT - 1 : -1], free))[1]
            shown = decoded(
                nets.model(params, "decode", feature), len(spec.obs_shape), spec.num_binary, nets.world.scale
            )
            return shown, *world.predicted(nets, params, feature)

        keys = jax.random.split(key, futures)
        first = future(keys[0])
        add = lambda total, key: (jax.tree.map(jnp.add, total, future(key)), None)
        total = jax.lax.scan(add, first, keys[1:])[0]
        return first[0], *jax.tree.map(lambda x: x / futures, total)

    obs, mean, reward, cont = foresee(params, cut, key)
    return Foresight(obs, mean, reward, cont, jax.tree.map(lambda x: x[CONTEXT:], cut), cut.obs[CONTEXT - 1])


def nats_of_bits(told: Foresight, num_binary: int, rows: Row) -> dict[str, Any]:
    """Mean nats for an observation's bits at each horizon: the model's and those of two simple predictors.

    marginal: every bit at its share in `rows`. repeat: from the last observation seen, each bit set as often as that
    very bit was, in these windows at that horizon, where it had been as it was. Both know the answers' own shares.
    """
    flat = lambda x: np.asarray(x, np.float64).reshape(*x.shape[:2], -1)[..., :num_binary]
    truth, last = flat(told.truth.obs), flat(told.last[None])
    share = np.clip(flat(rows.obs).mean((0, 1)), 1e-4, 1 - 1e-4)
    nats = lambda chance: -(truth * np.log(chance) + (1 - truth) * np.log(1 - chance)).sum(-1).mean(-1)
    # Half a case is added to both sides, so that what never happened in these windows is not held impossible.
    after = lambda was: ((truth * was).sum(1, keepdims=True) + 0.5) / (was.sum(1, keepdims=True) + 1.0)
    repeat = np.where(last > 0.5, after(last), after(1 - last))
    chance = np.clip(flat(told.mean), 1e-6, 1 - 1e-6)
    return {"model": nats(chance), "marginal": nats(share), "repeat": nats(repeat)}


class Expected(NamedTuple):
    """What the model made of rows [T, N] as they came, as NumPy arrays."""

    reward: Any  # from the posterior: the row was seen
    reward_before: Any  # from the prior: one step ahead
    cont: Any  # from the posterior, without the discount
    cont_before: Any  # from the prior: one step ahead
    value: Any  # return that a dream of `horizon` steps from here expects
    reached: (
        Any  # float[T - horizon, N]: the discounted reward that came in as many steps; nan where a reset lies between
    )
    kl: Any  # nats a row
    posterior_entropy: Any  # nats a row


def expect(config: Any, env: Env, params: Any, rows: Row, key: Any) -> Expected:
    """The model on rows in order; see `Expected`. Values are dreams' lambda-returns with their bootstrap left out."""
    nets, (length, many) = networks(config, env.spec), rows.reward.shape

    @jax.jit
    def ask(params: Any, rows: Row, key: Any) -> Any:
        seen_key, prior_key, dream_key = jax.random.split(key, 3)
        draws = jax.random.uniform(seen_key, (length, many, nets.world.stoch))
        h, z, log_post = world.observe(nets, params, rows.obs, rows.action, rows.is_first, draws)
        log_prior = nets.model(params, "prior", h)
        guess = sample_latent(log_prior, jax.random.uniform(prior_key, draws.shape))
        reward, cont = world.predicted(nets, params, jnp.concatenate([h, z], -1))
        before, cont_before = world.predicted(nets, params, jnp.concatenate([h, guess], -1))
        flat = lambda x: x.reshape(length * many, -1)
        dream = world.imagine(config, nets, params, flat(h), flat(z), dream_key)
        rewards, conts = world.predicted(nets, params, dream.feature)
        nothing = jnp.zeros_like(rewards)
        sums = jax.vmap(lambda r, c, v: lambda_returns(r, c, v, lambda_=1.0), 1, 1)(rewards, conts, nothing)
        kl, entropy = world.divergence(log_post, log_prior), world.latent_entropy(log_post)
        told = (reward, before, cont / config.discount, cont_before / config.discount)
        return *told, sums[0].reshape(length, many), kl, entropy

    reward, before, cont, cont_before, value, kl, entropy = map(np.asarray, ask(params, rows, key))
    return Expected(reward, before, cont, cont_before, value, _reached(config, rows), kl, entropy)


def _reached(config: Any, rows: Row) -> np.ndarray:
    """Discounted reward of the next `horizon` rows from each; nothing after a terminal row, nan across a cut."""
    horizon = config.horizon
    reward, first, terminal = (np.asarray(x) for x in (rows.reward, rows.is_first, rows.is_terminal))
    length = len(reward) - horizon
    total, going = np.zeros((length, reward.shape[1])), np.ones((length, reward.shape[1]))
    for k in range(1, horizon + 1):
        lost = first[k : k + length] & (going > 0)  # the episode was cut off: nobody knows what would have come
        total = np.where(lost, np.nan, total + going * np.where(going > 0, reward[k : k + length], 0.0))
        going = going * config.discount * ~terminal[k : k + length]
    return np.where(terminal[:length] | np.asarray(rows.is_last)[:length], np.nan, total)


def judge_model(config: Any, env: Env, params: Any, rows: Row, key: Any) -> dict[str, float]:
    """The world model in numbers, on held-out rows; AUC is the chance that a row that has it gets the higher number.

    reward_auc, reward_before_auc: reward of at least 0.5 against the rest, after seeing the row and one step ahead;
    reward_share, reward_before_share: mean prediction over mean reward; cont_auc, cont_before_auc: terminal rows
    against the rest; cont_gap: difference of means; kl, free_share, posterior_entropy; dream_rank, dream_slope:
    Spearman's rank correlation and the slope of what came over what a dream expected; bits_*: nats, open loop and
    simple predictors (left out where no episode is long enough).
    """
    from scipy import stats

    found = expect(config, env, params, rows, key)
    reward, terminal = np.asarray(rows.reward), np.asarray(rows.is_terminal)
    share = lambda told: float(told.mean() / reward.mean()) if reward.mean() else float("nan")
    known = np.isfinite(found.reached)
    dreamt, came = found.value[: len(found.reached)][known], found.reached[known]
    result = {
        "rows": float(reward.size),
        "reward_auc": auc(found.reward, reward >= 0.5),
        "reward_before_auc": auc(found.reward_before, reward >= 0.5),
        "reward_share": share(found.reward),
        "reward_before_share": share(found.reward_before),
        "cont_auc": auc(-found.cont, terminal),
        "cont_before_auc": auc(-found.cont_before, terminal),
        "cont_gap": float(found.cont.mean() - (1 - terminal.mean())),
        "kl": float(found.kl.mean()),
        "free_share": float((found.kl <= config.free_nats).mean()),
        "posterior_entropy": float(found.posterior_entropy.mean()),
    }
    if len(came) > 2 and came.std() > 0 and dreamt.std() > 0:
        rank: Any = stats.spearmanr(dreamt, came)
        line: Any = stats.linregress(dreamt, came)
        result |= {"dream_rank": float(rank.statistic), "dream_slope": float(line.slope)}
    if env.spec.num_binary:
        try:
            windows(rows, CONTEXT + HORIZON)
        except ValueError:
            return result  # these episodes are too short
        told = open_loop(config, env, params, rows, key)
        nats = nats_of_bits(told, env.spec.num_binary, rows)
        result |= {f"bits_{name}_{k}": float(nats[name][k - 1]) for k in (1, 5, 15) for name in nats}
    return result


def auc(score: Any, has: Any) -> float:
    """The chance that a row that has it scores above one that has not, ties counting half; nan without both kinds."""
    from scipy import stats

    score, has = np.asarray(score, np.float64).reshape(-1), np.asarray(has).reshape(-1)
    few, many = int(has.sum()), int((~has).sum())
    if not few or not many:
        return float("nan")
    ranks = stats.rankdata(score)[has].sum()
    return float((ranks - few * (few + 1) / 2) / (few * many))
