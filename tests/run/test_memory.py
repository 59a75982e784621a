"""What a run needs is told and, where it cannot fit, refused; and a replay may stay out of checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pytest
from tiny import DREAMER_SIZES, PPO_SIZES, TRAINED, compilations, masked

import mxnb
from mxnb.agents.dreamer import DreamerConfig, dreamer
from mxnb.agents.ppo import PPOConfig, ppo
from mxnb.agents.ppo_rnn import PPORnnConfig
from mxnb.build import AGENTS
from mxnb.config import Parameters, make_config
from mxnb.run import memory
from mxnb.run.checkpoint import kept_updates


def small(**more: Any) -> Any:
    return dreamer(DreamerConfig(**DREAMER_SIZES | more), masked())


@pytest.mark.parametrize("name", ["ppo", "dreamer"])
def test_parts_add_up_to_the_state(name: str) -> None:
    agent = TRAINED[name]()
    state = jax.jit(agent.init)(jax.random.key(0))
    plain = lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    found = memory.parts(agent)
    assert sum(found.values()) == sum(plain(x).nbytes for x in jax.tree.leaves(state))
    assert ("replay" in found) == (name == "dreamer")


def test_a_replay_larger_than_the_device_is_refused_with_what_fits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "device_bytes", lambda: 1_000_000)
    agent = small(replay_size=400_000)
    with pytest.raises(
        ValueError, match=r"replay 4.58 MiB.*70% of this CPU are 684 KiB; use replay_size = \d+ or less"
    ) as said:
        mxnb.fit(agent, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    fits = int(str(said.value).split("replay_size = ")[1].split()[0])
    memory.check_memory(small(replay_size=fits))
    with pytest.raises(ValueError, match="replay_size"):
        memory.check_memory(small(replay_size=fits + 4000))


def test_where_no_replay_would_fit_a_smaller_preset_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "device_bytes", lambda: 1000)
    for agent in (TRAINED["ppo"](), small()):
        with pytest.raises(ValueError, match="use a smaller preset, or fewer environments"):
            memory.check_memory(agent)


def test_a_replay_that_would_fit_and_be_too_small_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 rows would fit, and a sequence of each environment takes 32."""
    agent = small(replay_size=400_000)
    found = memory.parts(agent)
    rest = sum(found.values()) - found["replay"]
    room = rest + 20 * found["replay"] / 400_000
    monkeypatch.setattr(memory, "device_bytes", lambda: room / memory.SHARE)
    with pytest.raises(ValueError, match="use a smaller preset, or fewer environments"):
        memory.check_memory(agent)


def test_the_machine_has_memory() -> None:
    assert memory.device_bytes() > 100e6
    assert [memory.size(n) for n in (12, 3400, 5.6e6, 7.89e9)] == ["12 bytes", "3.32 KiB", "5.34 MiB", "7.35 GiB"]


def test_without_its_replay_a_run_goes_on_after_playing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The checkpoint is small, the policy loads from it, and the resumed run first fills a new replay."""
    first = small(save_replay=False, replay_size=40_000, total_timesteps=64 + 4 * 10)
    result = mxnb.fit(first, tmp_path, seed=3)
    assert result.status == "done" and kept_updates(tmp_path) == [10]
    weight = sum(f.stat().st_size for f in (tmp_path / "checkpoints").rglob("*") if f.is_file())
    assert weight < 400_000, "the replay alone is 480 kB"
    told = capsys.readouterr().out
    assert "memory: " in told and "replay 469 KiB" in told and " usable on this CPU, " in told
    policy = mxnb.load_policy(tmp_path, 10, agent=first)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), policy.params, result.state.policy))
    again = mxnb.fit(first, tmp_path, seed=3)
    assert again.status == "done" and again.state.envs is None
    assert "the checkpoint holds no replay" not in capsys.readouterr().out
    longer = small(save_replay=False, replay_size=40_000, total_timesteps=64 + 4 * 14)
    more = mxnb.fit(longer, tmp_path, seed=3)
    assert "the checkpoint holds no replay: the policy plays 64 steps first to fill one" in capsys.readouterr().out
    assert int(more.state.update) == 14 and int(more.state.envs.replay.filled) == 16 + 4


def build(config: Any) -> tuple[Any, Any]:
    env = masked()
    return (ppo if isinstance(config, PPOConfig) else dreamer)(config, env), env


WIDE = PPOConfig(
    **PPO_SIZES | {"num_envs": 64, "num_steps": 64, "total_timesteps": 64 * 64, "hidden_dim": 128}
).resolve()


def allow(monkeypatch: pytest.MonkeyPatch, peak: float) -> None:
    """A device on which just that many bytes are planned for."""
    monkeypatch.setattr(memory, "device_bytes", lambda: int(peak / memory.SHARE) + 1)


def test_a_budget_is_what_the_programs_say() -> None:
    """Arguments, outputs and temporaries of the larger program, less what is donated; the State among them once."""
    agent = build(WIDE)[0]
    found = memory.measure(agent)
    state = sum(memory.parts(agent).values())
    analysis = memory.updates(agent).call.memory_analysis()
    assert analysis.alias_size_in_bytes >= 0.99 * state  # all of it is used again
    asked = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    assert found.peak == max(asked - analysis.alias_size_in_bytes, state)
    assert found.parts == memory.parts(agent) and found.fits and found.limit == memory.device_bytes()
    assert memory.measure(agent, donate=False).peak > found.peak + 0.9 * state
    t4 = memory.measure(agent, "T4")
    assert t4.peak == found.peak and t4.limit == int(11.2 * 2**30) and "on T4 (estimated)" in str(t4)
    with pytest.raises(ValueError, match="unknown device 'T5'; use '' for the one that is here, or T4, v5e"):
        memory.measure(agent, "T5")


def compiled(names: list[str]) -> list[str]:
    """Which of a run's two programs were compiled."""
    return [kind for kind in ("init", "updates") if any(f"({kind})" in name or name == kind for name in names)]


def test_what_was_planned_is_compiled_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with compilations() as names:
        plan = memory.plan(WIDE, build)
    assert compiled(names) == ["init", "updates"]
    assert plan.config is WIDE and not plan.changes and capsys.readouterr().out == ""
    with compilations() as names:
        assert mxnb.fit(plan.agent, tmp_path / "one").status == "done"
    assert compiled(names) == []
    told = capsys.readouterr().out
    assert str(plan.budget) in told and "compiled with the plan; 1 updates" in told
    with compilations() as names:  # the agent's functions may be other ones by now
        assert mxnb.fit(plan.agent, tmp_path / "two").status == "done"
    assert "updates" in compiled(names) and "traced in " in capsys.readouterr().out


def test_what_does_not_fit_is_made_smaller_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """First the same batch in parts, as far as that helps; then fewer environments, said as a smaller batch."""
    allow(monkeypatch, 0.3 * memory.measure(build(WIDE)[0]).peak)
    plan = memory.plan(WIDE, build)
    told = capsys.readouterr().out
    assert plan.budget.fits and plan.agent.config == plan.config
    assert "2 parts (the same batch)" in plan.changes[0] and "(a smaller batch)" in plan.changes[-1]
    assert f"takes {plan.config.num_envs} environments (a smaller batch)" in told
    assert plan.config.num_microbatches > 1 and plan.config.num_envs < WIDE.num_envs
    assert all(f"memory: {change}" in told for change in plan.changes)
    assert plan.config.origins["num_microbatches"] == "plan: to fit the memory"
    assert plan.config.num_envs * plan.config.num_steps % plan.config.num_minibatches == 0


def test_levers_do_not_shut_out_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the environments may not divide into as many parts; fewer starts leave the batch its own."""
    rnn = PPORnnConfig(**PPO_SIZES | {"num_envs": 16, "num_microbatches": 4, "total_timesteps": 16 * 16}).resolve()
    fewer = memory._smaller(rnn, ("num_envs",))
    assert (fewer.num_envs, fewer.num_microbatches) == (8, 2)
    dream = DreamerConfig(**DREAMER_SIZES | {"batch_size": 8, "starts": 16}).resolve()
    fewer = memory._smaller(dream, ("batch_size", "starts"))
    assert (fewer.batch_size, fewer.starts) == (4, 8)
    assert memory._smaller(dream, ("num_microbatches",)) is None  # it has none
    again = memory._smaller(dream, ("remat",))
    assert again.remat is True and memory._smaller(again, ("remat",)) is None


def test_what_was_given_by_hand_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(WIDE, origins={"num_envs": "override", "num_microbatches": "parameter", "hidden_dim": "preset"})
    allow(monkeypatch, 0.5 * memory.measure(build(config)[0]).peak)
    smaller = memory.plan(config, build).config
    assert (smaller.num_envs, smaller.num_microbatches) == (64, 1) and smaller.hidden_dim < 128
    allow(monkeypatch, 10_000)
    with pytest.raises(ValueError, match=r"given by hand, so kept: num_microbatches = 1, num_envs = 64\)"):
        memory.plan(config, build)


def test_a_compiler_that_runs_out_of_memory_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TPU's does; the next smaller configuration is then tried."""
    real = memory.updates

    def compile_small(agent: Any, **options: Any) -> Any:
        if agent.config.num_microbatches < 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm")
        return real(agent, **options)

    monkeypatch.setattr(memory, "updates", compile_small)
    plan = memory.plan(WIDE, build)
    assert plan.config.num_microbatches == 2 and plan.budget.fits and len(plan.changes) == 1
    monkeypatch.setattr(memory, "updates", lambda agent, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        memory.plan(WIDE, build)


def test_a_container_may_use_what_it_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    group = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_GROUPS", (str(group), str(tmp_path / "none")))
    whole = memory.device_bytes()
    group.write_text("max\n")
    assert memory.device_bytes() == whole
    group.write_text("8000000\n")
    assert memory.device_bytes() == 8_000_000


def test_a_run_that_was_planned_smaller_goes_on_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another session, another limit: the plan of the run's first one stands, for it is in config.json."""
    config = make_config(PPOConfig, env_id="catch-bsuite")
    config = replace(config, num_envs=64, num_steps=64, hidden_dim=128, total_timesteps=3 * 64 * 64).resolve()
    asked = Parameters(config, "cpu", 0, tmp_path / "run", True, auto=True)
    allow(monkeypatch, 0.8 * memory.measure(mxnb.build(config)[0]).peak)
    first = mxnb.plan(asked)
    assert first.config != config

    def stop(run_dir: Path, rows: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mxnb.fit(first.agent, tmp_path / "run", hooks=[stop])
    monkeypatch.setattr(memory, "device_bytes", lambda: 10**12)
    capsys.readouterr()
    again = mxnb.plan(asked)
    assert again.config == first.config == again.parameters.config
    assert "goes on as it was planned: num_microbatches = " in capsys.readouterr().out
    assert mxnb.fit(again.agent, tmp_path / "run").status == "done"
    done = mxnb.plan(asked)  # a finished run is shown: nothing is compiled for it
    assert done.config == first.config and not done.budget.known and "work unknown" in str(done.budget)
    anew = mxnb.plan(replace(asked, resume=False))
    assert anew.config == config


def test_a_replay_gives_way_first(monkeypatch: pytest.MonkeyPatch) -> None:
    config = DreamerConfig(**DREAMER_SIZES | {"replay_size": 1_600_000}).resolve()
    whole = memory.measure(build(config)[0]).peak
    allow(monkeypatch, 0.6 * whole)
    plan = memory.plan(config, build)
    assert plan.config.replay_size == 800_000 and plan.config.starts == config.starts
    assert len(plan.changes) == 1 and "keeps 800,000 rows" in plan.changes[0]


def test_what_never_fits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 10_000)
    with pytest.raises(ValueError, match="nothing smaller was found that fits: use a smaller preset"):
        memory.plan(WIDE, build)


def test_a_preset_that_was_named_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only where "auto" chose may a plan choose less; else the run says that it may not fit."""
    sizes = {"num_envs": 64, "num_steps": 64, "hidden_dim": 128, "total_timesteps": 64 * 64}
    config = make_config(PPOConfig, env_id="catch-bsuite", **sizes)
    agent, _ = mxnb.build(config)
    allow(monkeypatch, 0.8 * memory.measure(agent).peak)
    named = Parameters(config, "smoke", 0, tmp_path, True)
    plan = mxnb.plan(named)
    assert plan.config is config and plan.parameters == named and not plan.budget.fits
    chosen = mxnb.plan(Parameters(config, "smoke", 0, tmp_path, True, auto=True))
    assert chosen.budget.fits and chosen.parameters.config == chosen.config != config
    capsys.readouterr()
    mxnb.fit(plan.agent, tmp_path / "run")
    assert "warning: the run may end for want of memory" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "ppo_rnn", "average_reward", "dreamer"])
@pytest.mark.parametrize(("preset", "most"), [("colab_t4", 7.8), ("colab_t4_small", 4.0)])
def test_colab_presets_fit_a_t4(name: str, preset: str, most: float) -> None:
    """On Craftax-Classic; an estimate from programs compiled for the CPU."""
    config = make_config(AGENTS[name]()[0], preset=preset)
    found = mxnb.plan(config, "T4", shrink=True)
    assert not found.changes and found.budget.peak <= most * 2**30, str(found.budget)
