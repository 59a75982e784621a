"""The command line: `python -m mxnb --help`."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from mxnb.config import ALIASES
from mxnb.run import command as sweeping

_EVALUATE = "(--run RUN | --policy random|noop --env-id ID) [options]"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0 well, 1 not ready, 2 bad arguments, 130 interrupted."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m mxnb", description="A notebook-first RL workbook in JAX.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    setups = {
        "train": (_train_options, _train, "train an agent, or go on with a run", "[options]"),
        "evaluate": (_evaluate_options, _evaluate, "play whole episodes and say what they were worth", _EVALUATE),
        "watch": (_watch_options, _watch, "play episodes and write a page that shows them", "--run RUN [options]"),
        "runs": (_runs_options, _runs, "list the run folders", "[FOLDER]"),
        "doctor": (_doctor_options, _doctor, "check this machine, or environments rule by rule", "[--envs [ID ...]]"),
        "run": (sweeping.run_options, sweeping.run, "execute one notebook", "NOTEBOOK --params FILE --out DIR"),
        "sweep": (sweeping.sweep_options, _sweep, "many runs of a notebook", sweeping.USAGE),
    }
    for name, (options, _, words, needs) in setups.items():
        usage = f"python -m mxnb {name} {needs}  (--help lists the options)"
        command = commands.add_parser(name, help=words, description=_sentence(words), usage=usage, allow_abbrev=False)
        if given[:1] == [name]:  # only these: train's need the agents, and so jax
            options(command, given)
    args, unknown = parser.parse_known_args(given)
    command = commands.choices[args.command]
    if unknown:
        values = {
            i for i, word in enumerate(unknown[:-1], 1) if word.startswith("-") and not unknown[i].startswith("-")
        }
        command.error("; ".join(_unknown(word, command) for i, word in enumerate(unknown) if i not in values))
    try:
        job = setups[args.command][1](args)
    except (ValueError, FileNotFoundError) as error:  # of the arguments; what goes wrong later is no bad argument
        command.error(str(error))
    return _told(args.command, job)


def _told(command: str, job: Callable[[], int]) -> int:
    """Runs a job; what stops it and is no bug is told in a line."""
    try:
        return job()
    except BrokenPipeError:  # as in `runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (RuntimeError, ValueError, OSError, FloatingPointError) as error:
        if type(error).__name__ not in ("InUse", "Lost", "Drift", "Refused", "FloatingPointError", "OSError"):
            raise
        print(f"python -m mxnb {command}: {error}", file=sys.stderr)
        return 1


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:] + "."


def _unknown(word: str, command: argparse.ArgumentParser) -> str:
    if not word.startswith("-"):
        return f"unexpected argument {word}; every value follows its option, as in --env-id cartpole-v1"
    options = [option for action in command._actions for option in action.option_strings]
    near = difflib.get_close_matches(word.split("=")[0], options, n=2, cutoff=0.6)
    return f"unknown option {word}" + (f" (did you mean {' or '.join(near)}?)" if near else "")


# ------------------------------------------------------------------------------------------------------- train


def _train_options(command: argparse.ArgumentParser, given: Sequence[str]) -> None:
    from mxnb.build import AGENTS

    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--agent", default="ppo")
    agent = early.parse_known_args(given[1:])[0].agent
    if agent not in AGENTS:
        near = difflib.get_close_matches(agent.lower().replace("-", "_"), AGENTS, n=1)
        meant = f"; did you mean {near[0]}?" if near else ";"
        command.error(f"unknown agent {agent!r}{meant} All: {', '.join(AGENTS)}")
    command.add_argument("--agent", default="ppo", metavar="NAME", help=f"{', '.join(AGENTS)} (default ppo)")
    command.add_argument("--preset", default="auto", metavar="NAME", help="smoke, cpu, colab_t4, ... (default auto)")
    command.add_argument(
        "--auto-tune", action="store_const", const="auto", dest="preset", help="the same as --preset auto"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random (default 0)")
    run = command.add_argument_group("the run")
    run.add_argument(
        "--run-dir", "--checkpoint-dir", default="", metavar="DIR", help="the run folder (default by configuration)"
    )
    run.add_argument(
        "--resume", action=argparse.BooleanOptionalAction, default=True, help="go on where the folder stands (default)"
    )
    run.add_argument("--init-from", metavar="RUN", help="begin with the policy of another run")
    run.add_argument(
        "--save-minutes", "--save-interval-minutes", type=float, metavar="M", help="default 10, in Colab 5"
    )
    run.add_argument(
        "--save-updates", "--save-interval", type=int, default=0, metavar="N", help="updates between saves, no minutes"
    )
    run.add_argument("--keep", type=int, default=3, metavar="N", help="newest checkpoints to keep (default 3)")
    run.add_argument(
        "--eval-updates", type=int, default=0, metavar="N", help="updates between evaluations (default: no evaluation)"
    )
    run.add_argument(
        "--eval-episodes", type=int, default=64, metavar="N", help="episodes of an evaluation (default 64)"
    )
    run.add_argument(
        "--page", action=argparse.BooleanOptionalAction, default=True, help="write page.html when it ends (default)"
    )
    run.add_argument("--log-interval", type=int, default=0, metavar="N", help="updates between lines on the console")
    wandb = command.add_argument_group("a mirror at Weights & Biases (offline without a login)")
    wandb.add_argument(
        "--wandb", action=argparse.BooleanOptionalAction, default=False, help="send every row and the last policy there"
    )
    for name, words in (("project", "default mxnb"), ("entity", "user or team"), ("run-name", "default the folder's")):
        wandb.add_argument(f"--{name}", metavar="NAME", help=words)
    wandb.add_argument("--run-suffix", metavar="TEXT", help="put behind the name")
    wandb.add_argument("--rewind", action="store_true", help="on resume, forget the steps after the checkpoint")
    wandb.add_argument("--no-artifact", action="store_true", help="do not keep the final policy there")
    fields = command.add_argument_group("the agent's configuration (aliases as in notebooks: --learning-rate, ...)")
    fields.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="any field, as papermill's -p"
    )
    for name, words in _field_docs(AGENTS[agent]()[0]).items():
        others = [other for other, field in ALIASES.items() if field == name]
        flags = [f"--{n.strip('_').replace('_', '-')}" for n in (name, *others)]
        fields.add_argument(*flags, dest=f"field_{name}", metavar="X", help=words.replace("%", "%%"))


def _field_docs(config_class: type) -> dict[str, str]:
    """Each field of a Config with the string below it in the source; the class's own win over its parent's."""
    docs: dict[str, str] = {}
    for cls in reversed(config_class.__mro__[:-1]):
        body = ast.parse(inspect.getsource(cls)).body[0].body  # type: ignore[attr-defined]
        for line, below in zip(body, [*body[1:], None], strict=True):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                text = (
                    below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
                )
                docs[line.target.id] = " ".join(str(text).split())
    docs.pop("origins", None)
    return docs


def _literal(text: str, type_: Any = None) -> Any:
    """A value as it was typed: 1_000, 1e-3, true, text."""
    if type_ is str:
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, int | float) else text


def _train(args: argparse.Namespace) -> Callable[[], int]:
    import mxnb
    from mxnb import presets
    from mxnb.build import AGENTS
    from mxnb.config import Parameters, announce, default_run_dir, make_config, policy_file
    from mxnb.evaluate import periodic
    from mxnb.recipes import recipe
    from mxnb.run.folder import check_numbers, check_run
    from mxnb.run.found import run_named

    numbers = ("save_minutes", "save_updates", "keep", "eval_updates", "log_interval", "eval_episodes")
    check_numbers(**{name: getattr(args, name) for name in numbers})
    if args.init_from:
        args.init_from = str(run_named(args.init_from))
    config_class, _ = AGENTS[args.agent]()
    overrides = _overrides(args, get_type_hints(config_class))
    preset, why = presets.choose(args.preset)
    config = make_config(config_class, preset=preset, overrides=overrides)
    run_dir = Path(args.run_dir or default_run_dir(config, "", args.seed))
    expect = (presets.PRESETS[args.agent][preset] | recipe(args.agent, config.env_id, preset))["expect"]
    p = Parameters(config, preset, args.seed, run_dir, args.resume, auto=why.startswith("auto"))
    announce(p, why, expect)
    built = mxnb.plan(p) if p.auto else None
    agent, env = (built.agent, built.env) if built else mxnb.build(config)
    check_run(agent, run_dir, args.seed, args.resume, args.init_from)
    wandb = _wandb(args)

    def job() -> int:
        result = mxnb.fit(
            agent,
            run_dir,
            seed=args.seed,
            resume=args.resume,
            save_minutes=args.save_minutes,
            save_updates=args.save_updates,
            keep=args.keep,
            evaluate=periodic(agent, env, args.eval_episodes) if args.eval_updates else None,
            eval_updates=args.eval_updates,
            init_from=args.init_from,
            log_updates=args.log_interval,
            wandb=wandb,
        )
        done = result.status == "done"
        if args.page and ((run_dir / "config.json") if done else policy_file(run_dir)).exists():
            _write_page(run_dir, args.seed)
        return 0 if done else 130

    return job


def _write_page(run_dir: Path, seed: int) -> None:
    """The page at the end of `train`: the run is saved whatever becomes of it, also by one more Ctrl-C."""
    import mxnb

    try:
        print(f"a page to look at: {mxnb.show.page(run_dir, seed=seed)}")
    except (Exception, KeyboardInterrupt) as error:
        print(f"no page was written ({type(error).__name__}: {error})")


def _wandb(args: argparse.Namespace) -> bool | dict[str, Any]:
    """What `fit(wandb=...)` gets; ValueError for an option of the mirror without --wandb."""
    names = {"project": args.project, "entity": args.entity, "name": args.run_name, "suffix": args.run_suffix}
    given = {name: value for name, value in names.items() if value is not None}
    given |= {"rewind": True} if args.rewind else {}
    given |= {"artifacts": False} if args.no_artifact else {}
    if given and not args.wandb:
        raise ValueError("--project, --entity, --run-name, --run-suffix, --rewind and --no-artifact need --wandb")
    return given or args.wandb


def _overrides(args: argparse.Namespace, types: dict[str, Any]) -> dict[str, Any]:
    """The fields given as options and with -p; ValueError for one given both ways."""
    given = {name[6:]: str(text) for name, text in vars(args).items() if name.startswith("field_") and text is not None}
    written = [str(name).replace("-", "_") for name, _ in args.p]
    names: list[str] = ["lambda_" if name == "lambda" else ALIASES.get(name, name) for name in written]
    if twice := sorted({name for name in names if name in given or names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)}: given more than once; give it once, as an option or with -p")
    pairs = dict(zip(names, (text for _, text in args.p), strict=True))
    return {name: _literal(text, types.get(ALIASES.get(name, name))) for name, text in (given | pairs).items()}


# ---------------------------------------------------------------------------------------------------- evaluate


def _evaluate_options(command: argparse.ArgumentParser, given: Sequence[str]) -> None:
    who = command.add_mutually_exclusive_group(required=True)
    who.add_argument("--run", metavar="RUN", help="the folder of a run, or latest")
    who.add_argument("--policy", choices=("random", "noop"), help="a policy that was not trained")
    command.add_argument("--env-id", metavar="ID", help="the environment (default: the run's own)")
    command.add_argument(
        "--checkpoint", metavar="N", help="the policy of update N, or best (default: the one saved last)"
    )
    command.add_argument("--episodes", type=int, default=200, metavar="N", help="whole episodes (default 200)")
    command.add_argument(
        "--r-reset", type=int, metavar="N", help="judge survival, a death costing N steps (default: the run's own)"
    )
    command.add_argument("--greedy", action="store_true", help="the most probable action instead of a draw")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of worlds and draws (default 0)")
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="the JSON (default: evaluation.json in the run folder)"
    )


def _evaluate(args: argparse.Namespace) -> Callable[[], int]:
    import jax

    import mxnb
    from mxnb.build import run_env
    from mxnb.config import use_compilation_cache, write_json
    from mxnb.evaluate import as_text, check_fit, noop_policy, random_policy
    from mxnb.run.folder import shown
    from mxnb.run.found import run_named

    if args.r_reset is not None and args.r_reset < 0:
        raise ValueError(f"--r-reset is {args.r_reset}; a death costs 0 steps or more (50 is usual)")
    if args.episodes < 1:
        raise ValueError(f"--episodes is {args.episodes}; use at least 1")
    if args.policy and not args.env_id:
        raise ValueError("--policy needs --env-id, for example --env-id craftax-classic-v1")
    if args.policy and args.checkpoint:
        raise ValueError("--checkpoint needs --run")
    use_compilation_cache()
    run = None
    if args.run:
        run = run_named(args.run)
        policy = mxnb.load_policy(run, _checkpoint(args.checkpoint))
        env, r_reset = run_env(run, args.env_id, args.r_reset)
    else:
        r_reset = args.r_reset
        env = mxnb.make(args.env_id)
        policy = random_policy(env.spec) if args.policy == "random" else noop_policy(env.spec)
    check_fit(policy, env)

    def job() -> int:
        episodes = mxnb.evaluate(policy, env, args.episodes, jax.random.key(args.seed), greedy=args.greedy)
        found = {
            "policy": shown(run) if run else args.policy,
            **({"checkpoint": args.checkpoint} if args.checkpoint else {}),
            "env": env.spec.id,
            "greedy": args.greedy,
            "seed": args.seed,
            **episodes.report(),
            **({} if r_reset is None else {"survival": episodes.survival(r_reset)}),
        }
        print(as_text(found))
        name = f"evaluation-{args.checkpoint}.json" if args.checkpoint else "evaluation.json"
        out = args.out or (run / name if run else None)
        if out:
            write_json(out, found)
            print(f"written to {out}")
        return 0

    return job


def _checkpoint(text: str | None) -> int | str | None:
    if text is None or text == "best":
        return text
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--checkpoint is {text!r}; it takes the number of an update, or best") from None


# ------------------------------------------------------------------------------------------------------- watch


def _watch_options(command: argparse.ArgumentParser, given: Sequence[str]) -> None:
    command.add_argument("--run", required=True, metavar="RUN", help="the folder of a run, or latest")
    command.add_argument("--checkpoint", metavar="N", help="the policy of update N, or best (default: the last)")
    command.add_argument("--episodes", type=int, default=1, metavar="N", help="how many (default 1)")
    command.add_argument("--max-steps", type=int, default=500, metavar="N", help="of each (default 500)")
    command.add_argument("--greedy", action="store_true", help="the most probable action instead of a draw")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of worlds and draws (default 0)")
    command.add_argument("--gif", action="store_true", help="write the first one as a GIF too")
    command.add_argument("--mp4", action="store_true", help="and as an MP4, where ffmpeg is installed")
    command.add_argument("--page", action="store_true", help="and write the run's page.html anew, with them on it")


def _watch(args: argparse.Namespace) -> Callable[[], int]:
    import mxnb
    from mxnb.build import run_env
    from mxnb.config import use_compilation_cache
    from mxnb.run.found import run_named
    from mxnb.show._runs import read_json

    for name in ("episodes", "max_steps"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}; use at least 1")
    use_compilation_cache()
    run = run_named(args.run)
    policy = mxnb.load_policy(run, _checkpoint(args.checkpoint))
    env, _ = run_env(run)
    which = [f"checkpoint-{args.checkpoint}"] if args.checkpoint else []
    name = "-".join(["player", *which, f"seed-{args.seed}", *(["greedy"] if args.greedy else [])])
    whose = {None: "newest policy", "best": "best policy"}.get(args.checkpoint, f"policy of update {args.checkpoint}")
    agent = read_json(run, "config.json").get("agent", "agent")

    def job() -> int:
        given = {"greedy": args.greedy, "max_steps": args.max_steps}
        try:
            shown = mxnb.show.episodes(policy, env, args.episodes, args.seed, **given)
            shown = dataclasses.replace(shown, title=f"{agent} in {run.resolve().name}, {whose}: {shown.title}")
            print(f"{shown!r}")
            for kind in ("html", *(kind for kind in ("gif", "mp4") if getattr(args, kind))):
                print(f"written to {shown.save(run / 'episodes' / f'{name}.{kind}')}")
            if args.page:
                print(f"written to {mxnb.show.page(run, shown)}")
        except (ValueError, RuntimeError) as error:  # no pictures, no ffmpeg, or one that fails
            print(f"python -m mxnb watch: {error}", file=sys.stderr)
            return 1
        return 0

    return job


# -------------------------------------------------------------------------------------------------------- runs


def _runs_options(command: argparse.ArgumentParser, given: Sequence[str]) -> None:
    command.add_argument("folder", nargs="?", type=Path, help="where to look (default papermill_runs/local)")


def _runs(args: argparse.Namespace) -> Callable[[], int]:
    from mxnb.config import run_root
    from mxnb.run.found import table

    def job() -> int:
        print(table(args.folder or run_root()))
        return 0

    return job


# ------------------------------------------------------------------------------------------------------- sweep


def _sweep(args: argparse.Namespace) -> Callable[[], int]:
    def check(notebook: Path, params: Mapping[str, Any]) -> dict[str, Any]:
        from mxnb.build import AGENTS
        from mxnb.config import check_cell
        from mxnb.run.sweep_file import agent_of, cell_of

        if (agent := agent_of(notebook)) not in AGENTS:
            raise ValueError(f"{notebook.name} names the agent {agent!r}; there are {', '.join(AGENTS)}")
        return check_cell(AGENTS[agent]()[0], params, cell_of(notebook))

    return sweeping.sweep(args, check)


# ------------------------------------------------------------------------------------------------------ doctor


def _doctor_options(command: argparse.ArgumentParser, given: Sequence[str]) -> None:
    command.add_argument("--envs", nargs="*", metavar="ENV_ID", help="check these (none given: all, minutes)")


def _doctor(args: argparse.Namespace) -> Callable[[], int]:
    from mxnb.config import canonical_env_id
    from mxnb.doctor import doctor, envs

    def machine() -> int:
        found = doctor()
        print(found)
        return 0 if found.ok else 1

    if args.envs is None:
        return machine
    from mxnb.build import make

    ids = [canonical_env_id(env_id) for env_id in args.envs]
    return lambda: 0 if envs(make, ids) else 1


if __name__ == "__main__":
    raise SystemExit(main())
