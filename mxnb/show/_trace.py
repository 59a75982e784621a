"""Where a compiled program's time goes: a profiler's trace, added up by the functions that the operations came from."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mxnb.show._bars import percent
from mxnb.show._figures import BLUE, INK, SMALL, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OTHER = "no source named"
_MANY = 10  # bars
_COPIES = "copies (the compiler's own)"
# A line of a program's text: an operation, its kind, the fused ones inside, and where it came from. Older compilers
# name the file, newer ones a frame of a table at the text's top.
_OPERATION = re.compile(r"\s*(?:ROOT )?%?([\w.-]+) = .*? ([a-z-]+)\(")
_INSIDE = re.compile(r"calls=%?([\w.-]+)")
_SOURCE = re.compile(r'metadata=\{[^}]*?(?:source_file="([^"]*)"|stack_frame_id=(\d+))')
_COMPUTATION = re.compile(r"%?([\w.-]+) \(.*\{")
_ROW = re.compile(r"(\d+) (?:\"(.*)\"|\{(.*)\})")


def trace(folder: str | Path, program: Any = None) -> Figure:
    """Draw what the newest trace in a folder spent its time on: one bar per function, in percent of the device's time.

    Args:
        folder: what `jax.profiler.trace(folder)` wrote to.
        program: the compiled program that ran (`as_text()`): its operations are added up by the function of mxnb that
            they came from, or, with compilers that tell no more, by the file. None: by the operation's name.

    The time of an operation is its own, without that of operations inside it; loops and branches count for what is in
    them. On a CPU several threads work at once, and their times are added.

    Raises ValueError where there is no trace, or none of a device's operations in it.
    """
    spent = _spent(_events(Path(folder)), _sources(program.as_text()) if program is not None else None)
    total = sum(spent.values())
    if not total:
        raise ValueError(
            f"no operation of a device in {folder}: let the traced code wait for the result (block_until_ready)"
        )
    first = sorted(spent, key=lambda name: -spent[name])[:_MANY]
    shares = {name: spent[name] / total for name in first}
    if len(spent) > len(first):
        shares[f"{len(spent) - len(first)} others"] = 1 - sum(shares.values())
    fig = new_figure(height=0.85 + 0.24 * len(shares))
    ax = fig.subplots()
    style(ax, "Where the time goes", "% of the time in operations")
    ax.barh(range(len(shares)), [100 * share for share in shares.values()], 0.74, color=BLUE)
    for i, share in enumerate(shares.values()):
        place = (100 * share, i)
        ax.annotate(percent(share), place, (3, 0), textcoords="offset points", va="center", fontsize=SMALL, color=INK)
    ax.set_yticks(range(len(shares)), list(shares))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(shares) - 0.4, -0.6)
    ax.set_xlim(0, 118 * max(shares.values()))
    ax.spines["left"].set_visible(False)
    return fig


def _events(folder: Path) -> list[dict[str, Any]]:
    found = sorted(folder.rglob("*.trace.json.gz"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ValueError(f"no trace in {folder}: run the program inside `with jax.profiler.trace({str(folder)!r}):`")
    with gzip.open(found[-1]) as file:
        events = json.load(file)["traceEvents"]
    return [e for e in events if e.get("ph") == "X" and "hlo_op" in e.get("args", {})]


def _spent(events: Iterable[dict[str, Any]], sources: tuple[dict[str, str], set[str]] | None) -> dict[str, float]:
    """Microseconds by source (by the operation's kind without sources): each event's time less that of those inside."""
    named, loops = sources or ({}, set())
    threads: dict[Any, list[dict[str, Any]]] = {}
    for event in events:
        threads.setdefault((event["pid"], event["tid"]), []).append(event)
    spent: dict[str, float] = {}
    for thread in threads.values():
        inside: list[tuple[float, str]] = []  # those still open: when they end, and whose time they are
        for event in sorted(thread, key=lambda e: (e["ts"], -e["dur"])):
            while inside and inside[-1][0] <= event["ts"]:
                inside.pop()
            operation, took = event["args"]["hlo_op"], event["dur"]
            kind = operation.split(".")[0]
            whose = "" if operation in loops or kind in ("while", "conditional") else named.get(operation, _OTHER)
            whose = kind if whose and sources is None else whose
            for name, sign in ((whose, 1), (inside[-1][1] if inside else "", -1)):
                if name:
                    spent[name] = spent.get(name, 0.0) + sign * took
            inside.append((event["ts"] + took, whose))
    return {name: time for name, time in spent.items() if time > 0}


def _sources(text: str) -> tuple[dict[str, str], set[str]]:
    """(operation -> where it came from, names of loops and branches) of a compiled program's text."""
    frames = _frames(text)
    named: dict[str, str] = {}
    loops: set[str] = set()
    within, first = "", {}  # the computation that a line stands in; of each, the first source that is known
    for line in text.splitlines():
        if begins := _COMPUTATION.match(line):
            within = begins[1]
        operation = _OPERATION.match(line)
        if operation is None:
            continue
        name, kind = operation.groups()
        if kind in ("while", "conditional"):
            loops.add(name)
        source, inside = _SOURCE.search(line), _INSIDE.search(line)
        words = (_short(source[1]) if source[1] else frames.get(source[2], "")) if source else ""
        words = words or (first.get(inside[1], "") if inside else "")
        if words:
            named[name] = words
            first.setdefault(within, words)
        elif kind.startswith("copy"):
            named[name] = _COPIES
    return named, loops


def _frames(text: str) -> dict[str, str]:
    """Number of a stack of frames -> its innermost function of mxnb; else the innermost of all."""
    files, functions, places, frames = (_table(text, name) for name in _TABLES)
    offset = 1 if frames.get("1", {}).get("parent_frame_id") == "1" else 0  # some count parents from one

    def owner(frame: str) -> str:
        first, steps = "", 0
        while frame in frames and steps < 200:
            place = places.get(frames[frame].get("file_location_id", ""), {})
            file = files.get(place.get("file_name_id", ""), "")
            function = functions.get(place.get("function_name_id", ""), "").split(".<locals>")[0]
            words = f"{_short(file)} {function}".strip()
            if _own(file):
                return words
            first, steps = first or words, steps + 1
            frame = str(int(frames[frame].get("parent_frame_id", "0")) - offset)
        return first

    return {frame: owner(frame) for frame in frames}


_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


def _table(text: str, name: str) -> dict[str, Any]:
    """One of the tables at the top of a program's text: number -> a name, or a record of numbers."""
    begin = text.find(f"\n{name}\n")
    rows: dict[str, Any] = {}
    for line in text[begin + len(name) + 2 :].splitlines() if begin >= 0 else ():
        row = _ROW.fullmatch(line.strip())
        if row is None:
            break
        number, word, record = row.groups()
        rows[number] = word if record is None else dict(pair.split("=") for pair in record.split())
    return rows


def _short(file: str) -> str:
    """A source's path from its package on."""
    parts = Path(file).parts
    return "/".join(parts[-2:] if _own(file) else parts[-1:])


def _own(file: str) -> bool:
    """Whether a source is mxnb's: in its package, not only below a clone of that name."""
    parts = Path(file).parts
    last = lambda name: max((i for i, part in enumerate(parts) if part == name), default=-1)
    return last("mxnb") > max(last("site-packages"), last("dist-packages"))
