"""What saves memory changes nothing else: parts, recomputation, packed rows; and bfloat16 is near."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import DREAMER_SIZES, PPO_SIZES, assert_same_bits, masked

from mxnb.agents.average_reward import AverageRewardConfig, average_reward
from mxnb.agents.dreamer import DreamerConfig, dreamer
from mxnb.agents.ppo import PPOConfig, ppo
from mxnb.agents.ppo_rnn import PPORnnConfig, ppo_rnn
from mxnb.envs.survival import survival
from mxnb.networks.actor_critic import ActorCritic
from mxnb.run.memory import check_dtype, measure
from mxnb.run.program import updates

pytestmark = pytest.mark.brief

MAKERS = {
    "ppo": (PPOConfig, ppo),
    "ppo_rnn": (PPORnnConfig, ppo_rnn),
    "average_reward": (AverageRewardConfig, average_reward),
}
SIZES = PPO_SIZES | {"num_envs": 16, "num_minibatches": 2, "lr": 1e-2}


def built(name: str, env: Any = None, **more: Any) -> Any:
    config_class, maker = MAKERS[name]
    env = env or masked()
    if name == "average_reward":
        env, more = survival(env, 5), more | {"phase_steps": 5, "r_reset": 5}
    return maker(config_class(**SIZES | more), env)


def two_updates(agent: Any) -> Any:
    """(state, metrics) after two updates."""
    state = jax.jit(agent.init)(jax.random.key(0))
    step = jax.jit(agent.step)
    return step(step(state)[0])


def close(a: Any, b: Any, atol: float) -> None:
    for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=atol, err_msg=jax.tree_util.keystr(path))


LEVERS = [("ppo", {"num_microbatches": 4}), ("ppo_rnn", {"remat": True})]
LEVERS += [("average_reward", {"num_microbatches": 8, "remat": True})]
LEVERS += [pytest.param("ppo_rnn", {"num_microbatches": 4}, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("name", "lever"), LEVERS)
def test_parts_and_recomputation_learn_the_same(name: str, lever: dict[str, Any]) -> None:
    """Two updates, survival's weights included: parameters and losses within float32's rounding."""
    (plain, seen), (other, also) = two_updates(built(name)), two_updates(built(name, **lever))
    close(plain.policy, other.policy, 2e-4)
    assert_same_bits(plain.envs.obs, other.envs.obs)
    for metric in ("train/total_loss", "train/entropy", "train/grad_norm"):
        a, b = (float(m[metric].total / m[metric].count) for m in (seen, also))
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5), metric
    first = jax.jit(built(name).init)(jax.random.key(0)).policy
    moved = [np.abs(a - b).max() for a, b in zip(jax.tree.leaves(plain.policy), jax.tree.leaves(first), strict=True)]
    assert max(moved) > 1e-2  # 50 times what may differ


def test_packed_rows_learn_the_same_bit_for_bit() -> None:
    env = masked()
    plain = replace(env, spec=replace(env.spec, num_binary=0))
    (packed, _), (loose, _) = two_updates(built("ppo")), two_updates(built("ppo", plain))
    assert_same_bits(packed.policy, loose.policy)


def test_bfloat16_is_near_and_keeps_float32_parameters() -> None:
    for name in MAKERS:
        agent = built(name, compute_dtype="bfloat16")
        (plain, seen), (other, also) = two_updates(built(name)), two_updates(agent)
        assert {str(x.dtype) for x in jax.tree.leaves(other.policy["params"])} == {"float32"}
        a, b = (float(m["train/entropy"].total / m["train/entropy"].count) for m in (seen, also))
        assert a == pytest.approx(b, rel=0.05), name
        start = jax.tree.leaves(jax.jit(agent.init)(jax.random.key(0)).policy)
        moves = [
            np.concatenate([np.ravel(x - begun) for x, begun in zip(jax.tree.leaves(s.policy), start, strict=True)])
            for s in (plain, other)
        ]
        alike = moves[0] @ moves[1] / np.linalg.norm(moves[0]) / np.linalg.norm(moves[1])
        assert alike > 0.9, f"{name}: what was learned in bfloat16 points elsewhere ({alike:.2f})"
        text = jax.jit(agent.step).lower(plain).as_text()
        assert "bf16" in text, f"{name} computes nothing in bfloat16"
        assert "bf16" not in jax.jit(built(name).step).lower(plain).as_text()


def test_a_device_without_bfloat16_is_told_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run begins or is planned, not where a policy that was trained elsewhere is loaded."""
    agent = built("ppo", compute_dtype="bfloat16")
    with pytest.raises(ValueError, match="'bfloat16', which T4 only imitates, slower than float32: use 'float32'"):
        measure(agent, "T4")
    for kind, capability, old in (("Tesla T4", "7.5", True), ("NVIDIA A100", "8.0", False)):
        here = SimpleNamespace(platform="gpu", device_kind=kind, compute_capability=capability)
        monkeypatch.setattr(jax, "devices", lambda here=here: [here])
        built("ppo", compute_dtype="bfloat16")
        if old:
            with pytest.raises(ValueError, match="which Tesla T4 only imitates"):
                check_dtype(agent)
        else:
            check_dtype(agent)
        check_dtype(built("ppo"))


def test_donated_buffers_change_no_bit() -> None:
    agent = built("ppo")
    kept, given = (updates(agent, donate=donate).call for donate in (False, True))
    state = jax.device_put(jax.jit(agent.init)(jax.random.key(0)), jax.devices()[0])
    first = kept(state, jnp.int32(2))
    again = kept(state, jnp.int32(2))  # the state is still there
    assert_same_bits(first, again)
    assert_same_bits(first, given(state, jnp.int32(2)))
    assert all(x.is_deleted() for x in jax.tree.leaves(state.policy))


def test_what_does_not_divide_or_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a minibatch of 128 does not divide into num_microbatches = 3; use .* = 1"):
        built("ppo", num_microbatches=3)
    with pytest.raises(ValueError, match=r"a minibatch of 8 environments does not divide .* 16; use .* = 8"):
        built("ppo_rnn", num_microbatches=16)
    with pytest.raises(ValueError, match="num_microbatches is 0; use at least 1"):
        built("ppo", num_microbatches=0)
    with pytest.raises(ValueError, match="compute_dtype is 'float16'; use 'float32' or 'bfloat16'"):
        PPOConfig(compute_dtype="float16").resolve()
    with pytest.raises(ValueError, match="are for the networks built here"):
        ppo(PPOConfig(**SIZES | {"compute_dtype": "bfloat16"}), masked(), ActorCritic(4))


def dreaming(**more: Any) -> Any:
    return dreamer(DreamerConfig(**DREAMER_SIZES | more), masked())


def test_a_world_model_computed_again_learns_the_same() -> None:
    (plain, _), (other, _) = two_updates(dreaming()), two_updates(dreaming(remat=True))
    close(plain.policy, other.policy, 1e-4)
    assert_same_bits(plain.envs.vec.obs, other.envs.vec.obs)


@pytest.mark.slow
def test_dreamer_saves_by_computing_again_and_by_fewer_starts() -> None:
    sizes = {"deter": 128, "num_steps": 32, "batch_size": 8, "starts": 128, "replay_size": 4 * 256, "prefill": 128}
    sizes |= {"total_timesteps": 128 + 4 * 40}
    whole = measure(dreaming(**sizes)).work
    assert measure(dreaming(**sizes | {"remat": True})).work < 0.9 * whole
    assert measure(dreaming(**sizes | {"starts": 16})).work < 0.9 * whole


@pytest.mark.parametrize(("name", "lever"), [*LEVERS[:2], LEVERS[3], ("ppo", "donate"), ("ppo", "packed")])
def test_each_lever_saves_memory(name: str, lever: Any) -> None:
    """At sizes where activations, rollouts or the state weigh something."""
    big = {"num_envs": 64, "num_steps": 64, "hidden_dim": 128, "total_timesteps": 64 * 64, "num_minibatches": 1}
    env = masked()
    if lever == "donate":
        agent = built(name, **big)
        assert measure(agent).work < measure(agent, donate=False).work
        return
    if lever == "packed":
        loose = replace(env, spec=replace(env.spec, num_binary=0))
        assert measure(built(name, **big)).work < measure(built(name, loose, **big)).work
        return
    assert measure(built(name, **big | lever)).work < 0.8 * measure(built(name, **big)).work
