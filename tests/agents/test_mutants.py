"""The well-known bugs, put back one at a time: each must be seen by the check that is meant for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import PPO_SIZES, masked, mutant, timed

from mxnb.agents import on_policy
from mxnb.agents import ppo as ppo_module
from mxnb.agents import ppo_rnn as rnn_module
from mxnb.envs import probes
from mxnb.envs.vector import vectorise
from mxnb.networks.actor_critic import ActorCritic
from mxnb.networks.recurrent import RecurrentActorCritic

pytestmark = pytest.mark.brief


def config_of(module: Any, **more: Any) -> Any:
    name = "PPORnnConfig" if hasattr(module, "PPORnnConfig") else "PPOConfig"
    return getattr(module, name)(**PPO_SIZES | more).resolve()


def agent_of(module: Any, env: Any, **more: Any) -> Any:
    maker = module.ppo_rnn if hasattr(module, "ppo_rnn") else module.ppo
    return maker(config_of(module, **more), env)


def sharp(policy: Any) -> Any:
    """A policy with preferences, so that a wrong observation or mask shows."""
    params = dict(policy["params"])
    params["logits"] = {k: 300.0 * v for k, v in params["logits"].items()}
    return policy | {"params": params}


def metric(metrics: Any, name: str) -> float:
    m = metrics[f"train/{name}"]
    return float(m.total / m.count)


# ------------------------------------------------------------- the checks, each an AssertionError when it fails


def unchanged_parameters_give_ratio_one(module: Any) -> None:
    """With a step size of next to nothing, every ratio of every minibatch is 1: same obs, mask, memory, log-prob."""
    agent = agent_of(module, masked(), lr=1e-30)
    state = agent.init(jax.random.key(3))
    step = jax.jit(agent.step)
    state, _ = step(state.replace(policy=sharp(state.policy)))
    _, metrics = step(state)  # the second rollout begins inside episodes, with memories that matter
    assert abs(metric(metrics, "approx_kl")) < 1e-6 and metric(metrics, "clip_frac") == 0


def the_better_action_wins(module: Any) -> None:
    agent = agent_of(module, probes.action(), lr=1e-2, total_timesteps=8 * 16 * 40)
    train = jax.jit(lambda s: jax.lax.fori_loop(0, agent.num_updates, lambda _, s: agent.step(s)[0], s))
    policy = train(agent.init(jax.random.key(0))).policy
    probs = agent.act(policy, jnp.zeros(1), None, agent.memory(policy), None)[2]["probs"]
    assert probs[1] > 0.9


def the_bonus_raises_entropy(module: Any) -> None:
    """Rewards are all alike, so only the bonus moves the policy."""
    agent = agent_of(module, timed(6, reward=0.0), lr=1e-2, ent_coef=1.0, vf_coef=0.0, anneal_lr=False)
    state = agent.init(jax.random.key(0))
    state = state.replace(policy=sharp(state.policy))
    step, seen = jax.jit(agent.step), []
    for _ in range(3):
        state, metrics = step(state)
        seen.append(metric(metrics, "entropy"))
    assert seen[0] < 0.65 and seen[-1] > seen[0]


def draws_are_fresh(module: Any) -> None:
    """Under a uniform policy an action repeats the one before in half of the steps, not in all."""
    env = timed(6)
    config = config_of(module, num_steps=64, total_timesteps=8 * 64)
    state = agent_of(module, env, num_steps=64, total_timesteps=8 * 64).init(jax.random.key(0))
    actions = np.asarray(roll(module, env, config, state)[1].action)
    repeats = (actions[1:] == actions[:-1]).mean()
    assert abs(repeats - 0.5) < 0.1


def bootstraps_are_right(module: Any) -> None:
    """Advantages equal loops over the rollout, with V(final_obs) at time limits and nothing at deaths."""
    config, env = config_of(module), masked()
    state = agent_of(module, env).init(jax.random.key(3))
    _, data, last_value = roll(module, env, config, state.replace(policy=sharp(state.policy)))
    advantages = module.advantages if hasattr(module, "advantages") else ppo_module.advantages
    advantage = np.asarray(advantages(config, data, last_value)[0])
    d = jax.device_get(data)
    assert d.truncated.any() and d.terminated.any()
    for n in range(8):
        trace = 0.0
        for t in reversed(range(16)):
            after = d.value[t + 1, n] if t < 15 else last_value[n]
            after = 0.0 if d.terminated[t, n] else d.final_value[t, n] if d.truncated[t, n] else after
            trace = 0.0 if d.terminated[t, n] or d.truncated[t, n] else trace
            trace = d.reward[t, n] + 0.99 * after - d.value[t, n] + 0.99 * 0.8 * trace
            assert abs(trace - advantage[t, n]) < 1e-4


def an_episode_knows_nothing_of_the_last(module: Any) -> None:
    """Where an episode begins, the stored value is that of an empty memory."""
    env = masked()
    agent = agent_of(module, env)
    state = agent.init(jax.random.key(3))
    state = state.replace(memory=jnp.ones_like(state.memory))  # is_first says that it does not count
    _, data, _ = roll(module, env, agent.config, state)
    done = np.asarray(data.terminated | data.truncated)
    begins = np.concatenate([np.ones((1, 8), bool), done[:-1]])
    obs = module.unpack(data.obs, env.spec.num_binary, env.spec.obs_shape)
    fresh = lambda o: agent.act(state.policy, o, None, agent.memory(state.policy), None)[2]["value"]
    values = jax.vmap(jax.vmap(fresh))(obs)
    assert begins.sum() > 16
    assert np.abs(np.where(begins, values - data.value, 0.0)).max() < 1e-5


def the_end_is_judged_with_its_own_memory(module: Any) -> None:
    """V after the rollout's last step is what acting on from there gives."""
    env = masked()
    agent = agent_of(module, env)
    state = agent.init(jax.random.key(3))
    after, _, last_value = roll(module, env, agent.config, state.replace(policy=sharp(state.policy)))
    memory = jnp.where(after.is_first[:, None], 0.0, after.memory)
    assert 0 < int(after.is_first.sum()) < 8
    seen = jax.vmap(lambda obs, memory: agent.act(after.policy, obs, None, memory, None)[2])(after.envs.obs, memory)
    assert np.abs(seen["value"] - last_value).max() < 1e-5


def cut_episodes_are_judged_with_the_memory_of_that_moment(module: Any) -> None:
    """V(final_obs) of a cut episode is what acting on through the whole episode gives."""
    env = timed(6)
    agent = agent_of(module, env)
    state = agent.init(jax.random.key(1))
    _, data, _ = roll(module, env, agent.config, state)
    memory = agent.memory(state.policy)
    for _ in range(7):  # six observations of the episode, then the final one; all are alike here
        _, memory, extras = agent.act(state.policy, jnp.ones(2), None, memory, None)
    cut = np.asarray(data.truncated)
    assert cut.sum() == 16
    assert np.abs(np.asarray(data.final_value)[cut] - extras["value"]).max() < 1e-5


def the_loss_is_what_its_options_say(module: Any) -> None:
    """Half-way through, the entropy's weight is half; and a value that moved too far earns the larger of two errors."""
    weights = {"ent_coef": 0.4, "vf_coef": 0.7, "anneal_ent_coef": True, "total_timesteps": 8 * 16 * 10}
    agent = agent_of(module, masked(), lr=1e-30, **weights)
    state = agent.init(jax.random.key(0))
    metrics = jax.jit(agent.step)(state.replace(update=jnp.int32(5)))[1]
    parts = metric(metrics, "pg_loss") + 0.7 * metric(metrics, "vf_loss") - 0.2 * metric(metrics, "entropy")
    assert abs(metric(metrics, "total_loss") - parts) < 1e-5
    if hasattr(module, "loss"):
        config = config_of(module, vf_clip_eps=0.1)
        batch = module.Transition(*[None] * 9)._replace(
            action=jnp.zeros(2, int), log_prob=jnp.zeros(2), value=jnp.zeros(2)
        )
        gae_ = (jnp.zeros(2), jnp.array([1.0, -1.0]))  # the first moved towards its target, the second away from it
        seen = (jnp.zeros((2, 4)), jnp.array([0.5, 0.5]))
        vf = module.loss(config, masked().spec, {}, seen, batch, gae_, 0.0)[1]["train/vf_loss"]
        assert abs(float(vf.total / vf.count) - 0.5 * (0.9**2 + 1.5**2) / 2) < 1e-5


def the_gradient_keeps_its_direction(module: Any) -> None:
    """A clip of the global norm: the first moment is 0.1 g min(1, c / |g|)."""
    optimiser = module.adam(config_of(ppo_module, max_grad_norm=0.5, lr=1e-3), 10)
    grads = {"a": jnp.array([3.0, -4.0]), "b": jnp.array([0.1])}
    (_, (moments, *_)) = optimiser.update(grads, optimiser.init(grads), grads)[1]
    norm = np.sqrt(25.01)
    for name, g in grads.items():
        np.testing.assert_allclose(moments.mu[name], 0.1 * g * 0.5 / norm, rtol=1e-5)


@cache
def _rolls(module: Any, env_id: str, config: Any) -> Callable[..., Any]:
    env = {"masked-v0": masked, "timed-v0": lambda: timed(6)}[env_id]()
    venv, actions = vectorise(env, config.num_envs), env.spec.num_actions
    if hasattr(module, "ppo_rnn"):
        network: Any = RecurrentActorCritic(actions, config.hidden_dim, config.num_layers, 1, config.shared_layers)
    else:
        network = ActorCritic(actions, config.hidden_dim, config.num_layers)
    return jax.jit(lambda state: module.rollout(network, config, venv, state))


def roll(module: Any, env: Any, config: Any, state: Any) -> tuple[Any, Any, Any]:
    """(what the rollout gave first, its transitions, V after its last step)."""
    out = _rolls(module, env.spec.id, replace(config, origins={}))(state)
    return (out[0], out[1][0], out[2]) if hasattr(module, "ppo_rnn") else (out[0], out[2], out[3])


# --------------------------------------------------------------------------------------------------- the mutants

STALE = (
    "            log_prob=log_prob,\n",
    "            log_prob=distribution(spec, {}, mask).log_prob(action),\n",
)
MUTANTS: dict[str, tuple[Any, str, str, Callable[[Any], None]]] = {
    "the observation after the step is stored": (
        ppo_module,
        "obs=pack(envs.obs, spec.num_binary",
        "obs=pack(after.obs, spec.num_binary",
        unchanged_parameters_give_ratio_one,
    ),
    "the observation after the step is stored, with a memory": (
        rnn_module,
        "obs=pack(envs.obs, spec.num_binary",
        "obs=pack(after.obs, spec.num_binary",
        unchanged_parameters_give_ratio_one,
    ),
    "the mask is left out of the loss": (
        ppo_module,
        "dist = distribution(spec, head, batch.mask)",
        "dist = distribution(spec, head, None)",
        unchanged_parameters_give_ratio_one,
    ),
    "the log-probability is of another moment": (
        ppo_module,
        STALE[0],
        STALE[1].format("forward(network, state.policy, after.obs)[0]"),
        unchanged_parameters_give_ratio_one,
    ),
    "the log-probability is of another moment, with a memory": (
        rnn_module,
        STALE[0],
        STALE[1].format("look(network, policy, memory, after.obs, is_first)[1]"),
        unchanged_parameters_give_ratio_one,
    ),
    "the update begins with the memory after the rollout": (
        rnn_module,
        "after, state.memory, (data, gae_))",
        "after, after.memory, (data, gae_))",
        unchanged_parameters_give_ratio_one,
    ),
    "the update forgets to clear the memory": (
        rnn_module,
        "forward(network, policy, memory[0], obs, is_first)",
        "forward(network, policy, memory[0], obs, jnp.zeros_like(is_first))",
        unchanged_parameters_give_ratio_one,
    ),
    "the memory is never cleared": (
        rnn_module,
        "return (after, seen_so_far, seen.is_first, key)",
        "return (after, seen_so_far, never, key)",
        an_episode_knows_nothing_of_the_last,
    ),
    "the end is judged with the memory of the start": (
        rnn_module,
        "last_value = look(network, policy, memory, envs.obs",
        "last_value = look(network, policy, state.memory, envs.obs",
        the_end_is_judged_with_its_own_memory,
    ),
    "a cut episode is judged with the memory of the step before": (
        rnn_module,
        "look(network, policy, seen_so_far, seen.final_obs, never)",
        "look(network, policy, memory, seen.final_obs, never)",
        cut_episodes_are_judged_with_the_memory_of_that_moment,
    ),
    "the entropy's weight never falls": (
        ppo_module,
        "ent_coef = entropy_weight(config, state.update)",
        "ent_coef = config.ent_coef",
        the_loss_is_what_its_options_say,
    ),
    "the value's clip is forgotten": (
        ppo_module,
        "    if config.vf_clip_eps:",
        "    if False:",
        the_loss_is_what_its_options_say,
    ),
    "the advantage has the wrong sign": (
        ppo_module,
        "ppo_policy_loss(log_prob, batch.log_prob, advantage,",
        "ppo_policy_loss(log_prob, batch.log_prob, -advantage,",
        the_better_action_wins,
    ),
    "the entropy bonus has the wrong sign": (
        ppo_module,
        "- ent_coef * entropy\n",
        "+ ent_coef * entropy\n",
        the_bonus_raises_entropy,
    ),
    "a key is used twice": (
        ppo_module,
        "        key, action_key = jax.random.split(key)\n",
        "        action_key = key\n",
        draws_are_fresh,
    ),
    "a key is used twice, with a memory": (
        rnn_module,
        "        key, action_key = jax.random.split(key)\n",
        "        action_key = key\n",
        draws_are_fresh,
    ),
    "a time limit is taken for a death": (
        ppo_module,
        "inputs = (t.reward, t.value, next_value, t.terminated, t.truncated)",
        "inputs = (t.reward, t.value, next_value, done, t.truncated)",
        bootstraps_are_right,
    ),
    "the bootstrap is one step off": (
        ppo_module,
        "jnp.concatenate([t.value[1:], last_value[None]])",
        "jnp.concatenate([t.value[:-1], last_value[None]])",
        bootstraps_are_right,
    ),
    "the gradient is clipped entry by entry": (
        on_policy,
        "optax.clip_by_global_norm(config.max_grad_norm)",
        "optax.clip(config.max_grad_norm)",
        the_gradient_keeps_its_direction,
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_bug_is_seen(name: str) -> None:
    module, old, new, check = MUTANTS[name]
    bug = mutant(module, old, new)
    with pytest.raises(AssertionError):
        check(bug)


@pytest.mark.parametrize(
    ("module", "check"),
    [
        *sorted({(m, c) for m, _, _, c in MUTANTS.values()}, key=lambda p: (p[0].__name__, p[1].__name__)),
        (rnn_module, the_better_action_wins),
        (rnn_module, the_bonus_raises_entropy),
        (rnn_module, bootstraps_are_right),
        (rnn_module, the_loss_is_what_its_options_say),
    ],
    ids=lambda x: x.__name__.rsplit(".", 1)[-1],
)
def test_the_agent_itself_passes(module: Any, check: Callable[[Any], None]) -> None:
    check(module)
