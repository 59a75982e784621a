"""Steps/s of rejax's PPO in steady state, run by the harness in rejax's own environment (.venv-rejax).

    .venv-rejax/bin/python benchmarks/rejax_ppo.py craftax

`train` is rejax's own loop with an evaluation callback that does nothing; compiling and a first call are not timed.
Its actor and critic are two separate towers of two layers."""

from __future__ import annotations

import argparse

import jax
from craftax.craftax_env import make_craftax_env_from_name
from gymnax.environments import spaces
from measure import PPO_CASES, PPO_COMMON, compile_timed, report, time_calls
from rejax import PPO

# Craftax with auto-reset takes about 9 s an update: few updates a call. CartPole: 5 calls of 20 updates.
UPDATES_PER_CALL = {"craftax": 1, "cartpole_64": 20, "cartpole_512": 20}
CALLS = {"craftax": 3, "cartpole_64": 5, "cartpole_512": 5}


class CraftaxForGymnax:
    """Craftax's own auto-reset environment with gymnax 0.0.9's spaces: rejax looks for those classes, and
    craftax 1.6 brings its own. `reset` and `step` (five values) already agree."""

    def __init__(self) -> None:
        self.env = make_craftax_env_from_name("Craftax-Classic-Symbolic-v1", auto_reset=True)
        self.default_params, self.reset, self.step = self.env.default_params, self.env.reset, self.env.step

    def action_space(self, params) -> spaces.Discrete:
        return spaces.Discrete(self.env.action_space(params).n)

    def observation_space(self, params) -> spaces.Box:
        box = self.env.observation_space(params)
        return spaces.Box(box.low, box.high, box.shape, box.dtype)


ENVS = {"craftax-classic-symbolic-v1": CraftaxForGymnax, "cartpole-v1": lambda: "CartPole-v1"}


def make_ppo(case: str) -> PPO:
    """rejax's PPO with the shared recipe; one `train` call is UPDATES_PER_CALL updates and no evaluation."""
    size = PPO_CASES[case]
    steps = size["num_envs"] * size["num_steps"] * UPDATES_PER_CALL[case]
    recipe = dict(PPO_COMMON)
    layers = recipe.pop("num_layers")
    return PPO.create(
        env=ENVS[size["env"]](),
        agent_kwargs={"hidden_layer_sizes": (size["hidden_dim"],) * layers, "activation": "tanh"},
        num_envs=size["num_envs"],
        num_steps=size["num_steps"],
        num_epochs=recipe.pop("update_epochs"),
        learning_rate=recipe.pop("lr"),
        total_timesteps=steps,
        eval_freq=steps,
        skip_initial_evaluation=True,
        **recipe,
    ).replace(eval_callback=lambda algo, state, rng: ())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=sorted(PPO_CASES))
    parser.add_argument("--calls", type=int, default=0, help="timed calls; 0: as the case says")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    ppo = make_ppo(args.case)
    init, init_compile = compile_timed(ppo.init_state, jax.random.key(args.seed), donate=False)
    state = init(jax.random.key(args.seed))
    train, compile_s = compile_timed(lambda state: ppo.train(train_state=state), state)
    count, seconds, cores, _ = time_calls(train, state, warm_up=1, calls=args.calls or CALLS[args.case])
    steps = count * ppo.total_timesteps
    report(
        case=args.case,
        steps_per_s=steps / seconds,
        updates=count * UPDATES_PER_CALL[args.case],
        window_s=seconds,
        cores_used=cores,
        compile_s=compile_s,
        init_compile_s=init_compile,
    )


if __name__ == "__main__":
    main()
