"""Memory: what a preset is predicted to need, and what packing does to a rollout of full Craftax.

    python benchmarks/memory.py predict ppo colab_t4            peak by the compiled programs, on any machine
    python benchmarks/memory.py rollout packed                  1024 environments x 64 steps, steps/s and bytes kept
    python benchmarks/memory.py rollout unpacked

A prediction on a CPU comes from programs compiled for it, so for a T4 it is an estimate."""

from __future__ import annotations

import argparse
from dataclasses import replace

import jax
from measure import compile_timed, report, time_calls


def predict(agent: str, preset: str) -> None:
    """The predicted peak of an agent's preset on Craftax-Classic, and where it goes."""
    from mxnb.build import AGENTS, build
    from mxnb.config import make_config
    from mxnb.run.memory import measure

    found = measure(build(make_config(AGENTS[agent]()[0], preset=preset))[0])
    told = {f"{name.replace(' ', '_')}_mib": size / 2**20 for name, size in found.parts.items()}
    report(agent=agent, preset=preset, peak_gib=found.peak / 2**30, work_mib=found.work / 2**20, **told)


def rollout(packed: bool, num_envs: int, num_steps: int) -> None:
    """Steps/s of PPO's rollout alone, and the bytes of the observations that it keeps."""
    from mxnb.agents import ppo
    from mxnb.envs.craftax import craftax

    env = craftax(classic=False)
    env = env if packed else replace(env, spec=replace(env.spec, num_binary=0))
    sizes = {"num_envs": num_envs, "num_steps": num_steps, "total_timesteps": num_envs * num_steps, "hidden_dim": 256}
    config = ppo.PPOConfig(**sizes).resolve()
    network, venv, _ = ppo.parts(config, env)
    init, init_compile_s = compile_timed(ppo.ppo(config, env).init, jax.random.key(0), donate=False)
    state = init(jax.random.key(0))

    def play(state):
        envs, key, data, last_value, _ = ppo.rollout(network, config, venv, state)
        return replace(state, envs=envs, key=key), (data, last_value)

    run, compile_s = compile_timed(play, state)
    count, seconds, cores, outs = time_calls(run, state, warm_up=1, calls=2)
    kept = sum(x.nbytes for x in jax.tree.leaves(outs[-1][0].obs))
    report(
        steps_per_s=count * num_envs * num_steps / seconds,
        obs_gb=kept / 1e9,
        rollout_gb=sum(x.nbytes for x in jax.tree.leaves(outs[-1][0])) / 1e9,
        window_s=seconds,
        cores_used=cores,
        compile_s=compile_s,
        init_compile_s=init_compile_s,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    prediction = kinds.add_parser("predict")
    prediction.add_argument("agent")
    prediction.add_argument("preset")
    played = kinds.add_parser("rollout")
    played.add_argument("storage", choices=("packed", "unpacked"))
    played.add_argument("--num-envs", type=int, default=1024)
    played.add_argument("--num-steps", type=int, default=64)
    args = parser.parse_args()
    if args.kind == "predict":
        predict(args.agent, args.preset)
    else:
        rollout(args.storage == "packed", args.num_envs, args.num_steps)


if __name__ == "__main__":
    main()
