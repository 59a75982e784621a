"""PPO's options, each against what it promises: actions without names, pictures, scales, schedules, own networks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from play import train, watch
from tiny import BITS, PPO_SIZES, masked, timed

from mxnb.agents.average_reward import AverageRewardConfig
from mxnb.agents.on_policy import acted, adam, distribution, env_action
from mxnb.agents.ppo import PPOConfig, entropy_weight, forward, ppo
from mxnb.agents.ppo_rnn import PPORnnConfig, ppo_rnn, rollout
from mxnb.agents.scales import learn_scales
from mxnb.build import make
from mxnb.envs.api import Env, Spec
from mxnb.envs.vector import vectorise
from mxnb.kernels.packing import pack, unpack
from mxnb.kernels.running import empty
from mxnb.networks.actor_critic import ActorCritic
from mxnb.networks.recurrent import RecurrentActorCritic

pytestmark = pytest.mark.brief

SMALL = PPO_SIZES | {"total_timesteps": 8 * 16 * 20}
BOTH = ((PPOConfig, ppo), (PPORnnConfig, ppo_rnn))


def value(metrics: Any, name: str) -> float:
    m = metrics[f"train/{name}"]
    return float(m.total / m.count)


def aim() -> Env:
    """One step; the best of two numbers from 0..4 and -2..0 is (3, -0.5), the reward minus the squared distance."""

    def reset(key: Any) -> Any:
        return jnp.zeros(1), jax.random.uniform(key)

    def step(key: Any, state: Any, action: Any) -> Any:
        reward = -jnp.square(action - jnp.array([3.0, -0.5])).sum()
        never = jnp.zeros((), bool)
        return jnp.zeros(1), state, reward, ~never, never, {}

    return Env(Spec("aim-v0", (1,), action_low=(0.0, -2.0), action_high=(4.0, 0.0)), reset, step)


@pytest.mark.learn
@pytest.mark.parametrize(("config_class", "maker"), BOTH)
def test_continuous_actions_are_learned(config_class: Any, maker: Any) -> None:
    env = aim()
    agent = maker(config_class(**SMALL | {"lr": 1e-2, "total_timesteps": 8 * 16 * 150, "ent_coef": 0.0}), env)
    action = watch(agent, env, train(agent, 4), 1)[2]
    assert np.abs(action - np.array([3.0, -0.5], np.float32)).max() < 0.25


def test_continuous_actions_are_stored_as_drawn_and_played_within_bounds() -> None:
    spec = aim().spec
    head = jnp.array([[0.0, 5.0, -1.0, -1.0], [0.5, -0.5, -20.0, -20.0]])
    low_high = np.asarray(env_action(spec, jnp.array([[-7.0, 7.0], [0.0, 0.0]])))
    np.testing.assert_allclose(low_high, [[0, 0], [2, -1]])
    greedy, extras = acted(spec, None, head[1], jnp.zeros(()), None)
    np.testing.assert_allclose(greedy, [3, -1.5], rtol=1e-6)
    assert extras["probs"].shape == (0,)
    std = np.exp(-1.0)
    noise = jax.vmap(lambda k: acted(spec, k, head[0], jnp.zeros(()), None)[0])(
        jax.random.split(jax.random.key(0), 4000)
    )
    inner = np.asarray(noise)[:, 0] / 2 - 1  # back in units of -1..1, clipped in a few cases
    assert abs(np.median(inner)) < 0.03 and (np.asarray(noise)[:, 1] == 0).all()
    assert abs(np.mean(np.abs(inner) < std) - 0.683) < 0.03
    entropy = 2 * (0.5 * np.log(2 * np.pi * np.e) - 1)
    assert float(acted(spec, None, head[0], jnp.zeros(()), None)[1]["entropy"]) == pytest.approx(entropy, rel=1e-5)


@pytest.mark.parametrize(("config_class", "maker"), BOTH)
@pytest.mark.parametrize(
    ("env_name", "more"),
    [
        ("aim", {}),
        ("masked", {"normalise_obs": True, "normalise_value": True, "vf_clip_eps": 0.2, "anneal_ent_coef": True}),
        ("masked", {"shared_layers": 0, "num_layers": 3}),
        ("masked", {"shared_layers": 2, "num_layers": 2, "warmup_updates": 2}),
        ("breakout-minatar", {}),
    ],
    ids=str,
)
def test_with_every_option_unchanged_parameters_give_ratio_one(
    config_class: Any, maker: Any, env_name: str, more: Any
) -> None:
    with jax.numpy_rank_promotion("allow"):  # gymnax's tasks rely on it
        env = {"aim": aim, "masked": masked}.get(env_name, lambda: make(env_name))()
        agent = maker(config_class(**SMALL | {"lr": 1e-30} | more), env)
        step, state = jax.jit(agent.step), agent.init(jax.random.key(0))
        for _ in range(2):
            state, metrics = step(state)
        assert abs(value(metrics, "approx_kl")) < 1e-6 and value(metrics, "clip_frac") == 0
        assert ("train/entropy_frac" in metrics) == bool(env.spec.num_actions)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(metrics))


def test_observations_are_scaled_by_what_was_seen() -> None:
    agent = ppo(PPOConfig(**SMALL | {"normalise_obs": True}), masked())
    state, step = agent.init(jax.random.key(0)), jax.jit(agent.step)
    for _ in range(3):
        state, _ = step(state)
    stats = state.policy["obs_stats"]
    assert stats.count == 3 * 128
    assert (stats.mean[:BITS] == 0).all() and (stats.variance[:BITS] == 1).all()  # bits stay bits
    assert np.abs(stats.mean[BITS:]).max() < 0.2 and np.abs(stats.variance[BITS:] - 1).max() < 0.3  # they are normal
    obs = jnp.concatenate([jnp.ones((4, BITS)), jnp.full((4, 2), 1e6)], -1)
    network_sees = forward(lambda_network(), state.policy, obs)[0]
    np.testing.assert_array_equal(network_sees[:, :BITS], 1.0)
    np.testing.assert_array_equal(network_sees[:, BITS:], 10.0)  # and no entry leaves -10..10


def test_pictures_are_scaled_too() -> None:
    spec = Spec("picture-v0", (5, 4, 3), obs_dtype=jnp.uint8, num_actions=2)
    config = PPOConfig(**SMALL | {"normalise_obs": True})
    policy = {"params": {}, "obs_stats": empty(spec.obs_shape)}
    pictures = jax.random.randint(jax.random.key(0), (6, 7, *spec.obs_shape), 0, 256).astype(jnp.uint8)
    transitions = SimpleNamespace(obs=pack(pictures, 0, spec.obs_shape))
    stats = learn_scales(config, spec, policy, (transitions, (None, None)))["obs_stats"]
    np.testing.assert_allclose(stats.mean, np.asarray(pictures, np.float64).mean((0, 1)), rtol=1e-5)


def lambda_network() -> Any:
    class Echo:
        def apply(self, variables: Any, obs: Any) -> Any:
            return obs, obs[..., 0]

    return Echo()


@pytest.mark.learn
def test_values_of_large_rewards_are_learned_with_normalised_targets() -> None:
    """Reward 500 for ever at discount 0.9: V = 5,000, out of reach for a plain critic at this step size."""

    def learned(**more: Any) -> float:
        config = PPOConfig(**SMALL | {"total_timesteps": 8 * 16 * 200, "lr": 3e-3, "discount": 0.9} | more)
        agent = ppo(config, timed(6, reward=500.0))
        policy = jax.tree.map(lambda x: x[0], train(agent, 1))
        return float(agent.act(policy, jnp.ones(2), None, (), None)[2]["value"])

    assert learned(normalise_value=True) == pytest.approx(5000, rel=0.03)
    assert learned() < 1000


def in_parts(gain: float, loss: float) -> Env:
    """A reward of two parts that the Spec tells of, and something beside it."""
    inner = timed(6, reward=gain + loss)

    def step(key: Any, state: Any, action: Any) -> Any:
        *seen, info = inner.step(key, state, action)
        return *seen, info | {"gain": jnp.float32(gain), "loss": jnp.float32(loss), "beside": jnp.float32(5.0)}

    means = (("reward/gain", "gain"), ("reward/loss", "loss"), ("stats/beside", "beside"))
    return replace(inner, spec=replace(inner.spec, step_means=means), step=step)


@pytest.mark.parametrize(("config_class", "maker"), BOTH)
@pytest.mark.parametrize(("scale", "learned"), [({"loss": 0.1}, 195.0), ({"gain": 0, "loss": 2, "beside": 3}, -85.0)])
def test_parts_of_the_reward_are_weighed_in_learning_and_shown_as_paid(
    config_class: Any, maker: Any, scale: dict[str, float], learned: float
) -> None:
    agent = maker(config_class(**SMALL | {"reward_scale": scale, "discount": 0.0}), in_parts(200.0, -50.0))
    metrics = jax.jit(agent.step)(agent.init(jax.random.key(0)))[1]
    assert value(metrics, "mean_reward") == 150
    # The first value is nearly 0, so the critic's first loss is half the square of what it is taught.
    assert value(metrics, "vf_loss") == pytest.approx(0.5 * learned**2, rel=0.15)


@pytest.mark.parametrize(("config_class", "maker"), BOTH)
def test_what_reward_scale_cannot_mean_is_refused(config_class: Any, maker: Any) -> None:
    with pytest.raises(ValueError, match="tells of no gains in a step; it has gain, loss, beside"):
        maker(config_class(**SMALL | {"reward_scale": {"gains": 1.0}}), in_parts(1.0, 1.0))
    with pytest.raises(ValueError, match="its Spec has no step_means; use reward_scale="):
        maker(config_class(**SMALL | {"reward_scale": {"gain": 1.0}}), timed(6))
    for wrong in ("half", True, float("nan")):
        with pytest.raises(ValueError, match="give each part a finite number, 1 for the whole of it"):
            maker(config_class(**SMALL | {"reward_scale": {"gain": wrong}}), in_parts(1.0, 1.0))
    with pytest.raises(ValueError, match="would change what the gain is the mean of"):
        AverageRewardConfig(**SMALL | {"reward_scale": {"gain": 1.0}}).resolve()


@pytest.mark.parametrize(("config_class", "maker"), BOTH)
def test_a_board_is_read_only_where_there_is_one_as_it_is(config_class: Any, maker: Any) -> None:
    with pytest.raises(ValueError, match="has no board that its Spec tells of; use cell_dim=0"):
        maker(config_class(**SMALL | {"cell_dim": 4}), masked())
    with pytest.raises(ValueError, match="use normalise_obs=False"):
        maker(config_class(**SMALL | {"cell_dim": 4, "normalise_obs": True}), make("hackmatrix-v1"))
    with pytest.raises(ValueError, match="cell_dim are for the networks built here"):
        maker(config_class(**SMALL | {"cell_dim": 4}), masked(), ActorCritic(4))
    with pytest.raises(ValueError, match="cell_dim is -1; use 0 or more"):
        config_class(**SMALL | {"cell_dim": -1}).resolve()


def test_moving_scales_change_no_value() -> None:
    config = PPOConfig(**SMALL | {"normalise_value": True}).resolve()
    agent = ppo(config, masked())
    state = agent.init(jax.random.key(0))
    network, obs = ActorCritic(4, 16, 2), jax.random.normal(jax.random.key(1), (32, BITS + 2))
    policy = state.policy
    before = forward(network, policy, obs)[1]
    targets = 700.0 + 50.0 * jax.random.normal(jax.random.key(2), (16, 8))
    for _ in range(3):
        policy = learn_scales(config, agent.spec, policy, (None, (None, targets)))
    np.testing.assert_allclose(forward(network, policy, obs)[1], before, atol=2e-3)
    assert float(policy["value_stats"].mean) == pytest.approx(float(targets.mean()), rel=1e-4)
    assert float(policy["value_stats"].variance) == pytest.approx(float(targets.var()), rel=1e-2)


def test_schedules_of_step_size_and_entropy() -> None:
    config = PPOConfig(**SMALL | {"lr": 1e-2, "num_minibatches": 1, "update_epochs": 1, "warmup_updates": 4}).resolve()
    rise, fall = [0, 0.0025, 0.005, 0.0075], [0.01 * (1 - i / 16) for i in range(16)]
    assert step_sizes(config, 20) == pytest.approx(rise + fall, rel=1e-4)
    plain = replace(config, warmup_updates=0)
    assert step_sizes(plain, 20) == pytest.approx([0.01 * (1 - i / 20) for i in range(20)], rel=1e-4)
    assert step_sizes(replace(config, anneal_lr=False), 20) == pytest.approx([*rise, *[0.01] * 16], rel=1e-4)
    assert [float(entropy_weight(replace(config, ent_coef=0.1), u)) for u in (0, 10, 19)] == [pytest.approx(0.1)] * 3
    falling = replace(config, ent_coef=0.1, anneal_ent_coef=True)
    assert [float(entropy_weight(falling, u)) for u in (0, 10, 19)] == pytest.approx([0.1, 0.05, 0.005])


def step_sizes(config: Any, updates: int) -> list[float]:
    """With a gradient that is always 0.1, Adam moves by the step size each time."""
    optimiser = adam(config, updates)
    params, state, seen = jnp.zeros(1), optimiser.init(jnp.zeros(1)), []
    for _ in range(updates):
        moves, state = optimiser.update(jnp.full(1, 0.1), state, params)
        seen.append(-float(moves[0]) * (1 + 1e-5 / 0.1))
        params = optax.apply_updates(params, moves)
    return seen


def test_an_own_network() -> None:
    class Tiny(nn.Module):
        @nn.compact
        def __call__(self, obs: Any) -> Any:
            x = nn.relu(nn.Dense(8)(obs))
            return nn.Dense(4)(x), nn.Dense(1, name="value")(x)[..., 0]

    agent = ppo(PPOConfig(**SMALL), masked(), Tiny())
    state, metrics = jax.jit(agent.step)(agent.init(jax.random.key(0)))
    assert set(state.policy["params"]) == {"Dense_0", "Dense_1", "value"}
    assert np.isfinite(value(metrics, "total_loss"))


class Remembers(nn.Module):
    """As small as a network with a memory can be; `wide` is what it adds to the memory's width."""

    wide: int = 0
    critic: str = "value"

    @nn.compact
    def __call__(self, memory: Any, obs: Any, is_first: Any) -> Any:
        x = nn.relu(nn.Dense(8)(obs))
        memory = jnp.where(is_first[-1][:, None], 0.0, memory)
        memory = jnp.concatenate([memory, memory[:, : self.wide]], -1)
        return memory, nn.Dense(4)(x), nn.Dense(1, name=self.critic)(x)[..., 0]


def test_an_own_network_with_a_memory() -> None:
    agent = ppo_rnn(PPORnnConfig(**SMALL | {"normalise_value": True}), masked(), Remembers())
    state, metrics = jax.jit(agent.step)(agent.init(jax.random.key(0)))
    assert set(state.policy["params"]) == {"Dense_0", "Dense_1", "value"}
    assert np.isfinite(value(metrics, "total_loss"))
    with pytest.raises(ValueError, match=r"gives a memory \[2, 20\] for \[2, 16\]; it must keep its shape"):
        ppo_rnn(PPORnnConfig(**SMALL), masked(), Remembers(4))
    nameless = ppo_rnn(PPORnnConfig(**SMALL | {"normalise_value": True}), masked(), Remembers(critic="v"))
    with pytest.raises(ValueError, match=r'call that nn\.Dense "value"'):
        nameless.init(jax.random.key(0))


def test_a_network_of_the_wrong_shape_is_refused() -> None:
    class Wide(nn.Module):
        @nn.compact
        def __call__(self, obs: Any) -> Any:
            return nn.Dense(7)(obs), nn.Dense(1)(obs)[..., 0]

    words = r"gives head \[2, 7\] and value \[2\] for observations \[2, 13\] of masked-v0; expected \[2, 4\] and \[2\]"
    with pytest.raises(ValueError, match=words):
        ppo(PPOConfig(**SMALL), masked(), Wide())


def test_minibatches_of_the_recurrent_agent_are_parts_of_the_environments() -> None:
    with pytest.raises(
        ValueError, match=r"num_envs = 6 does not divide into num_minibatches = 4.* use num_minibatches = 3"
    ):
        ppo_rnn(PPORnnConfig(num_envs=6, num_steps=16, num_minibatches=4, total_timesteps=960), timed(3))
    found = PPORnnConfig(num_envs=6, num_steps=16, total_timesteps=960).resolve()
    assert found.num_minibatches == 3 and found.origins["num_minibatches"] == "auto_scale"
    assert PPORnnConfig().resolve().num_minibatches == 4


def test_sequences_are_read_in_the_update_as_they_were_in_the_rollout() -> None:
    """The stored log-probabilities are those of the whole sequence read at once, so every ratio is 1 within 1e-5."""
    env = masked()
    agent = ppo_rnn(PPORnnConfig(**SMALL), env)
    config: Any = agent.config
    network = RecurrentActorCritic(4, config.hidden_dim, config.num_layers, 1, config.shared_layers)
    venv, roll = vectorise(env, config.num_envs), jax.jit(partial(rollout, network, config), static_argnums=0)
    state = roll(venv, agent.init(jax.random.key(3)))[0]  # inside episodes, with memories that matter
    _, (data, is_first), _, _ = roll(venv, state)
    obs = unpack(data.obs, BITS, env.spec.obs_shape)
    _, head, _ = network.apply({"params": state.policy["params"]}, state.memory, obs, is_first)
    log_prob = distribution(env.spec, head, data.mask).log_prob(data.action)
    assert np.abs(np.exp(log_prob - data.log_prob) - 1).max() < 1e-5 and 0 < is_first.sum() < is_first.size


def test_the_state_of_the_recurrent_agent_keeps_its_form() -> None:
    env = masked()
    agent = ppo_rnn(PPORnnConfig(**SMALL), env)
    state = agent.init(jax.random.key(0))
    assert state.memory.shape == (8, 16) and state.is_first.all()
    after, _ = jax.jit(agent.step)(state)
    assert np.abs(after.memory).max() > 0
    a, b = jax.eval_shape(agent.init, jax.random.key(0)), jax.eval_shape(agent.step, state)[0]
    kinds = lambda tree: [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)]
    assert jax.tree.structure(a) == jax.tree.structure(b) and kinds(a) == kinds(b)
