"""What is learned, not how fast: the random policy, and PPO's final return over entropy bonuses and seeds.

python benchmarks/learning.py random     512 whole episodes of random play, without and with the mask; 1 minute
python benchmarks/learning.py entropy    ent_coef {0.01, 0.03, 0.1} x seeds {0, 1, 2}, cpu preset; about 35 minutes

Both write benchmarks/results/. The sweep's runs live under papermill_runs/local/learning, in a folder for each
commit, so it can be stopped and started again, and never mixes the results of two versions."""

from __future__ import annotations

import argparse
import datetime
import json
import math
import statistics
import subprocess
from pathlib import Path

from harness import HERE, ROOT, device
from measure import versions

ENV_ID = "craftax-classic-symbolic-v1"
COEFS, SEEDS = (0.01, 0.03, 0.1), (0, 1, 2)


def commit() -> str:
    """The commit that runs, with -dirty for what is not committed."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def write(name: str, **content) -> None:
    """Writes benchmarks/results/NAME.json with the date, versions and device."""
    import jax

    head = {
        "command": f"python benchmarks/learning.py {name}",
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "versions": versions(),
        "device": device([{"device_kind": jax.devices()[0].device_kind}]),
    }
    path = HERE / "results" / f"{name}.json"
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


def entropy() -> None:
    """The final training return (last tenth of 1M steps) for each entropy bonus and seed."""
    from mxnb.agents.ppo import PPOConfig
    from mxnb.build import build
    from mxnb.config import make_config
    from mxnb.run.fit import fit

    rows = []
    for coef in COEFS:
        for seed in SEEDS:
            agent, _ = build(make_config(PPOConfig, preset="cpu", ent_coef=coef))
            folder = ROOT / "papermill_runs" / "local" / "learning" / commit() / f"ent{coef}-s{seed}"
            run = fit(agent, folder, seed=seed)
            result = json.loads((Path(run.run_dir) / "result.json").read_text())
            rows.append({"ent_coef": coef, "seed": seed, "wall_seconds": result["wall_seconds"], **result["metrics"]})
    print("\nent_coef   final return, each seed   mean   entropy share   episode length")
    table = []
    for coef in COEFS:
        mine = [row for row in rows if row["ent_coef"] == coef]
        returns = [row["train/mean_episode_return"] for row in mine]
        mean = {k: statistics.mean(row[f"train/{k}"] for row in mine) for k in ("entropy_frac", "mean_episode_length")}
        line = {"ent_coef": coef, "returns": returns, "mean_return": statistics.mean(returns), **mean}
        line["standard_error"] = statistics.stdev(returns) / math.sqrt(len(returns))
        table.append(line)
        shown = "  ".join(f"{r:.2f}" for r in returns)
        print(
            f"{coef:<9}  {shown:<24}  {line['mean_return']:.2f}   {mean['entropy_frac']:.2f}            "
            f"{mean['mean_episode_length']:.0f}"
        )
    write("entropy", table=table, runs=rows, **above_random(table))


def above_random(table: list[dict]) -> dict:
    """How many standard errors the default's mean return lies above random play (random.json); 5 are asked for."""
    from mxnb.agents.ppo import PPOConfig

    random = json.loads((HERE / "results" / "random.json").read_text())["results"]["all_actions"]
    (chosen,) = [line for line in table if line["ent_coef"] == PPOConfig().ent_coef]
    error = math.hypot(chosen["standard_error"], random["return_standard_error"])
    distance = (chosen["mean_return"] - random["return"]) / error
    print(
        f"default ent_coef {chosen['ent_coef']}: {chosen['mean_return']:.2f} against {random['return']:.2f} at random, "
        f"{distance:.0f} standard errors above ({'met' if distance >= 5 else 'NOT met'}: at least 5)"
    )
    return {"random_return": random["return"], "standard_errors_above_random": distance, "met": distance >= 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("random", "entropy"))
    {"random": random_play, "entropy": entropy}[parser.parse_args().what]()


if __name__ == "__main__":
    main()
