"""The world model's losses against NumPy, its way back to observations, and its sizes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mxnb.agents.dreamer import first_params, networks
from mxnb.agents.dreamer_config import DreamerConfig
from mxnb.config import make_config
from mxnb.envs.api import Spec
from mxnb.networks.world_model import Eye, Painter, bit_loss, decoded, observation_loss, sides

CLASSIC = Spec("classic-sized-v0", (1345,), num_actions=17, num_binary=1323)
FULL = Spec("full-sized-v0", (8268,), num_actions=43, num_binary=8217)


def test_bits_and_numbers_by_hand() -> None:
    out, obs = np.array([0.3, -2.0, 0.5, -1.0], np.float32), np.array([1.0, 0.0, 0.2, -0.4], np.float32)
    chance = 1 / (1 + np.exp(-out[:2].astype(np.float64)))
    bits = -np.log(chance[0]) - np.log(1 - chance[1])
    code = lambda x: np.sign(x) * np.log1p(np.abs(x))
    numbers = ((out[2:] - code(10 * obs[2:].astype(np.float64))) ** 2).sum()
    found = observation_loss(jnp.asarray(out), jnp.asarray(obs), 1, 2, 10.0, 4.0)
    assert float(found) == pytest.approx(bits + 4 * numbers, rel=1e-5)
    plain = ((out - code(obs.astype(np.float64))) ** 2).sum()
    assert float(observation_loss(jnp.asarray(out), jnp.asarray(obs), 1, 0)) == pytest.approx(plain, rel=1e-5)


def test_a_sure_wrong_bit_costs_nats_and_no_nan() -> None:
    assert float(bit_loss(jnp.float32(200.0), jnp.float32(0.0))) == 200.0
    assert float(bit_loss(jnp.float32(-200.0), jnp.float32(0.0))) == 0.0


def test_a_soft_target_is_met_at_its_own_chance() -> None:
    """The continue flag's target is 1 - 1/333, not 1."""
    target = jnp.float32(1 - 1 / 333)
    assert abs(float(jax.grad(bit_loss)(jnp.log(target / (1 - target)), target))) < 1e-6


def test_decoded_numbers_are_in_the_environments_units() -> None:
    out = jnp.array([[0.0, 100.0, np.log1p(7.0), -np.log1p(3.0)]], jnp.float32)
    np.testing.assert_allclose(decoded(out, 1, 2, 10.0), [[0.5, 1.0, 0.7, -0.3]], rtol=1e-5)


def test_pictures_are_compared_between_0_and_1() -> None:
    picture = jnp.array([[[[0], [255]]]], jnp.uint8)
    out = jnp.zeros(picture.shape, jnp.float32)
    assert float(observation_loss(out, picture, 3, 0)[0]) == pytest.approx(0.5)
    np.testing.assert_allclose(decoded(out, 3, 0), 0.5)


def test_63_pixels_become_31_15_7_3_and_come_back() -> None:
    shape = (63, 63, 3)
    assert [after for _, after in sides(shape)] == [(31, 31), (15, 15), (7, 7), (3, 3)]
    made = jax.eval_shape(lambda x: Eye(16).init_with_output(jax.random.key(0), x)[0], jnp.zeros((2, *shape)))
    assert made.shape == (2, 3 * 3 * 128)
    back = jax.eval_shape(lambda x: Painter(16, shape).init_with_output(jax.random.key(0), x)[0], jnp.zeros((2, 9)))
    assert back.shape == (2, *shape)


def size(preset: str, spec: Spec) -> float:
    """Million parameters of all three networks."""
    nets = networks(make_config(DreamerConfig, preset=preset), spec)
    made: Any = jax.eval_shape(lambda key: first_params(nets, key), jax.random.key(0))
    return sum(x.size for x in jax.tree.leaves(made)) / 1e6


@pytest.mark.parametrize(
    ("preset", "spec", "millions"),
    [
        ("cpu", CLASSIC, 1.158),
        ("colab_t4", CLASSIC, 5.9),
        ("size12m", CLASSIC, 10.4),
        ("size12m", FULL, 14.0),
        ("size25m", CLASSIC, 22.8),
        ("gpu", CLASSIC, 39.9),
        ("gpu", FULL, 47.1),
    ],
)
def test_networks_have_the_sizes_that_their_names_say(preset: str, spec: Spec, millions: float) -> None:
    assert size(preset, spec) == pytest.approx(millions, rel=0.01)
