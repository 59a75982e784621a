"""What is learned, not how fast: the random policy, and final returns over settings and seeds.

python benchmarks/learning.py random     512 whole episodes of random play, without and with the mask; 1 minute
python benchmarks/learning.py entropy    ent_coef {0.01, 0.03, 0.1} x seeds {0, 1, 2}, cpu preset; about 35 minutes
python benchmarks/learning.py recurrent  PPO-RNN x seeds {0, 1, 2}, cpu preset, beside PPO's row of entropy.json and the
                                         commit that one was measured at; about 25 minutes
python benchmarks/learning.py cartpole   PPO on CartPole, 500,000 steps, 10 seeds, each policy then evaluated; 1 minute
python benchmarks/learning.py dreamer    Dreamer x seeds {0, 1, 2}, 10,000 steps at the cpu preset's sizes with a
                                         train_ratio of 64: 256 episodes of each against 256 random ones, and its
                                         world model on episodes that it never saw; about 6 minutes
python benchmarks/learning.py hackmatrix the recipe of mxnb/recipes.py and what else was tried for it x seeds {0, 1},
                                         4,000,000 steps: the stage that 512 episodes reach, siphons and programs in
                                         the last tenth of training; 26 runs, two hours by estimate. With --new only
                                         rows that the results lack, after the recipe again: its stages must come
                                         out the same, or nothing is written; 4 runs for a row

Each writes benchmarks/results/. The runs live under papermill_runs/local/learning, in a folder for each
commit, so they can be stopped and started again, and results of two versions never mix."""

from __future__ import annotations

import argparse
import datetime
import json
import math
import statistics
from pathlib import Path

from harness import HERE, ROOT, commit, device
from measure import versions

ENV_ID = "craftax-classic-symbolic-v1"
# The default discount of 0.99 and bootstrapping at time limits make values of 100: the critic needs its own scale.
CARTPOLE = {
    "env_id": "cartpole-v1", "total_timesteps": 500_000, "num_envs": 8, "num_steps": 128, "hidden_dim": 64,
    "lambda_": 0.95, "normalise_value": True,
}  # fmt: skip
# What the recipe of HackMatrix was chosen among: what a row changes in it. "+" adds to the weights of its reward_scale.
TRIED = {
    "the recipe": {},
    "a plain network": {"cell_dim": 0},
    "rewards as they are paid": {"reward_scale": {}},
    "entropy bonus 0.01": {"ent_coef": 0.01},
    "entropy bonus 0.3": {"ent_coef": 0.3},
    "entropy bonus stays at 0.1": {"anneal_ent_coef": False},
    "lambda 0.8": {"lambda_": 0.8},
    "values as they are": {"normalise_value": False},
    "4 epochs an update, half the step size": {"update_epochs": 4},
    "the score counted as paid": {"+": {"score_gain": 1.0}},
    "nothing for new programs": {"+": {"new_programs": 0.0}},
    "1 for each new program": {"+": {"new_programs": 1.0}},
    "4 for each new program": {"+": {"new_programs": 4.0}},
}
COEFS, SEEDS = (0.01, 0.03, 0.1), (0, 1, 2)


def write(what: str, *, file: str = "", **content) -> None:
    """Writes benchmarks/results/WHAT.json, or `file`.json, with the date, versions and device."""
    import jax

    head = {
        "command": f"python benchmarks/learning.py {what}",
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "versions": versions(),
        "device": device([{"device_kind": jax.devices()[0].device_kind}]),
    }
    path = HERE / "results" / f"{file or what}.json"
    path.write_text(json.dumps(head | content, indent=1) + "\n")
    print(f"wrote {path.relative_to(ROOT)}")


def random_play(episodes: int = 512, seed: int = 0) -> None:
    """Mean return and length of whole random episodes, with their standard errors."""
    import jax

    from mxnb.build import make
    from mxnb.evaluate import evaluate, random_policy

    env = make(ENV_ID)
    results = {}
    for name, use_mask in (("all_actions", False), ("open_actions", True)):
        played = evaluate(random_policy(env.spec, use_mask=use_mask), env, episodes, jax.random.key(seed))
        summary = played.summary() | {"length_standard_error": float(played.lengths.std(ddof=1) / math.sqrt(episodes))}
        results[name] = summary
        label, error = name.replace("_", " "), summary["return_standard_error"]
        length = f"{summary['length']:.1f} ± {summary['length_standard_error']:.1f}"
        print(f"random, {label:<13} return {summary['return']:.3f} ± {error:.3f}  length {length}")
    write("random", results=results, seed=seed)


def run_folder(label: str, seed: int) -> Path:
    """Where a run of this commit lives."""
    return ROOT / "papermill_runs" / "local" / "learning" / commit() / f"{label}-s{seed}"


def train(agent_name: str, label: str, seed: int, **overrides) -> dict:
    """The final metrics (over the last tenth) of one run in the cpu preset, 1M steps unless told otherwise."""
    from mxnb.build import AGENTS, build
    from mxnb.config import make_config
    from mxnb.run.fit import fit

    agent, _ = build(make_config(AGENTS[agent_name]()[0], preset="cpu", **overrides))
    run = fit(agent, run_folder(label, seed), seed=seed)
    if run.status != "done":
        raise SystemExit(f"{run.status} and saved; the same command goes on")
    result = json.loads((Path(run.run_dir) / "result.json").read_text())
    return {"seed": seed, "wall_seconds": result["wall_seconds"], **result["metrics"]}


def summary(runs: list[dict]) -> dict:
    """Each seed's final return, their mean and its standard error, and the mean entropy share and episode length."""
    returns = [row["train/mean_episode_return"] for row in runs]
    mean = {k: statistics.mean(row[f"train/{k}"] for row in runs) for k in ("entropy_frac", "mean_episode_length")}
    error = statistics.stdev(returns) / math.sqrt(len(returns))
    return {"returns": returns, "mean_return": statistics.mean(returns), **mean, "standard_error": error}


def line(label: str, row: dict) -> str:
    """A row of the printed table."""
    shown = "  ".join(f"{r:.2f}" for r in row["returns"])
    return (
        f"{label:<9}  {shown:<24}  {row['mean_return']:.2f}   {row['entropy_frac']:.2f}            "
        f"{row['mean_episode_length']:.0f}"
    )


HEAD = "final return, each seed   mean   entropy share   episode length"


def entropy() -> None:
    """The final training return for each entropy bonus and seed."""
    rows = [{"ent_coef": coef} | train("ppo", f"ent{coef}", seed, ent_coef=coef) for coef in COEFS for seed in SEEDS]
    table = [{"ent_coef": coef} | summary([row for row in rows if row["ent_coef"] == coef]) for coef in COEFS]
    print(f"\nent_coef   {HEAD}")
    for row in table:
        print(line(str(row["ent_coef"]), row))
    write("entropy", table=table, runs=rows, **above_random(table))


def cartpole(seeds: int = 10, episodes: int = 200) -> None:
    """The mean return of each seed's final policy over whole episodes, sampled as in training."""
    import jax

    from mxnb.build import load_policy, make
    from mxnb.evaluate import evaluate

    rows = []
    for seed in range(seeds):
        trained = train("ppo", "cartpole", seed, **CARTPOLE)
        policy = load_policy(run_folder("cartpole", seed))
        played = evaluate(policy, make("cartpole-v1"), episodes, jax.random.key(seed))
        rows.append(trained | {"evaluated": played.report()})
    returns = [row["evaluated"]["return"]["mean"] for row in rows]
    solved = sum(value >= 475 for value in returns)
    print(f"\nCartPole, mean return of {episodes} episodes, each seed: " + "  ".join(f"{r:.0f}" for r in returns))
    print(f"at least 475: {solved} of {seeds} seeds ({'met' if solved >= 9 else 'NOT met'}: at least 9)")
    write("cartpole", settings=CARTPOLE, returns=returns, solved=solved, met=solved >= 9, runs=rows)


def recurrent() -> None:
    """PPO-RNN's final training return, beside the default PPO's from entropy.json."""
    from mxnb.agents.ppo import PPOConfig

    rows = [train("ppo_rnn", "ppo_rnn", seed) for seed in SEEDS]
    theirs = json.loads((HERE / "results" / "entropy.json").read_text())
    (feed_forward,) = [row for row in theirs["table"] if row["ent_coef"] == PPOConfig().ent_coef]
    table = {"ppo": feed_forward | {"commit": theirs["commit"]}, "ppo_rnn": summary(rows)}
    print(f"\nagent      {HEAD}")
    for name, row in table.items():
        print(line(name, row))
    write("recurrent", table=table, runs=rows)


def dreamer(steps: int = 10_000, ratio: int = 64, episodes: int = 256) -> None:
    """Each seed's policy against random play by a one-sided Mann-Whitney test, and its model on held-out episodes."""
    import jax
    from scipy import stats

    from mxnb.agents.dreamer import DreamerConfig
    from mxnb.agents.foresight import held_out, judge_model
    from mxnb.build import build, load_policy
    from mxnb.config import make_config
    from mxnb.evaluate import evaluate, random_policy

    agent, env = build(make_config(DreamerConfig, preset="cpu", env_id=ENV_ID))
    chance = evaluate(random_policy(env.spec), env, episodes, jax.random.key(100))
    print(f"random play: {chance.returns.mean():.2f}")
    rows = []
    for seed in SEEDS:
        trained = train("dreamer", "dreamer", seed, env_id=ENV_ID, total_timesteps=steps, train_ratio=ratio)
        policy = load_policy(run_folder("dreamer", seed))
        played = evaluate(policy, env, episodes, jax.random.key(101 + seed))
        p_value = float(stats.mannwhitneyu(played.returns, chance.returns, alternative="greater").pvalue)
        seen = held_out(agent.config, env, policy.params["params"], jax.random.key(200 + seed))
        model = judge_model(agent.config, env, policy.params["params"], seen, jax.random.key(300 + seed))
        rows.append(trained | {"evaluated": played.report(), "p_value": p_value, "model": model})
        print(
            f"seed {seed}: return {played.returns.mean():.2f}, better than random with p = {p_value:.1e}; "
            f"{trained['wall_seconds'] / 60:.1f} minutes"
        )
        print("  " + "  ".join(f"{name} {value:.3g}" for name, value in model.items()))
    better = sum(row["p_value"] < 0.01 for row in rows)
    print(f"better than random at p < 0.01: {better} of {len(rows)} seeds ({'met' if better > 1 else 'NOT met'}: 2)")
    write(
        "dreamer",
        file="dreamer_learning",  # dreamer.json holds its speed
        steps=steps,
        train_ratio=ratio,
        random=chance.report(),
        better=better,
        met=better > 1,
        runs=rows,
    )


def hackmatrix(new: bool = False, steps: int = 4_000_000, seeds: tuple[int, ...] = (0, 1), episodes: int = 512) -> None:
    """Each row's mean stage by seed, beside the scripted walker's, and its shares of siphons and programs.

    new: keep the rows that were measured (each names its commit) and train the others, if the recipe's are the same."""
    import jax

    from mxnb.build import load_policy, make
    from mxnb.envs.hackmatrix import walk
    from mxnb.evaluate import evaluate, random_policy, rule_policy
    from mxnb.recipes import recipe

    weights = recipe("ppo", "hackmatrix-v1", "cpu")["reward_scale"]
    env, table, rows = make("hackmatrix-v1"), [], []
    past = json.loads((HERE / "results" / "hackmatrix_learning.json").read_text()) if new else {"table": [], "runs": []}
    measured = {row["what"]: row for row in past["table"]}

    def stage_of(policy) -> tuple[float, float]:
        stage = evaluate(policy, env, episodes, jax.random.key(2000)).info["stage"]
        return float(stage.mean()), float(1.96 * stage.std(ddof=1) / math.sqrt(episodes))

    scripted = {"walker": rule_policy(env.spec, walk), "random_legal": random_policy(env.spec, use_mask=True)}
    beside = {}
    for name, policy in scripted.items():
        mean, error = stage_of(policy)
        beside[name] = {"stage": mean, "stage_half_interval": error}
        print(f"{name:<28} {mean:.2f} ± {error:.2f}   (half a 95 % interval)")
    for name, changes in TRIED.items():
        changes = {"reward_scale": weights | changes["+"]} if "+" in changes else changes
        kept = measured.get(name, {})
        if kept and name != "the recipe" and kept["changes"] == changes:
            table.append({"commit": past["commit"]} | kept)
            rows += [run for run in past["runs"] if run["what"] == name]
            continue
        runs = []
        for seed in seeds:
            label = f"hackmatrix-{name.replace(' ', '-')}"
            trained = train("ppo", label, seed, env_id="hackmatrix-v1", total_timesteps=steps, **changes)
            stage, half = stage_of(load_policy(run_folder(label, seed)))
            runs.append(trained | {"what": name, "stage": stage, "stage_half_interval": half})
        rows += runs
        shares = {k: statistics.mean(run[f"actions/{k}_frac"] for run in runs) for k in ("siphon", "program")}
        found = {
            "what": name,
            "commit": commit(),
            "changes": changes,
            "stages": [run["stage"] for run in runs],
            **shares,
        }
        if kept and kept["changes"] == changes and kept["stages"] != found["stages"]:
            raise SystemExit(f"{name}: {found['stages']}, was {kept['stages']}: old rows cannot stay, leave --new out")
        table.append(found)
        stages = "  ".join(f"{run['stage']:.2f} ± {run['stage_half_interval']:.2f}" for run in runs)
        print(f"{name:<38} {stages}   siphons {shares['siphon']:.2%}   programs {shares['program']:.2%}", flush=True)
    write("hackmatrix", file="hackmatrix_learning", steps=steps, **beside, table=table, runs=rows)


def above_random(table: list[dict]) -> dict:
    """How many standard errors the default's mean return lies above random play (random.json); 5 are asked for."""
    from mxnb.agents.ppo import PPOConfig

    random = json.loads((HERE / "results" / "random.json").read_text())["results"]["all_actions"]
    (chosen,) = [row for row in table if row["ent_coef"] == PPOConfig().ent_coef]
    error = math.hypot(chosen["standard_error"], random["return_standard_error"])
    distance = (chosen["mean_return"] - random["return"]) / error
    print(
        f"default ent_coef {chosen['ent_coef']}: {chosen['mean_return']:.2f} against {random['return']:.2f} at random, "
        f"{distance:.0f} standard errors above ({'met' if distance >= 5 else 'NOT met'}: at least 5)"
    )
    return {"random_return": random["return"], "standard_errors_above_random": distance, "met": distance >= 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = {"random": random_play, "entropy": entropy, "recurrent": recurrent, "cartpole": cartpole}
    what |= {"dreamer": dreamer, "hackmatrix": hackmatrix}
    parser.add_argument("what", choices=tuple(what))
    parser.add_argument("--new", action="store_true", help="hackmatrix: train only what the results lack")
    told = parser.parse_args()
    if told.new and told.what != "hackmatrix":
        parser.error("--new goes with hackmatrix")
    what[told.what](**({"new": True} if told.new else {}))


if __name__ == "__main__":
    main()
