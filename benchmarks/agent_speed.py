"""Steps/s of an agent end to end, rollout and update, at the cpu preset's sizes but for the number of environments.

    python benchmarks/agent_speed.py ppo_rnn classic 256

One call is one update in a donated program; compiling and a first call are not timed."""

from __future__ import annotations

import argparse
from dataclasses import replace

import jax
from measure import compile_timed, report, time_calls
from stepping import GAMES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent", help="a name of mxnb.build.AGENTS")
    parser.add_argument("game", choices=tuple(GAMES))
    parser.add_argument("num_envs", type=int)
    parser.add_argument("--num-steps", type=int, default=0, help="of a rollout (0: the preset's)")
    parser.add_argument("--seconds", type=float, default=10.0, help="shortest timed window")
    parser.add_argument("--separate", action="store_true", help="actor and critic share no layer")
    parser.add_argument("--plain", action="store_true", help="without the game's recipe")
    parser.add_argument("--unpacked", action="store_true", help="rollouts store bits as float32")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    from mxnb.build import AGENTS, world
    from mxnb.config import make_config

    config_class, maker = AGENTS[args.agent]()
    # A run this long keeps the falling learning rate where it began.
    sizes = {"num_envs": args.num_envs, "total_timesteps": 1_000_000_000}
    sizes |= {} if args.plain else {"env_id": GAMES[args.game]}
    sizes |= {"num_steps": args.num_steps} if args.num_steps else {}
    sizes |= {"shared_layers": 0} if args.separate else {}
    config = make_config(config_class, preset="cpu", overrides=sizes)
    config = replace(config, env_id=GAMES[args.game])
    env = world(config)
    env = replace(env, spec=replace(env.spec, num_binary=0)) if args.unpacked else env
    agent = maker(config, env)
    init, init_compile_s = compile_timed(agent.init, jax.random.key(args.seed), donate=False)
    step, compile_s = compile_timed(agent.step, state := init(jax.random.key(args.seed)))
    count, seconds, cores, _ = time_calls(step, state, warm_up=1, calls=1, seconds=args.seconds)
    report(
        agent=args.agent,
        game=args.game,
        recipe=not args.plain,
        num_envs=args.num_envs,
        num_steps=agent.config.num_steps,
        steps_per_s=count * agent.steps_per_update / seconds,
        updates=count,
        window_s=seconds,
        cores_used=cores,
        compile_s=compile_s,
        init_compile_s=init_compile_s,
    )


if __name__ == "__main__":
    main()
