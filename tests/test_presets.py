"""Presets change scale and nothing else, and `auto` follows the hardware."""

from __future__ import annotations

import pytest

from mxnb import presets
from mxnb.build import AGENTS, build
from mxnb.config import make_config
from mxnb.envs.check import EnvChecksConfig
from mxnb.recipes import RECIPES

SCALE = {
    "num_envs",
    "num_steps",
    "total_timesteps",
    "hidden_dim",
    "num_layers",
    "num_minibatches",
    "update_epochs",
    "lr",
    "warmup_steps",
    "ent_coef",
    "replay_size",
    "batch_size",
    "train_ratio",
    "starts",
    "horizon",
    "deter",
    "stoch",
    "classes",
    "blocks",
    "units",
    "num_bins",
    "phase_steps",
}
BESIDES = {
    "compare_timesteps",
    "sizes",
    "check_all",
    "num_seeds",
    "expect",
}  # what a notebook does beside the run, and words
EVERY = [(agent, name) for agent in presets.PRESETS for name in presets.PRESETS[agent]]


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MXNB_PRESET", raising=False)


def test_every_agent_has_exactly_the_six() -> None:
    six = ("smoke", "cpu", "colab_t4", "colab_t4_small", "gpu", "tpu")
    assert six == presets.NAMES
    assert set(presets.PRESETS) == {*AGENTS, "env_checks"}
    more = {"dreamer": ("probe", "size12m", "size25m")}
    for agent, table in presets.PRESETS.items():
        assert tuple(table) == six + more.get(agent, ()), agent


@pytest.mark.parametrize(("agent", "name"), EVERY)
def test_only_scale_is_touched(agent: str, name: str) -> None:
    assert set(presets.PRESETS[agent][name]) <= SCALE | BESIDES


@pytest.mark.parametrize(("agent", "name"), EVERY)
def test_each_builds_a_configuration_and_changes_no_meaning(agent: str, name: str) -> None:
    config_class = AGENTS[agent]()[0] if agent in AGENTS else EnvChecksConfig
    plain, config = make_config(config_class), make_config(config_class, preset=name)
    table = presets.PRESETS[agent][name]
    assert all(getattr(config, field) == table[field] for field in set(table) - BESIDES)
    for field, origin in config.origins.items():
        if origin == "default":
            assert getattr(config, field) == getattr(plain, field)
    assert agent not in AGENTS or config.total_timesteps >= config.num_envs * config.num_steps
    assert table["expect"]


@pytest.mark.parametrize("name", presets.NAMES)
def test_ppo_leaves_the_three_to_auto_scale(name: str) -> None:
    assert not {"num_minibatches", "update_epochs", "lr"} & set(presets.PRESETS["ppo"][name])


def test_the_sizes_of_ppo() -> None:
    of = {name: make_config(AGENTS["ppo"]()[0], preset=name) for name in presets.NAMES}
    shape = {name: (c.num_envs, c.num_steps, c.num_layers, c.hidden_dim) for name, c in of.items()}
    assert shape["colab_t4"] == (64, 128, 2, 256)
    assert shape["colab_t4_small"] == (32, 64, 2, 128)
    assert shape["gpu"][:2] == (1024, 64)
    assert shape["tpu"][:2] == (2048, 128)
    assert shape["cpu"] == (64, 64, 2, 256) and of["cpu"].total_timesteps == 1_000_000
    assert presets.PRESETS["ppo"]["cpu"]["compare_timesteps"] == 100_000


@pytest.mark.parametrize(
    ("device", "chosen", "why"),
    [
        (("cpu", "cpu"), "cpu", "auto: no accelerator"),
        (("gpu", "Tesla T4"), "colab_t4", "auto: Tesla T4"),
        (("gpu", "NVIDIA H100 80GB HBM3"), "gpu", "auto: NVIDIA H100 80GB HBM3"),
        (("tpu", "TPU v5 lite"), "tpu", "auto: TPU v5 lite"),
    ],
)
def test_auto_follows_the_hardware(
    monkeypatch: pytest.MonkeyPatch, device: tuple[str, str], chosen: str, why: str
) -> None:
    monkeypatch.setattr(presets, "_device", lambda: device)
    assert presets.choose("auto") == (chosen, why)


def test_mxnb_preset_comes_before_the_hardware_and_after_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "_device", lambda: ("gpu", "Tesla T4"))
    monkeypatch.setenv("MXNB_PRESET", "smoke")
    assert presets.choose("auto") == ("smoke", "MXNB_PRESET")
    assert presets.choose("colab_t4_small") == ("colab_t4_small", "parameter")


@pytest.mark.parametrize(
    ("name", "needs"), [("colab_t4", "GPU"), ("colab_t4_small", "GPU"), ("gpu", "GPU"), ("tpu", "TPU")]
)
def test_hardware_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, name: str, needs: str) -> None:
    monkeypatch.setattr(presets, "_device", lambda: ("cpu", "cpu"))
    with pytest.raises(ValueError, match=f"preset '{name}' is for a {needs} and JAX sees no accelerator here; use"):
        presets.choose(name)
    monkeypatch.setenv("MXNB_PRESET", name)
    with pytest.raises(ValueError, match=f"or choose a runtime with a {needs}"):
        presets.choose("auto")
    other = ("tpu", "TPU v5 lite") if needs == "GPU" else ("gpu", "Tesla T4")
    monkeypatch.setattr(presets, "_device", lambda: other)
    with pytest.raises(ValueError, match=f"JAX sees a {other[0].upper()} here"):
        presets.choose(name)


@pytest.mark.parametrize("name", ["smoke", "cpu"])
@pytest.mark.parametrize("device", [("cpu", "cpu"), ("gpu", "Tesla T4"), ("tpu", "TPU v5 lite")])
def test_small_presets_run_anywhere(monkeypatch: pytest.MonkeyPatch, name: str, device: tuple[str, str]) -> None:
    monkeypatch.setattr(presets, "_device", lambda: device)
    assert presets.choose(name) == (name, "parameter")


def test_jax_names_gpus_in_several_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    import jax

    for platform in ("gpu", "cuda", "rocm"):
        monkeypatch.setattr(jax, "devices", lambda p=platform: [SimpleNamespace(platform=p, device_kind="Tesla T4")])
        assert presets.choose("auto")[0] == "colab_t4"


@pytest.mark.parametrize("name", presets.NAMES)
@pytest.mark.parametrize("key", RECIPES, ids=str)
def test_a_recipe_lies_between_the_preset_and_what_is_given(key: tuple[str, str], name: str) -> None:
    agent, env_id = key
    config_class, _ = AGENTS[agent]()
    options, sizes = RECIPES[key]
    elsewhere = make_config(config_class, preset=name)
    assert env_id != elsewhere.env_id and "recipe" not in " ".join(elsewhere.origins.values())
    config = make_config(config_class, preset=name, env_id=env_id.upper())
    for field, value in (options | sizes[name]).items():
        if field not in BESIDES:
            assert getattr(config, field) == value and config.origins[field] == f"recipe {env_id}"
    assert set(sizes) == set(presets.NAMES) and set(sizes[name]) <= SCALE | BESIDES
    given = make_config(config_class, preset=name, env_id=env_id, overrides={"ent_coef": 0.5})
    assert given.ent_coef == 0.5 and given.origins["ent_coef"] == "override"
    assert make_config(config_class, env_id=env_id).cell_dim == 0  # no preset: what is stored is taken as it is


def test_a_recipe_builds_its_agent() -> None:
    for agent, env_id in RECIPES:
        config_class, _ = AGENTS[agent]()
        made, env = build(make_config(config_class, preset="smoke", env_id=env_id))
        assert made.spec.id == env.spec.id == env_id


def test_health_lost_and_won_back_pays_nothing() -> None:
    """Opposite parts of the reward have one weight: otherwise an agent is paid for being hit and healed."""
    weights = RECIPES[("ppo", "hackmatrix-v1")][0]["reward_scale"]
    assert weights["damage_penalty"] == weights["hp_recovery"]
