"""Side-by-side benchmarks with their targets: `make bench`.

python benchmarks/run.py                     all suites, results in benchmarks/results/*.json
python benchmarks/run.py ppo --pairs 5       one suite, five alternating rounds
python benchmarks/run.py stepping --quick    one short round; prints, writes nothing"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import HERE, Measurement, Target, plain, run_suite

SUITES = (
    "stepping",
    "stepping_full",
    "queue_size",
    "first_layer",
    "ppo",
    "agent_speed",
    "leads",
    "average_reward",
    "dreamer",
    "first_update",
    "checkpoints",
    "memory",
    "packing",
    "runner",
    "hackmatrix",
)


def stepping(quick: bool) -> tuple[list[Measurement], list[Target]]:
    """Random actions on Craftax-Classic: exact resets against none and against Craftax's auto-reset."""
    sizes = ((64, 0.85),) if quick else ((64, 0.85), (256, 0.85), (1024, 0.75))
    seconds = "2" if quick else "8"
    modes = ("queue", "no_reset", "no_reset_raw")
    measurements = [
        Measurement(f"{mode}_{size}", ("stepping.py", mode, str(size), "--seconds", seconds), 30 if size < 1024 else 45)
        for size, _ in sizes
        for mode in modes
    ]
    measurements.append(Measurement("auto_reset_64", ("stepping.py", "auto_reset", "64", "--seconds", seconds), 40))
    targets = [
        Target(f"exact resets against none, {size} envs", f"queue_{size}", limit, f"no_reset_{size}")
        for size, limit in sizes
    ]
    targets.append(Target("exact resets against auto-reset, 64 envs", "queue_64", 30.0, "auto_reset_64"))
    targets.append(Target("step with mask against step alone, 64 envs", "no_reset_64", 0.8, "no_reset_raw_64"))
    targets.append(Target("compile time of step, mask and queue", "queue_64", 20.0, key="compile_s", at_least=False))
    return measurements, targets


def stepping_full(quick: bool) -> tuple[list[Measurement], list[Target]]:
    """The same on full Craftax."""
    sizes = (64,) if quick else (64, 256)
    seconds = "2" if quick else "8"
    measurements = [
        Measurement(f"{mode}_{size}", ("stepping.py", mode, str(size), "--game", "full", "--seconds", seconds), 60)
        for size in sizes
        for mode in ("queue", "no_reset", "no_reset_raw")
    ]
    targets = [
        Target(f"exact resets against none, {size} envs", f"queue_{size}", 0.75, f"no_reset_{size}") for size in sizes
    ]
    targets.append(Target("step with mask against step alone, 64 envs", "no_reset_64", 0.8, "no_reset_raw_64"))
    targets.append(Target("compile time of step, mask and queue", "queue_64", 50.0, key="compile_s", at_least=False))
    return measurements, targets


def queue_size(quick: bool) -> tuple[list[Measurement], list[Target]]:
    """Worlds made at once: many are cheaper each, until a wide batch slows the CPU and memory down."""
    sizes = (8,) if quick else (4, 8, 16, 32)
    measurements = [
        Measurement(f"{game}_{size}", ("stepping.py", "queue", "64", "--game", game, "--queue-size", str(size)), 35)
        for game in ("classic", "full")
        for size in sizes
    ]
    return measurements, []


def first_layer(quick: bool) -> tuple[list[Measurement], list[Target]]:
    """A first layer on Craftax's tiles: multiplied, and looked up in a table."""
    games = ("classic",) if quick else ("classic", "full")
    measurements = [
        Measurement(f"{way}_{what}_{game}", ("first_layer.py", game, "1024", way, what), 12)
        for game in games
        for what in ("forward", "gradient")
        for way in ("dense", "lookup")
    ]
    return measurements, []


def ppo(quick: bool) -> tuple[list[Measurement], list[Target]]:
    """PPO end to end against rejax with the same recipe."""
    cases = {"craftax": 12.0, "cartpole_64": 0.95} | ({} if quick else {"cartpole_512": 0.95})
    seconds = {"craftax": 75, "cartpole_64": 20, "cartpole_512": 45}
    measurements = []
    for case in cases:
        short = ("--calls", "1") if quick else ()
        measurements.append(Measurement(f"mxnb_{case}", ("mxnb_ppo.py", case, *short), seconds[case]))
        measurements.append(Measurement(f"rejax_{case}", ("rejax_ppo.py", case, *short), seconds[case], peer=True))
    targets = [
        Target(f"PPO against rejax, {case}", f"mxnb_{case}", limit, f"rejax_{case}") for case, limit in cases.items()
    ]
    return measurements, targets


def agent_speed(quick: bool) -> tuple[list[Measurement], list[Target]]:
    """Every agent end to end on both Craftax games, over the number of environments."""
    games, sizes = (("classic",), (64,)) if quick else (("classic", "full"), (64, 256, 1024))
    measurements = [
        Measurement(f"{agent}_{game}_{size}", ("agent_speed.py", agent, game, str(size)), 50 + size / 20)
        for game in games
        for size in sizes
        for agent in ("ppo", "ppo_rnn")
    ]
    return measurements, []


def leads(quick: bool) -> tuple[list[Measurement], list[Target]]:
    """PPO on Craftax-Classic, and what one thing less makes of it."""
    ways = {"as_it_is": (), "separate_trunks": ("--separate",), "unpacked": ("--unpacked",)}
    return [Measurement(n, ("agent_speed.py", "ppo", "classic", "64", *way), 50) for n, way in ways.items()], []


def average_reward(quick: bool) -> tuple[list[Measurement], list[Target]]:
    """The average-reward agent on the survival of Craftax-Classic against PPO-RNN on its rewards, at the same sizes."""
    size = 64
    measurements = [
        Measurement(f"{agent}_{size}", ("agent_speed.py", agent, "classic", str(size)), 60)
        for agent in ("average_reward", "ppo_rnn")
    ]
    return measurements, [
        Target(f"average reward against PPO-RNN, {size} envs", f"average_reward_{size}", 0.8, f"ppo_rnn_{size}")
    ]


def dreamer(quick: bool) -> tuple[list[Measurement], list[Target]]:
    """Dreamer's gradient steps/s; the limits are dreamerv3's on 2 such cores, at its own size and all starts."""
    theirs = {("size1m", 8, 32): 5.7, ("size1m", 16, 64): 1.5, ("size12m", 8, 32): 0.69, ("size12m", 16, 64): 0.18}
    name = lambda size, batch, length: f"{size}_{batch}x{length}"
    cases = list(theirs)[:1] if quick else list(theirs)
    measurements = [Measurement(name(*case), ("dreamer_speed.py", *map(str, case)), 60) for case in cases]
    small = ("dreamer_speed.py", "cpu", "8", "32", "--starts", "64")
    measurements.append(
        Measurement("cpu_8x32_64_starts", small, 60, env={"JAX_COMPILATION_CACHE_DIR": "{scratch}/cold"})
    )
    if not quick:  # one's own speed and memory, beside nobody's
        measurements.append(
            Measurement("colab_t4", ("dreamer_speed.py", "colab_t4", "16", "64", "--starts", "256"), 60)
        )
    key = "updates_per_s"
    targets = [Target(f"updates/s, {name(*case)}", name(*case), theirs[case], key=key) for case in cases]
    targets.append(Target("updates/s, D = 256, 64 starts", "cpu_8x32_64_starts", 10.0, key=key))
    targets.append(
        Target("compile time, cpu preset, empty cache", "cpu_8x32_64_starts", 60.0, key="compile_s", at_least=False)
    )
    return measurements, targets


def first_update(quick: bool) -> tuple[list[Measurement], list[Target]]:
    """From the start of Python to the first update's metrics, with an empty and a filled compilation cache."""
    cache = {"JAX_COMPILATION_CACHE_DIR": "{scratch}/cache"}
    measurements = [
        Measurement("cold", ("first_update.py", "first", "{scratch}/cold"), 60, env=cache),
        Measurement("warm", ("first_update.py", "first", "{scratch}/warm"), 25, env=cache),
        Measurement("smoke", ("first_update.py", "smoke", "{scratch}/smoke"), 60, env=cache),
    ]
    targets = [
        Target("import to first metrics, empty cache", "cold", 60.0, key="first_metrics_s", at_least=False),
        Target("import to first metrics, filled cache", "warm", 25.0, key="first_metrics_s", at_least=False),
        Target("smoke preset's peak memory", "smoke", 2 * 1024**3 / 1e6, key="peak_rss_mb", at_least=False),
    ]
    return measurements, targets


def runner(quick: bool) -> tuple[list[Measurement], list[Target]]:
    """What a sweep's runner costs over bare papermill, and its table over 1,000 runs."""
    words = ("runner.py", "{scratch}/runner", "--rounds", "2" if quick else "7")
    targets = [
        Target("a run over bare papermill", "runner", 1.0, key="overhead_s", at_least=False),
        Target("table over 1,000 finished runs", "runner", 2.0, key="table_s", at_least=False),
    ]
    return [Measurement("runner", words, 20 if quick else 60)], targets


def hackmatrix(quick: bool) -> tuple[list[Measurement], list[Target]]:
    """HackMatrix: random legal play with observation, mask and resets, and PPO; a simpler port's figures as marks."""
    marks = {64: 8_800.0} if quick else {64: 8_800.0, 256: 20_000.0, 1024: 12_900.0}
    seconds = "2" if quick else "8"
    words = lambda size: ("stepping.py", "queue", str(size), "--game", "hackmatrix", "--seconds", seconds)
    measurements = [Measurement(f"step_{size}", words(size), 40) for size in marks]
    targets = [Target(f"steps/s, {size} envs", f"step_{size}", mark, key="steps_per_s") for size, mark in marks.items()]
    if not quick:
        agent = ("agent_speed.py", "ppo", "hackmatrix")
        measurements += [
            Measurement("step_1", words(1), 40),
            Measurement("ppo_64", (*agent, "64", "--num-steps", "128", "--plain"), 60),
            Measurement("ppo_recipe", (*agent, "256"), 60),
        ]
        targets.append(Target("PPO's steps/s, 64 x 128", "ppo_64", 8_000.0, key="steps_per_s"))
        targets.append(Target("compile time, 256 envs", "step_256", 30.0, key="compile_s", at_least=False))
    return measurements, targets


def checkpoints(quick: bool) -> tuple[list[Measurement], list[Target]]:
    """Saving, verifying and restoring: PPO's state in the cpu preset, and 200 MB."""
    measurements = [
        Measurement("ppo", ("checkpoints.py", "ppo"), 200),
        Measurement("200_mb", ("checkpoints.py", "200"), 30),
    ]
    targets = [
        Target("saving, percent of training time", "ppo", 2.0, key="percent_of_training", at_least=False),
        Target("verifying, MB/s", "200_mb", 500.0, key="verify_mb_per_s"),
        Target("restoring 200 MB, seconds", "200_mb", 3.0, key="restore_s", at_least=False),
    ]
    return measurements, targets


def memory(quick: bool) -> tuple[list[Measurement], list[Target]]:
    """The peak that every agent's presets for a T4 are predicted to have (estimates; one round says it all)."""
    agents = ("ppo",) if quick else ("ppo", "ppo_rnn", "average_reward", "dreamer")
    limits = {"colab_t4": 7.8, "colab_t4_small": 4.0}
    cases = [(agent, preset) for agent in agents for preset in limits]
    measurements = [Measurement(f"{a}_{p}", ("memory.py", "predict", a, p), 60) for a, p in cases]
    return measurements, [
        Target(f"predicted peak, GiB, {a} {p}", f"{a}_{p}", limits[p], key="peak_gib", at_least=False) for a, p in cases
    ]


def packing(quick: bool) -> tuple[list[Measurement], list[Target]]:
    """PPO's rollout on full Craftax, 1024 x 64, with observations packed and as they are."""
    sizes = ("--num-envs", "64") if quick else ()
    measurements = [Measurement(kind, ("memory.py", "rollout", kind, *sizes), 150) for kind in ("packed", "unpacked")]
    return measurements, [
        Target("observations kept, GB, packed", "packed", 0.1, key="obs_gb", at_least=False),
        Target("steps/s, packed against unpacked", "packed", 0.9, "unpacked"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "suites", nargs="*", default=["all"], metavar="SUITE", help=f"{', '.join(SUITES)} or all (default)"
    )
    parser.add_argument("--pairs", type=int, default=0, help="alternating rounds (default 3; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="one short round of the small sizes; writes nothing")
    parser.add_argument("--only", default="", help="only measurements whose name contains this; writes nothing")
    parser.add_argument("--out", type=Path, default=None, help="folder of the JSON files (default benchmarks/results)")
    args = parser.parse_args()
    if unknown := [s for s in args.suites if s not in (*SUITES, "all")]:
        parser.error(f"unknown suite {', '.join(unknown)}; choose from {', '.join(SUITES)}, all")
    if args.pairs < 0:
        parser.error(f"--pairs is {args.pairs}; it must be at least 1")
    names = SUITES if "all" in args.suites else tuple(dict.fromkeys(args.suites))
    pairs = args.pairs or (1 if args.quick else 3)
    out = args.out or (None if args.quick or args.only else HERE / "results")
    chosen = {}
    for name in names:
        measurements, targets = globals()[name](args.quick)
        measurements = [m for m in measurements if args.only in m.name]
        here = {m.name for m in measurements} | {""}
        chosen[name] = measurements, [t for t in targets if t.top in here and t.bottom in here]
        count, minutes = len(measurements), pairs * sum(m.seconds for m in measurements) / 60
        print(f"{name}: {count} measurements, {pairs} alternating rounds, about {minutes:.0f} minutes on 2 cores")
    print("Each measurement has the machine to itself; stop other work for clean numbers.")
    print(f"Results: {plain(str(out.resolve())) if out else 'printed only'}", flush=True)
    options = [
        f"--pairs {pairs}",
        *(["--quick"] if args.quick else []),
        *([f"--only {args.only}"] if args.only else []),
    ]
    met = True
    for name, (measurements, targets) in chosen.items():
        if not measurements:
            print(f"{name}: nothing named like {args.only!r}")
            continue
        command = " ".join(["python benchmarks/run.py", name, *options])
        met &= run_suite(name, measurements, targets, pairs=pairs, command=command, out=out)["met"]
    if not any(targets for _, targets in chosen.values()):
        print("\nNo target concerns these measurements alone.")
        return 0
    print("\nAll targets met." if met else "\nNot every target was met (or measured): see the lines above.")
    return 0 if met or args.quick or args.only else 1


if __name__ == "__main__":
    raise SystemExit(main())
