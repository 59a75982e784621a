"""PPO against its own equations written out again, and against mutants of itself."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import BITS, assert_same_bits, driven, masked, mutant, timed

from mxnb.agents import ppo as ppo_module
from mxnb.agents.ppo import PPOConfig, auto_scale, ppo
from mxnb.build import make
from mxnb.envs.api import Env, Spec
from mxnb.envs.vector import vectorise
from mxnb.kernels.packing import unpack
from mxnb.networks.actor_critic import ActorCritic

pytestmark = pytest.mark.brief

SMALL = PPOConfig(
    num_envs=8, num_steps=16, total_timesteps=8 * 16 * 10, hidden_dim=16, num_layers=2, num_minibatches=4, lr=1e-2
)


def sharpen(params: Any) -> Any:
    """Parameters whose policy prefers some actions clearly, and whose values differ clearly between states."""
    layers = dict(params["params"])
    for name, by in (("logits", 300.0), ("value", 3.0)):
        layers[name] = {k: v * by for k, v in layers[name].items()}
    return {"params": layers}


@cache
def rolled(module: Any, env_name: str, use_mask: bool = True) -> Any:
    """A state with sharp parameters and the rollout that `module` makes from it."""
    env = {"masked": masked, "driven": driven}[env_name]()
    config = replace(SMALL, use_mask=use_mask).resolve()
    config = module.PPOConfig(**vars(config))  # a mutant has a class of its own
    venv, network = vectorise(env, 8), ActorCritic(env.spec.num_actions, 16, 2)
    state = module.ppo(config, env).init(jax.random.key(3))
    state = replace(state, policy=sharpen(state.policy))
    roll = jax.jit(lambda state: module.rollout(network, config, venv, state))
    envs, key, data, last_value, metrics = roll(state)
    return SimpleNamespace(
        env=env,
        spec=env.spec,
        config=config,
        venv=venv,
        network=network,
        state=state,
        envs=envs,
        key=key,
        data=data,
        last_value=last_value,
        metrics=metrics,
    )


def log_probs(logits: Any, mask: Any) -> np.ndarray:
    """log softmax over the legal actions, in float64."""
    x = np.asarray(logits, np.float64)
    x = x if mask is None else np.where(mask, x, -np.inf)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def first_ratios(module: Any, env_name: str, use_mask: bool = True) -> np.ndarray:
    """pi(action | stored observation, stored mask) / the stored pi, with unchanged parameters; all transitions."""
    r = rolled(module, env_name, use_mask)
    obs = unpack(r.data.obs, r.spec.num_binary)
    logits, _ = r.network.apply(r.state.policy, obs)
    new = np.take_along_axis(log_probs(logits, r.data.mask), np.asarray(r.data.action)[..., None], -1)[..., 0]
    return np.exp(new - np.asarray(r.data.log_prob))


# ------------------------------------------------------------------------------------------------ the rollout


@pytest.mark.parametrize(("env_name", "use_mask"), [("masked", True), ("masked", False), ("driven", True)])
def test_first_ratios_are_one(env_name: str, use_mask: bool) -> None:
    r = rolled(ppo_module, env_name, use_mask)
    spread = np.std(np.asarray(r.data.log_prob))
    assert spread > 0.3  # the policy has preferences, so a wrong observation would show
    ratios = first_ratios(ppo_module, env_name, use_mask)
    assert ratios.shape == (16, 8)
    np.testing.assert_allclose(ratios, 1, atol=1e-5)
    if env_name == "masked":
        assert r.data.obs.bits.dtype == jnp.uint8 and r.data.obs.bits.shape == (16, 8, 2)  # 11 bits in 2 bytes
        assert r.data.obs.rest.shape == (16, 8, 2)


def test_ratios_catch_an_observation_from_after_the_step() -> None:
    late = mutant(
        ppo_module,
        "obs=pack(envs.obs, spec.num_binary, spec.obs_shape),",
        "obs=pack(after.obs, spec.num_binary, spec.obs_shape),",
    )
    off = np.abs(first_ratios(late, "masked") - 1)
    assert (off > 1e-5).mean() > 0.5
    late = mutant(ppo_module, "            mask=mask,\n", "            mask=after.mask,\n")
    with np.errstate(invalid="ignore"):
        off = np.abs(first_ratios(late, "masked") - 1)
    assert (~(off <= 1e-5)).mean() > 0.3


@pytest.mark.parametrize(("env_name", "use_mask"), [("masked", True), ("masked", False), ("driven", True)])
def test_transitions_are_what_happened(env_name: str, use_mask: bool) -> None:
    r = rolled(ppo_module, env_name, use_mask)
    step = jax.jit(r.venv.step)
    value_of = lambda obs: np.asarray(r.network.apply(r.state.policy, obs)[1])
    vec, d, ends = r.state.envs, jax.device_get(r.data), 0
    obs = unpack(r.data.obs, r.spec.num_binary)
    for t in range(16):
        np.testing.assert_array_equal(obs[t], vec.obs)
        if r.spec.id == "masked-v0" and use_mask:
            np.testing.assert_array_equal(d.mask[t], vec.mask)
            assert d.mask[t][np.arange(8), d.action[t]].all()
        else:
            assert d.mask is None
        np.testing.assert_allclose(d.value[t], value_of(vec.obs), atol=1e-5)
        vec, seen = step(vec, d.action[t])
        assert_same_bits((d.reward[t], d.terminated[t], d.truncated[t]), (seen.reward, seen.terminated, seen.truncated))
        expected = np.where(seen.truncated, value_of(seen.final_obs), 0.0)
        np.testing.assert_allclose(d.final_value[t], expected, atol=1e-5)
        ends += int(seen.is_first.sum())
    assert d.truncated.any() and d.terminated.any() and ends > 8
    assert np.abs(d.final_value[d.truncated]).min() > 0
    assert_same_bits(r.envs, vec)
    np.testing.assert_allclose(r.last_value, value_of(vec.obs), atol=1e-5)
    if not use_mask:
        assert (d.reward < 0).any()  # illegal actions were taken, and cost 1


def plain_gae(d: Any, last_value: Any, discount: float, lambda_: float) -> np.ndarray:
    """GAE in float64 loops: truncated steps bootstrap from V(final_obs), terminated ones from nothing."""
    steps, envs = d.reward.shape
    advantage = np.zeros((steps, envs))
    for n in range(envs):
        trace = 0.0
        for t in reversed(range(steps)):
            after = float(d.value[t + 1, n]) if t + 1 < steps else float(last_value[n])
            if d.terminated[t, n]:
                after, trace = 0.0, 0.0
            elif d.truncated[t, n]:
                after, trace = float(d.final_value[t, n]), 0.0
            trace = float(d.reward[t, n]) + discount * after - float(d.value[t, n]) + discount * lambda_ * trace
            advantage[t, n] = trace
    return advantage


def advantage_error(module: Any, env_name: str) -> float:
    r = rolled(ppo_module, env_name)
    d = jax.device_get(r.data)
    config = module.PPOConfig(**vars(r.config))
    advantage, target = jax.jit(lambda d, last: module.advantages(config, module.Transition(*d), last))(
        tuple(r.data), r.last_value
    )
    expected = plain_gae(d, np.asarray(r.last_value), config.discount, config.lambda_)
    np.testing.assert_allclose(target, np.asarray(advantage) + d.value, atol=1e-5)
    return float(np.abs(np.asarray(advantage) - expected).max())


@pytest.mark.parametrize("env_name", ["masked", "driven"])
def test_advantages_equal_plain_loops(env_name: str) -> None:
    assert advantage_error(ppo_module, env_name) < 1e-4


TRUNCATION_AS_TERMINATION = (
    "inputs = (t.reward, t.value, next_value, t.terminated, t.truncated)",
    "inputs = (t.reward, t.value, next_value, done, t.truncated)",
)


def test_advantages_catch_truncation_taken_for_termination() -> None:
    assert advantage_error(mutant(ppo_module, *TRUNCATION_AS_TERMINATION), "masked") > 0.1
    # and the next episode's first value taken for the final observation's
    start = mutant(ppo_module, "next_value = jnp.where(done, t.final_value, next_value)", "next_value = next_value")
    assert advantage_error(start, "masked") > 0.1


def test_metrics_of_a_rollout() -> None:
    r = rolled(ppo_module, "masked")
    d = jax.device_get(r.data)
    value = {name: m.value if hasattr(m, "value") else m.total / m.count for name, m in r.metrics.items()}
    done = d.terminated | d.truncated
    returns, lengths, running = [], [], np.zeros((2, 8))
    for t in range(16):
        running += np.stack([d.reward[t], np.ones(8)])
        returns += running[0, done[t]].tolist()
        lengths += running[1, done[t]].tolist()
        running[:, done[t]] = 0
    assert value["train/num_episodes"] == done.sum() == len(returns)
    assert value["train/mean_episode_return"] == pytest.approx(np.mean(returns), rel=1e-5)
    assert value["train/mean_episode_length"] == pytest.approx(np.mean(lengths), rel=1e-5)
    assert value["train/mean_reward"] == pytest.approx(d.reward.mean(), rel=1e-5)
    for i in range(4):
        assert value[f"actions/{i}"] == pytest.approx((d.action == i).mean(), rel=1e-5, abs=1e-7)
    assert value["train/no_legal_action"] == 0
    e = rolled(ppo_module, "driven")
    assert {"stats/total", "actions/terminate"} <= set(e.metrics)
    total = e.metrics["stats/total"].total / e.metrics["stats/total"].count
    again = e.metrics["train/mean_episode_return"]
    assert float(total) == pytest.approx(float(again.total / again.count), rel=1e-5)
    assert "train/no_legal_action" not in e.metrics


def test_a_state_without_legal_actions_is_reported() -> None:
    agent = ppo(SMALL, masked(no_legal=True))
    _, metrics = jax.jit(agent.step)(agent.init(jax.random.key(0)))
    assert metrics["train/no_legal_action"].value == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(metrics))
    assert any(rule.metric == "train/no_legal_action" and rule.high == 0 for rule in agent.health)


# ------------------------------------------------------------------------------------------------- the update


def plain_loss(params: Any, config: Any, rows: Any, xp: Any) -> Any:
    """PPO's loss written out for an array library; (total, parts)."""

    def dense(x: Any, name: str) -> Any:
        layer = params["params"][name]
        return x @ layer["kernel"] + layer["bias"].reshape(1, -1)

    first = xp.tanh(dense(rows["obs"], "first"))
    actor = xp.tanh(dense(first, "actor_1"))
    critic = xp.tanh(dense(first, "critic_1"))
    logits, value = dense(actor, "logits"), dense(critic, "value")[:, 0]
    legal = rows["mask"]
    top = xp.max(xp.where(legal, logits, -1e30), -1, keepdims=True)
    mass = xp.where(legal, xp.exp(xp.where(legal, logits - top, 0.0)), 0.0)
    probs = mass / mass.sum(-1, keepdims=True)
    log_p = xp.where(legal, xp.log(xp.where(legal, probs, 1.0)), 0.0)
    log_prob = xp.take_along_axis(log_p, rows["action"][:, None], -1)[:, 0]
    a = rows["advantage"]
    a = (a - a.mean()) / (a.std() + 1e-8)
    ratio = xp.exp(log_prob - rows["log_prob"])
    eps = config.clip_eps
    pg = -xp.minimum(ratio * a, xp.clip(ratio, 1 - eps, 1 + eps) * a).mean()
    vf = ((value - rows["target"]) ** 2).mean() / 2
    entropy = -(probs * log_p).sum(-1)
    choice = legal.sum(-1) > 1
    parts = {
        "train/total_loss": pg + config.vf_coef * vf - config.ent_coef * entropy.mean(),
        "train/pg_loss": pg,
        "train/vf_loss": vf,
        "train/entropy": entropy.mean(),
        "train/entropy_frac": (entropy * choice / xp.log(xp.maximum(legal.sum(-1), 2))).sum() / choice.sum(),
        "train/approx_kl": (ratio - 1 - xp.log(ratio)).mean(),
        "train/clip_frac": (abs(ratio - 1) > eps).mean(),
    }
    return parts["train/total_loss"], parts


def test_update_equals_the_equations_written_out() -> None:
    """2 epochs of 4 minibatches: the same losses, gradients, clipping, Adam and annealing, one row at a time."""
    r = rolled(ppo_module, "masked")
    config = replace(r.config, update_epochs=2, ent_coef=0.05, max_grad_norm=0.3)
    agent = ppo(config, r.env)
    optimiser = optax.chain(
        optax.clip_by_global_norm(0.3), optax.adam(optax.linear_schedule(1e-2, 0.0, 10 * 4 * 2), eps=1e-5)
    )
    state = replace(r.state, opt_state=optimiser.init(r.state.policy))
    gae_ = ppo_module.advantages(config, r.data, r.last_value)
    run = jax.jit(lambda s, d: ppo_module.update(r.network, config, optimiser, r.spec, s, d))
    after, metrics = run(state, (r.data, gae_))
    means = {name: float(m.total / m.count) for name, m in metrics.items()}

    flat = lambda x: np.asarray(x).reshape(128, *np.shape(x)[2:])
    batch = {
        "obs": flat(unpack(r.data.obs, BITS)),
        "mask": flat(r.data.mask),
        "action": flat(r.data.action),
        "log_prob": flat(r.data.log_prob),
        "advantage": flat(gae_[0]),
        "target": flat(gae_[1]),
    }
    grad = jax.jit(jax.grad(lambda p, rows: plain_loss(p, config, rows, jnp)[0]))
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), state.policy)
    m = v = jax.tree.map(np.zeros_like, params)
    logs: list[dict[str, float]] = []
    key, shuffle = jax.random.split(state.key)
    n = 0
    for epoch_key in jax.random.split(shuffle, 2):
        for rows in np.argsort(jax.random.bits(epoch_key, (128,)), kind="stable").reshape(4, 32):
            mini = {name: x[rows] for name, x in batch.items()}
            _, parts = plain_loss(params, config, mini, np)
            g = grad(jax.tree.map(np.float32, params), mini)
            g = jax.tree.map(lambda x: np.asarray(x, np.float64), g)
            norm = math.sqrt(sum((x**2).sum() for x in jax.tree.leaves(g)))
            logs.append({**parts, "train/grad_norm": norm})
            g = jax.tree.map(lambda x: x * min(1.0, 0.3 / norm), g)  # noqa: B023
            m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
            v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, v, g)
            lr = 1e-2 * (1 - n / (10 * 4 * 2))
            n += 1
            m_hat, v_hat = (
                jax.tree.map(lambda x, b=b: x / (1 - b**n), t)  # noqa: B023
                for t, b in ((m, 0.9), (v, 0.999))
            )
            params = jax.tree.map(lambda p, m, v: p - lr * m / (np.sqrt(v) + 1e-5), params, m_hat, v_hat)  # noqa: B023
    assert max(log["train/grad_norm"] for log in logs) > 0.3  # clipping had something to do
    assert means["train/clip_frac"] > 0 and means["train/approx_kl"] > 1e-4
    for name, value in means.items():
        if name == "train/entropy_frac":  # pooled by counts, checked on the first minibatch below
            continue
        expected = np.mean([log[name] for log in logs])
        assert value == pytest.approx(expected, rel=2e-3, abs=2e-5), name
    for (path, ours), theirs in zip(
        jax.tree_util.tree_flatten_with_path(after.policy)[0], jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=5e-4, err_msg=jax.tree_util.keystr(path))
    moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (after.policy, state.policy)), strict=True)]
    assert min(moved) > 1e-3
    assert int(after.update) == int(state.update) + 1
    assert_same_bits(after.key, key)

    # one minibatch's loss by itself, to float32's precision
    _, parts = plain_loss(jax.tree.map(np.float64, state.policy), config, batch, np)
    t = jax.tree.map(lambda x: x.reshape(128, *x.shape[2:]), r.data)
    gae_ = tuple(x.reshape(-1) for x in gae_)
    out = ppo_module.forward(r.network, state.policy, jnp.asarray(batch["obs"]))
    _, seen = ppo_module.loss(config, r.spec, state.policy, out, t, gae_, config.ent_coef)
    for name, mean in seen.items():
        assert float(mean.total / mean.count) == pytest.approx(float(parts[name]), rel=1e-4, abs=1e-5), name
    assert agent.steps_per_update == 128 and agent.num_updates == 10


def test_agent_step_is_rollout_advantages_and_update() -> None:
    r = rolled(ppo_module, "masked")
    agent = ppo(r.config, r.env)
    after, metrics = jax.jit(agent.step)(r.state)
    assert_same_bits((after.envs.env, after.envs.obs), (r.envs.env, r.envs.obs))
    assert int(after.update) == 1
    target = ppo_module.advantages(r.config, r.data, r.last_value)[1]
    fit = 1 - np.var(np.asarray(target - r.data.value)) / np.var(np.asarray(target))
    assert float(metrics["train/explained_variance"].total) == pytest.approx(float(fit), rel=1e-3, abs=1e-3)
    names = "total_loss pg_loss vf_loss entropy entropy_frac approx_kl clip_frac explained_variance mean_reward"
    names += " mean_episode_return mean_episode_length num_episodes grad_norm no_legal_action"
    assert {f"train/{name}" for name in names.split()} | {f"actions/{i}" for i in range(4)} == set(metrics)
    a, b = jax.eval_shape(agent.init, jax.random.key(0)), jax.eval_shape(agent.step, r.state)[0]
    kinds = lambda tree: [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)]
    assert jax.tree.structure(a) == jax.tree.structure(b) and kinds(a) == kinds(b)


# ------------------------------------------------------------------------------------------------------ acting


def actor(use_mask: bool = True) -> Any:
    agent = ppo(replace(SMALL, use_mask=use_mask), masked())
    params = sharpen(agent.init(jax.random.key(1)).policy)
    rng = np.random.default_rng(0)
    obs = np.concatenate([rng.integers(0, 2, (256, BITS)), rng.normal(size=(256, 2))], -1).astype(np.float32)
    mask = rng.random((256, 4)) < 0.5
    mask[:, 0] |= ~mask.any(-1)
    return agent, params, jnp.asarray(obs), jnp.asarray(mask)


def test_act_is_greedy_without_a_key_and_legal_with_one() -> None:
    agent, params, obs, mask = actor()
    logits, value = ActorCritic(4, 16, 2).apply(params, obs)
    expected = log_probs(logits, mask)
    greedy = jax.jit(jax.vmap(lambda o, m: agent.act(params, o, m, (), None)))
    action, memory, extras = greedy(obs, mask)
    np.testing.assert_array_equal(action, np.where(mask, logits, -np.inf).argmax(-1))
    assert (np.asarray(logits).argmax(-1) != np.asarray(action)).any()  # the mask mattered
    assert memory == () and agent.memory(params) == ()
    np.testing.assert_allclose(extras["probs"], np.exp(expected), atol=1e-5)
    assert (np.asarray(extras["probs"])[~np.asarray(mask)] == 0).all()
    np.testing.assert_allclose(extras["value"], value, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(extras["log_prob"], expected[np.arange(256), action], rtol=1e-3, atol=1e-5)
    p = np.exp(expected)
    np.testing.assert_allclose(extras["entropy"], -(p * np.where(p > 0, expected, 0)).sum(-1), atol=1e-5)

    sample = jax.jit(jax.vmap(jax.vmap(lambda o, m, k: agent.act(params, o, m, (), k)[0], (None, None, 0))))
    actions = np.asarray(sample(obs, mask, jax.random.split(jax.random.key(0), (256, 200))))
    assert np.take_along_axis(np.asarray(mask), actions, 1).all()
    frequencies = np.stack([(actions == i).mean(1) for i in range(4)], 1)
    assert np.abs(frequencies - p).max() < 5 * 0.5 / math.sqrt(200)
    assert (frequencies.max(-1) < 1).any()


def test_without_use_mask_the_mask_is_ignored() -> None:
    agent, params, obs, mask = actor(use_mask=False)
    for key in (None, jax.random.key(0)):
        act = jax.jit(jax.vmap(lambda o, m: agent.act(params, o, m, (), key), (0, 0)))  # noqa: B023
        with_mask = act(obs, mask)
        assert_same_bits(with_mask, act(obs, jnp.ones_like(mask)))
        assert not np.asarray(mask)[np.arange(256), with_mask[0]].all()
    step = jax.jit(agent.step)
    _, metrics = step(agent.init(jax.random.key(0)))
    assert "train/no_legal_action" not in metrics
    lost = lambda metrics: metrics["train/mean_reward"].total
    legal = jax.jit(ppo(SMALL, masked()).step)(agent.init(jax.random.key(0)))[1]
    assert lost(metrics) < lost(legal)


# ----------------------------------------------------------------------------------------------- configuration


def test_auto_scale_fills_in_what_is_left_open() -> None:
    cases = [
        # num_envs, num_steps -> minibatches, epochs
        (64, 64, 4, 4),
        (64, 128, 4, 4),
        (1024, 64, 8, 2),
        (2048, 128, 32, 2),
        (8192, 128, 64, 2),
    ]
    for envs, steps, minibatches, epochs in cases:
        c = auto_scale(PPOConfig(num_envs=envs, num_steps=steps, total_timesteps=10**8))
        assert (c.num_minibatches, c.update_epochs) == (minibatches, epochs)
        assert c.lr == pytest.approx(ppo_module.BASE_LR * 16 / (minibatches * epochs))
        assert dict(c.origins) == dict.fromkeys(("num_minibatches", "update_epochs", "lr"), "auto_scale")
        assert c.resolve() == c
    kept = auto_scale(PPOConfig(num_minibatches=8, update_epochs=3, lr=1e-3))
    assert (kept.num_minibatches, kept.update_epochs, kept.lr) == (8, 3, 1e-3) and not kept.origins
    part = auto_scale(PPOConfig(num_minibatches=8))
    assert part.lr == pytest.approx(ppo_module.BASE_LR * 16 / 32) and "num_minibatches" not in part.origins


def test_sizes_that_do_not_fit_are_listed_with_the_mend() -> None:
    with pytest.raises(ValueError) as error:
        auto_scale(PPOConfig(num_envs=6, num_steps=5, num_minibatches=4, total_timesteps=29))
    words = str(error.value)
    assert "num_envs * num_steps = 6 * 5 = 30 does not divide into num_minibatches = 4" in words
    assert "use num_minibatches = 3" in words or "use num_minibatches = 5" in words
    assert "total_timesteps = 29 is less than one update; use at least num_envs * num_steps = 30" in words
    with pytest.raises(ValueError, match="use num_minibatches = 1"):
        ppo(PPOConfig(num_envs=1, num_steps=1, total_timesteps=10), timed(3))


def test_what_it_cannot_do_is_refused() -> None:
    spec = Spec("reach-v0", (2,), action_low=(-math.inf,), action_high=(1.0,))
    with pytest.raises(ValueError, match=r"reach-v0 has actions from .* give finite bounds"):
        ppo(SMALL, Env(spec, timed(3).reset, timed(3).step))
    with pytest.raises(ValueError, match="pair-v0 has 2 agents; this algorithm is for one"):
        ppo(SMALL, Env(Spec("pair-v0", (2,), num_actions=2, agents=("a", "b")), timed(3).reset, timed(3).step))


# ---------------------------------------------------------------------------------------------------- learning


def learned_value(module: Any) -> float:
    """V after training where every step pays 1 for ever and episodes are only cut off: 1 / (1 - 0.9) = 10."""
    config = module.PPOConfig(
        num_envs=8,
        num_steps=16,
        total_timesteps=8 * 16 * 250,
        num_minibatches=1,
        update_epochs=4,
        lr=1e-2,
        discount=0.9,
        hidden_dim=8,
        num_layers=1,
        max_grad_norm=10.0,
    )
    env = timed(6)
    agent = module.ppo(config, env)
    train = jax.jit(lambda s: jax.lax.fori_loop(0, agent.num_updates, lambda _, s: agent.step(s)[0], s))
    state = train(agent.init(jax.random.key(0)))
    return float(agent.act(state.policy, jnp.ones(2), None, (), None)[2]["value"])


def test_value_of_a_task_without_end() -> None:
    assert learned_value(ppo_module) == pytest.approx(10, rel=0.03)


def test_value_catches_truncation_taken_for_termination() -> None:
    wrong = mutant(ppo_module, *TRUNCATION_AS_TERMINATION)
    assert learned_value(wrong) < 7


@pytest.mark.learn
@pytest.mark.parametrize("seed", [0, 1])
def test_cartpole_is_learned(seed: int) -> None:
    config = PPOConfig(
        env_id="cartpole-v1",
        num_envs=8,
        num_steps=128,
        total_timesteps=500_000,
        hidden_dim=64,
        lambda_=0.95,
        normalise_value=True,  # at discount 0.99 values reach 100
    )
    env = make("cartpole-v1")
    agent = ppo(config, env)

    @jax.jit
    def train(key: Any) -> Any:
        return jax.lax.scan(lambda s, _: agent.step(s), agent.init(key), None, agent.num_updates)[1]

    returns = jax.device_get(train(jax.random.key(seed)))["train/mean_episode_return"]
    early = returns.total[:5].sum() / returns.count[:5].sum()
    late = returns.total[-50:].sum() / returns.count[-50:].sum()
    print(f"CartPole, seed {seed}: {early:.0f} at first, {late:.0f} at the end")
    assert early < 60 and late >= 400
