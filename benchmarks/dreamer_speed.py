"""Dreamer's gradient steps/s on Craftax-Classic, playing included, one call an update, and the memory it needs.

    python benchmarks/dreamer_speed.py size12m 8 32

Imagination starts from every row, 15 steps each, unless --starts says otherwise; compiling and a first call are not
timed. size1m: the sizes that dreamerv3 gives this name; no preset, for comparison alone. The replay is as large as the
preset says; state_mb is all that is kept, replay included, work_mb what the compiled update needs besides."""

from __future__ import annotations

import argparse

import jax
from measure import compile_timed, report, time_calls

SIZE1M = {"deter": 512, "hidden_dim": 64, "stoch": 32, "classes": 4, "units": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", help="a preset of Dreamer's, or size1m")
    parser.add_argument("batch_size", type=int)
    parser.add_argument("num_steps", type=int)
    parser.add_argument("--starts", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0, help="shortest timed window")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    from mxnb.agents.dreamer import DreamerConfig
    from mxnb.build import build
    from mxnb.config import make_config
    from mxnb.run.memory import parts

    preset, more = ("size12m", SIZE1M) if args.size == "size1m" else (args.size, {})
    rows = args.batch_size * args.num_steps
    sizes = {"batch_size": args.batch_size, "num_steps": args.num_steps, "starts": args.starts or rows, "num_envs": 8}
    # One tick of 8 environments for each gradient step.
    more |= {"train_ratio": rows // 8, "horizon": 15, "total_timesteps": 1_000_000_000}
    agent, _ = build(make_config(DreamerConfig, preset=preset, overrides=sizes | more))
    init, init_compile_s = compile_timed(agent.init, jax.random.key(args.seed), donate=False)
    step, compile_s = compile_timed(agent.step, state := init(jax.random.key(args.seed)))
    needs = step.memory_analysis()
    params = sum(x.size for x in jax.tree.leaves(state.policy))
    count, seconds, cores, _ = time_calls(step, state, warm_up=1, calls=1, seconds=args.seconds)
    updates = count * agent.config.cadence[1]
    report(
        size=args.size,
        parameters=params,
        state_mb=sum(parts(agent).values()) / 1e6,
        work_mb=needs.temp_size_in_bytes / 1e6 if needs is not None else None,
        batch=f"{args.batch_size} x {args.num_steps}",
        starts=agent.config.starts,
        updates_per_s=updates / seconds,
        steps_per_s=count * agent.steps_per_update / seconds,
        updates=updates,
        window_s=seconds,
        cores_used=cores,
        compile_s=compile_s,
        init_compile_s=init_compile_s,
    )


if __name__ == "__main__":
    main()
