"""Steps/s of our PPO in steady state: the other side of rejax_ppo.py, same recipe, same clock.

    python benchmarks/mxnb_ppo.py craftax

One call is a donated program of several updates that returns every update's metrics; compiling and a first call,
long enough for episodes to end, are not timed."""

from __future__ import annotations

import argparse

import jax
from measure import PPO_CASES, PPO_COMMON, compile_timed, report, time_calls

UPDATES_PER_CALL = {"craftax": 5, "cartpole_64": 20, "cartpole_512": 20}
CALLS = {"craftax": 4, "cartpole_64": 5, "cartpole_512": 5}


def make_agent(case: str):
    """Our PPO with the shared recipe: constant learning rate, as rejax has it."""
    from mxnb.agents.ppo import PPOConfig, ppo
    from mxnb.build import make

    size, recipe = dict(PPO_CASES[case]), dict(PPO_COMMON)
    env_id = size.pop("env")
    config = PPOConfig(
        env_id=env_id,
        total_timesteps=100_000_000,
        discount=recipe.pop("gamma"),
        lambda_=recipe.pop("gae_lambda"),
        anneal_lr=False,
        **size,
        **recipe,
    )
    return ppo(config, make(env_id))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=sorted(PPO_CASES))
    parser.add_argument("--calls", type=int, default=0, help="timed calls; 0: as the case says")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    agent, updates = make_agent(args.case), UPDATES_PER_CALL[args.case]
    init, init_compile = compile_timed(agent.init, jax.random.key(args.seed), donate=False)
    state = init(jax.random.key(args.seed))

    def several(state):
        return jax.lax.scan(lambda carry, _: agent.step(carry), state, None, updates)

    train, compile_s = compile_timed(several, state)
    count, seconds, cores, _ = time_calls(train, state, warm_up=1, calls=args.calls or CALLS[args.case])
    report(
        case=args.case,
        steps_per_s=count * updates * agent.steps_per_update / seconds,
        updates=count * updates,
        window_s=seconds,
        cores_used=cores,
        compile_s=compile_s,
        init_compile_s=init_compile,
    )


if __name__ == "__main__":
    main()
