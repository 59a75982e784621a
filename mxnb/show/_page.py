"""A run on one page: what it plays, learned and was told, in a file that opens anywhere and asks no server."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mxnb.show._bars import achievements
from mxnb.show._curves import curves
from mxnb.show._figures import replace_file, to_base64
from mxnb.show._health import NO_DATA, SIGNS, Judgement, health
from mxnb.show._playback import Playback, episodes, whole_page
from mxnb.show._runs import not_whole, number, read_json, read_metrics, run_path
from mxnb.show._training import achievements_over_time, health_curves, healthy_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body { max-width: 900px; } h2 { font-size: 17px; margin: 26px 0 8px; }
img { display: block; width: 100%; max-width: 672px; height: auto; background: #fff; }
table { border-collapse: collapse; } .wide { overflow-x: auto; }
.plain th, .plain td { text-align: left; padding: 2px 14px 2px 0; vertical-align: top; overflow-wrap: break-word; }
.plain td { font-variant-numeric: tabular-nums; } .note { opacity: .75; }
.plain td:first-child, .plain td:last-child, .plain .short { white-space: nowrap; }
@media (max-width: 480px) { .plain { font-size: 12px; } .plain th, .plain td { padding-right: 8px; }
.plain td:last-child { padding-right: 0; } }
"""


def page(run_dir: Any, watched: Playback | None = None, *, seed: int = 0, max_steps: int = 500) -> Path:
    """Writes page.html into a run's folder: player, curves, health, achievements, parameters, versions.

    Args:
        run_dir: the run folder, or the `Result` of `fit`.
        watched: episodes to show; without them one is played in the world of `seed`, at most max_steps long.

    What a run does not have yet (a policy, an ended update, pictures) is said in its place. Returns the path.

    Raises FileNotFoundError where the folder has no readable config.json.
    """
    run = run_path(run_dir)
    told = read_json(run, "config.json")
    if not told:
        raise FileNotFoundError(f"no readable {run / 'config.json'}: give the folder that fit wrote to, or train first")
    title = f"{told.get('agent', 'agent')} on {told.get('env', 'its environment')}, seed {told.get('seed', '?')}"
    parts = [
        f'<p class="note">{html.escape(_state(run))}</p>',
        _section("Watch it play", lambda: (watched or _played(run, seed, max_steps)).html()),
        _section("What it learned", lambda: _image(curves(run), "learning curves of this run")),
        _section("How healthy it is", lambda: _health(run)),
        _section("How often each achievement was reached", lambda: _image(achievements(run), "achievements")),
        _section("When each was learned", lambda: _image(achievements_over_time(run), "achievements over time")),
        _section("Parameters, and where each came from", lambda: _parameters(told)),
        _section("What it ran on", lambda: _table(("", "version"), _versions(told))),
    ]
    return replace_file(run / "page.html", whole_page(title, "\n".join(parts), _STYLE).encode())


def _section(title: str, content: Callable[[], str]) -> str:
    """A part of the page; what cannot be shown is said, without its folders, and hides nothing else."""
    try:
        body = content()
    except Exception as error:  # a broken picture must not cost the page
        body = f'<p class="note">Not here: {html.escape(_brief(str(error) or type(error).__name__))}</p>'
    return f"<section>\n<h2>{html.escape(title)}</h2>\n{body}\n</section>"


def _brief(words: str) -> str:
    """Words with the last name of each path in them: a page is shared, and home folders are nobody's business."""
    return " ".join(word.rsplit("/", 2)[-1] if word.startswith("/") else word for word in words.split(" "))


def _played(run: Path, seed: int, max_steps: int) -> Playback:
    from mxnb.build import load_policy, run_env

    return episodes(load_policy(run), run_env(run)[0], 1, seed, max_steps=max_steps)


def _state(run: Path) -> str:
    """How far the run came, in a sentence."""
    status = read_json(run, "status.json").get("status", "not begun")
    try:
        rows = read_metrics(run)
    except FileNotFoundError:
        rows = []
    torn = not_whole(run, rows)
    skipped = (
        f" {torn} line{'s' * (torn != 1)} of metrics.jsonl that {'are' if torn != 1 else 'is'} not whole: skipped."
    )
    if not rows:
        return f"Status: {status}; no update has ended yet.{skipped if torn else ''}"
    steps = number(rows[-1], "timesteps") or 0
    words = f"Status: {status}, after {len(rows):,} updates and {steps:,.0f} environment steps."
    return words + (skipped if torn else "")


def _image(figure: Figure, words: str) -> str:
    return f'<img alt="{html.escape(words)}" src="data:image/png;base64,{to_base64(figure)}">'


def _health(run: Path) -> str:
    """The rules as a table that a phone holds, and below it what to do where one is broken."""
    verdicts = health(run)
    done = read_json(run, "status.json").get("status") == "done"
    rows = ((j.metric, j.number, healthy_range(j), _verdict(j, done)) for j in verdicts.judgements)
    cures = "".join(
        f"<p><b>{html.escape(j.metric)}</b>: {html.escape(j.words)} <b>Cure:</b> {html.escape(j.cure)}</p>"
        for j in verdicts.warnings
    )
    told = f"<p>{html.escape(verdicts.title)}</p>{_table(('metric', 'now', 'healthy', ''), rows)}{cures}"
    try:
        return told + _image(health_curves(run), "the metrics of the health rules over time, healthy ranges shaded")
    except ValueError:  # no rows with them yet, as the table says
        return told


def _verdict(judgement: Judgement, done: bool) -> str:
    """Its state in words; a mask that a run never told of is no mask, once nothing more can come."""
    maskless = done and judgement.state == NO_DATA and judgement.metric == "train/no_legal_action"
    return f"{SIGNS[judgement.state]} {'no mask here' if maskless else judgement.state}"


def _parameters(told: dict[str, Any]) -> str:
    config, origins = told.get("config", {}), told.get("origins", {})
    return _table(("parameter", "value", "from"), ((n, _text(v), origins.get(n) or "given") for n, v in config.items()))


def _versions(told: dict[str, Any]) -> Iterable[tuple[str, str]]:
    yield "device", str(told.get("device", "unknown"))
    yield from ((name, str(version)) for name, version in told.get("versions", {}).items())


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    # A phone would break 4.9e-06 in two at its sign.
    short = lambda x: ' class="short"' if len(str(x)) <= 12 and " " not in str(x) else ""
    cell = lambda tag, x: f"<{tag}{short(x)}>{html.escape(str(x))}</{tag}>"
    line = lambda tag, cells: "<tr>" + "".join(cell(tag, x) for x in cells) + "</tr>"
    body = "\n".join(line("td", row) for row in rows)
    return (
        f'<div class="wide"><table class="plain"><thead>{line("th", head)}</thead><tbody>{body}</tbody></table></div>'
    )
