"""The one table from names to makers: environments, agents, and the policy of a finished run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mxnb.agents.api import Agent
from mxnb.config import (
    CHAINS,
    GYMNAX,
    PROBES,
    canonical_env_id,
    check_schema,
    make_config,
    policy_file,
    use_compilation_cache,
)
from mxnb.envs.api import Env

if TYPE_CHECKING:
    from mxnb.run.memory import Plan


def _craftax(classic: bool, pixels: bool) -> Env:
    from mxnb.envs.craftax import craftax

    return craftax(classic=classic, pixels=pixels)


def _gymnax(name: str) -> Env:
    from mxnb.envs.gymnax_envs import gymnax_env

    return gymnax_env(name)


def _probe(name: str) -> Env:
    from mxnb.envs import probes

    return getattr(probes, name)()


def _chain(name: str) -> Env:
    from mxnb.envs.chains import chain

    return chain(name)


def _hackmatrix() -> Env:
    from mxnb.envs.hackmatrix import hackmatrix

    return hackmatrix()


ENVS: dict[str, Callable[[], Env]] = {
    "craftax-classic-symbolic-v1": partial(_craftax, True, False),
    "craftax-classic-pixels-v1": partial(_craftax, True, True),
    "craftax-symbolic-v1": partial(_craftax, False, False),
    "craftax-pixels-v1": partial(_craftax, False, True),
    **{name.lower(): partial(_gymnax, name) for name in GYMNAX},
    **{name: partial(_probe, name.removeprefix("probe-").removesuffix("-v0")) for name in PROBES},
    "hackmatrix-v1": _hackmatrix,
    **{name: partial(_chain, name.removeprefix("chain-").removesuffix("-v0")) for name in CHAINS},
}
"""Canonical id -> maker; the ids are `mxnb.config.ENV_IDS`."""


def make(env_id: str) -> Env:
    """The environment called `env_id`; ValueError names the nearest ids for an unknown one.

    Ids are forgiving: any case, _ for -, without -symbolic, chain-, the suite (-minatar) or the version.
    """
    return ENVS[canonical_env_id(env_id)]()


def world(config: Any) -> Env:
    """The environment that a configuration trains on: `config.env_id`, as one endless stream where it has r_reset."""
    env = make(config.env_id)
    if not hasattr(config, "r_reset"):
        return env
    from mxnb.envs.survival import survival

    return survival(env, config.r_reset, chain=config.chain, reward=config.reward)


def _ppo() -> tuple[type, Callable[..., Agent]]:
    from mxnb.agents.ppo import PPOConfig, ppo

    return PPOConfig, ppo


def _ppo_rnn() -> tuple[type, Callable[..., Agent]]:
    from mxnb.agents.ppo_rnn import PPORnnConfig, ppo_rnn

    return PPORnnConfig, ppo_rnn


def _average_reward() -> tuple[type, Callable[..., Agent]]:
    from mxnb.agents.average_reward import AverageRewardConfig, average_reward

    return AverageRewardConfig, average_reward


def _dreamer() -> tuple[type, Callable[..., Agent]]:
    from mxnb.agents.dreamer import DreamerConfig, dreamer

    return DreamerConfig, dreamer


AGENTS: dict[str, Callable[[], tuple[type, Callable[..., Agent]]]] = {
    "ppo": _ppo,
    "ppo_rnn": _ppo_rnn,
    "average_reward": _average_reward,
    "dreamer": _dreamer,
}
"""Agent name -> a function that imports it and gives (its Config class, its maker)."""


def build(config: Any) -> tuple[Agent, Env]:
    """The agent and the environment that a configuration describes; turns on the compilation cache.

    Where runs are archived, programs that an earlier machine compiled are brought back first.
    """
    from mxnb.run.cache import restore_programs

    use_compilation_cache()
    restore_programs()
    for agent in AGENTS.values():
        config_class, maker = agent()
        if type(config) is config_class:
            env = world(config)
            return maker(config, env), env
    raise TypeError(f"{type(config).__name__} is no agent's configuration; have {', '.join(AGENTS)}")


def plan(p: Any, device: str = "", *, shrink: bool | None = None) -> Plan:
    """Builds what a run needs and looks whether it fits the device's memory, before anything is allocated.

    p: what `mxnb.parameters` gave, or a Config. device: "" for the one that is here; "T4" or "v5e": an estimate.
    shrink: whether what does not fit is made smaller (see `mxnb.run.memory.plan`); None: where preset "auto" chose.

    Returns the plan: its `.parameters` (or `.config`), `.agent` and `.env` are what to go on with, `mxnb.show.budget`
    draws it. Raises ValueError where nothing fits.
    """
    from mxnb.config import Parameters
    from mxnb.run import memory
    from mxnb.run.cache import keep_programs
    from mxnb.run.folder import planned_before, read_status

    if not isinstance(p, Parameters):
        return memory.plan(p, build, device, shrink=bool(shrink))
    config, shrink = p.config, p.auto if shrink is None else shrink
    if shrink and p.resume and (before := planned_before(p.run_dir)):
        origins = dict(config.origins) | dict.fromkeys(before, "plan: as this run was begun")
        config, shrink = replace(config, **before, origins=origins).resolve(), False
        print(f"memory: this run goes on as it was planned: {', '.join(f'{k} = {v}' for k, v in before.items())}")
    finished = p.resume and read_status(p.run_dir) == "done"  # is shown, and needs no program
    found = memory.plan(config, build, device, shrink=shrink and not finished, ahead=not finished)
    keep_programs()
    return replace(found, parameters=replace(p, config=found.config))


_OWN = "where the environment, network or agent is your own, give the agent: load_policy(run_dir, agent=agent)"


def load_policy(run_dir: str | Path, checkpoint: int | str | None = None, *, agent: Agent | None = None) -> Any:
    """The trained policy of a run folder, ready for `mxnb.evaluate`.

    checkpoint: the update of a checkpoint that is still there, or "best": the policy of the best evaluation that `fit`
    made; None: the policy saved last.
    agent: the Agent that was trained, where the run's environment or network is your own; else it is built anew
    from config.json.

    Raises FileNotFoundError when there is no such policy, ValueError when its parameters do not fit the agent.
    """
    from mxnb.evaluate import Policy
    from mxnb.run.checkpoint import Damaged, best_file, load_params, restore_at

    run_dir = Path(run_dir)
    if isinstance(checkpoint, str) and checkpoint != "best":
        raise ValueError(f"checkpoint is {checkpoint!r}; it is the number of an update, or 'best'")
    path = best_file(run_dir) if checkpoint == "best" else policy_file(run_dir)
    if checkpoint is None and not path.exists():
        raise FileNotFoundError(f"{run_dir} has no policy yet; wait for its first save, or train it to the end")
    if checkpoint == "best" and not path.exists():
        raise FileNotFoundError(f"{run_dir} has no best policy; train with evaluate and eval_updates (--eval-updates)")
    trained = agent or _built(run_dir)
    shapes = trained.kept_shapes()
    try:
        if isinstance(checkpoint, int):
            params = restore_at(run_dir, checkpoint, shapes).policy
        else:
            params = load_params(path, shapes.policy)
    except ValueError as error:
        raise error if agent or isinstance(error, Damaged) else ValueError(f"{error}; {_OWN}") from None
    return Policy(trained.spec, params, trained.memory, trained.act)


def run_env(run_dir: str | Path, env_id: str | None = None, r_reset: int | None = None) -> tuple[Env, int | None]:
    """(environment to watch and judge a run's policy in, what a death costs there): its own, or another id or cost.

    A run that was trained on one endless stream keeps its observation; a death is one transition. The cost is None
    where the run knows none.
    """
    from mxnb.envs.survival import survival

    told = json.loads((Path(run_dir) / "config.json").read_text())["config"]
    cost = told.get("r_reset") if r_reset is None else r_reset
    env = make(env_id or told["env_id"])
    if "r_reset" in told:
        env = survival(env, cost, chain="collapsed", reward=told["reward"])
    return env, cost


def _built(run_dir: Path) -> Agent:
    """The agent that config.json describes; ValueError where that is not the one that was trained."""
    stored = json.loads((run_dir / "config.json").read_text())
    check_schema(stored, run_dir / "config.json")
    if stored["agent"] not in AGENTS:
        raise ValueError(f"{run_dir} was trained with {stored['agent']!r}, which is not in mxnb; {_OWN}")
    config_class, maker = AGENTS[stored["agent"]]()
    try:
        config = make_config(config_class, overrides=stored["config"])
        agent = maker(config, world(config))
    except ValueError as error:
        raise ValueError(f"{run_dir} cannot be built from its config.json; {_OWN}\n{error}") from None
    if agent.spec.id != stored["env"]:
        raise ValueError(f"{run_dir} was trained on {stored['env']!r}, its config.json says {agent.spec.id!r}; {_OWN}")
    return agent
