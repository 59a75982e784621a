"""An episode on paper: the frames that matter with action and value below, and what a mask looks like."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mxnb.show._bars import percent
from mxnb.show._figures import BLUE, DPI, FONT, GREY, INK, LARGE, ORANGE, SMALL, WIDTH, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REWARDED = 0.5  # from this reward on a step is worth a frame of its own (an achievement in Craftax is 1)
_EXTRA = 24
_GAP = 0.06  # inches between pictures


def filmstrip(recording: Any, *, columns: int | None = None, frames: int = 8) -> Figure:
    """Draw an episode as frames with step, action, value and reward below each; a frame is before its action.

    Shown are `frames` evenly spaced ones from first to last, and those whose action earned a reward of at
    least 0.5 (with an orange rim; at most 24 of them, and none where more than half of the steps do, for then
    it is no event).

    Args:
        recording: has `frames` uint8[T + 1, H, W, 3], `actions` int[T], `rewards` float[T], `values` float[T],
            `action_names` (one word per action, or () for indices).
        columns: frames beside each other; None for what is legible on a phone, 4, or 2 of more than 240 pixels.
        frames: evenly spaced frames.

    Raises:
        ValueError: there are no frames (the environment has no `render`), or lengths do not match.
    """
    if (columns is not None and columns < 1) or frames < 1:
        raise ValueError(f"columns is {columns} and frames is {frames}; both must be at least 1.")
    pictures = None if recording.frames is None else np.asarray(recording.frames)
    if pictures is None or pictures.ndim != 4 or len(pictures) == 0:
        raise ValueError("the recording has no frames: record it in an environment whose render(state) gives pictures.")
    steps = len(recording.actions)
    if not len(pictures) == steps + 1 == len(recording.rewards) + 1 == len(recording.values) + 1:
        raise ValueError(
            f"{len(pictures)} frames, {steps} actions, {len(recording.rewards)} rewards and {len(recording.values)} "
            "values; T steps have T + 1 frames and T of each of the others."
        )
    columns = columns or (2 if pictures.shape[2] > LARGE else 4)
    chosen = choose_frames(np.asarray(recording.rewards), frames)
    paid = np.asarray(recording.rewards) >= REWARDED
    rims = {t for t in chosen if t < steps and paid[t]} if paid.sum() <= steps / 2 else set()
    captions = [_caption(recording, t, int(14.2 * _cell(pictures[0], columns))) for t in chosen]
    words = f"orange rim: this action earned {REWARDED:g} or more" if rims and min(columns, len(chosen)) > 1 else ""
    return _sheet([pictures[t] for t in chosen], captions, columns, [t in rims for t in chosen], words)


def pictures(frames: Sequence[Any], captions: Sequence[str] = (), *, columns: int = 2) -> Figure:
    """Draw pictures of one size beside and below each other, each with its words below it.

    Args:
        frames: uint8[H, W, 3] each, as an environment's `render(state)` gives them.
        captions: words for each; () for none. Long ones are broken.
        columns: pictures that share the width. One of more than 240 pixels is never made larger than it is.

    Raises:
        ValueError: no pictures, pictures of different sizes, or another number of captions.
    """
    shown = [np.asarray(frame) for frame in frames]
    if not shown or len({frame.shape for frame in shown}) > 1 or shown[0].ndim != 3 or columns < 1:
        raise ValueError(f"give pictures [H, W, 3] of one size; got {[frame.shape for frame in shown]}")
    if captions and len(captions) != len(shown):
        raise ValueError(f"{len(shown)} pictures and {len(captions)} captions; give one each")
    width = max(8, int(14.2 * _cell(shown[0], columns)))
    return _sheet(shown, ["\n".join(textwrap.wrap(c, width)) for c in captions or [""] * len(shown)], columns)


def _cell(frame: np.ndarray, columns: int) -> float:
    """Inches from one picture to the next: the share of the width, or less where a large frame would be enlarged."""
    share, own = WIDTH / columns, frame.shape[1] / DPI + _GAP
    return min(share, own) if frame.shape[1] > LARGE else share


def _sheet(
    frames: Sequence[np.ndarray], captions: Sequence[str], columns: int, rims: Sequence[bool] = (), words: str = ""
) -> Figure:
    """Frames of one size in rows, each with its caption below; `words` above all."""
    # Every place is computed, not left to a layout engine: those cut captions below pictures of a fixed aspect.
    cell, head, wide = _cell(frames[0], columns), 0.24 if words else 0.06, min(columns, len(frames))
    width = cell - _GAP
    picture = width * frames[0].shape[0] / frames[0].shape[1]
    lines = max(text.count("\n") + 1 if text else 0 for text in captions)
    pitch = picture + (0.14 * lines + 0.14 if lines else _GAP)
    across, down = wide * cell, head + math.ceil(len(frames) / wide) * pitch
    fig = new_figure(height=down, width=across)
    fig.set_layout_engine("none")
    for place, (frame, caption) in enumerate(zip(frames, captions, strict=True)):
        row, column = divmod(place, wide)
        left, bottom = column * cell + _GAP / 2, down - head - row * pitch - picture
        ax = fig.add_axes((left / across, bottom / down, width / across, picture / down))
        _picture(ax, frame, width, rim=bool(rims) and rims[place])
        ax.set_xlabel(caption, fontsize=SMALL, color=INK, labelpad=3, linespacing=1.15)
    if words:
        fig.text(_GAP / 2 / across, 1 - 0.04 / down, words, fontsize=SMALL, color=INK, va="top")
    return fig


def choose_frames(rewards: np.ndarray, frames: int) -> list[int]:
    """Indices into T + 1 frames, ascending: evenly spaced ones and the rewarded steps (see `filmstrip`)."""
    steps = len(rewards)
    even = np.linspace(0, steps, min(frames, steps + 1)).round().astype(int)
    events = np.flatnonzero(np.asarray(rewards) >= REWARDED)
    if len(events) > steps / 2:
        events = events[:0]
    if len(events) > _EXTRA:
        events = events[np.linspace(0, len(events) - 1, _EXTRA).round().astype(int)]
    return sorted({*even.tolist(), *events.tolist()})


def write_png(recording: Any, path: str | os.PathLike[str], *, columns: int | None = None, frames: int = 8) -> Path:
    """Write the filmstrip of an episode; a reader of the file never sees a part of it. Returns the path."""
    return save(filmstrip(recording, columns=columns, frames=frames), path)


def mask_picture(
    frame: Any,
    mask: Any,
    action_names: Sequence[str] = (),
    probs: Any = None,
    reasons: Mapping[str, str] | None = None,
    *,
    before: Any = None,
) -> Figure:
    """Draw a state's picture beside its actions: legal ones in colour, masked ones grey and crossed out.

    Args:
        frame: uint8[H, W, 3], or None when the environment has no picture.
        mask: bool[n], True = legal; None when every action is.
        action_names: n words; () shows indices.
        probs: float[n], the policy's probabilities: then the bars show them, and masked ones are exactly 0.
        reasons: why an action is masked, by its name, in a word or three.
        before: float[n], earlier probabilities: an outlined bar around the one of `probs`, and both numbers.

    Raises:
        ValueError: lengths do not match, or neither mask, names nor probs say how many actions there are.
    """
    if before is not None and probs is None:
        raise ValueError("before are earlier probabilities; give those of now as probs.")
    sizes = {len(x) for x in (mask, action_names or None, probs, before) if x is not None}
    if len(sizes) != 1:
        raise ValueError(f"mask, action_names and probs have {sorted(sizes) or 'no'} entries; give one per action.")
    (n,) = sizes
    legal = np.ones(n, bool) if mask is None else np.asarray(mask, bool)
    shares = None if probs is None else np.asarray(probs, float)
    fig = new_figure(height=max(0.0 if frame is None else 2.5, 0.8 + 0.19 * n))
    if frame is None:
        bars = fig.subplots()
    else:
        picture, bars = fig.subplots(1, 2, width_ratios=(1.0, 1.05))
        _picture(picture, np.asarray(frame), 0.4 * WIDTH)  # what the names of the actions leave of one half
        picture.set_title("The state", fontsize=FONT + 0.5, fontweight="bold", loc="left", color=INK)
        picture.set_anchor("N")
    style(bars, f"{int(legal.sum())} of {n} actions legal", "" if shares is None else "probability (%)")
    end = 1.0 if shares is None else max(0.05, float(np.max([shares, shares if before is None else before])))
    for i in range(n):
        if legal[i]:
            width = end * 0.45 if shares is None else shares[i]
            bars.barh(i, width, 0.72, color=BLUE)
            text = "legal" if shares is None else percent(width)
            if before is not None:
                bars.barh(i, before[i], 0.82, facecolor="none", edgecolor=INK, linewidth=0.9)
                width, text = max(width, before[i]), f"{percent(float(before[i])).removesuffix(' %')} → {text}"
        else:
            bars.barh(i, end * 0.02, 0.72, color="#D0D0D0")
            name = str(action_names[i]) if len(action_names) > i else ""
            width, text = end * 0.02, f"✕ {(reasons or {}).get(name, 'masked')}"
        look: dict[str, Any] = {"color": INK} if legal[i] else {"color": GREY, "style": "italic"}
        bars.annotate(text, (width, i), (3, 0), textcoords="offset points", va="center", fontsize=SMALL, **look)
    bars.set_xlim(0, end * (1.3 if before is None else 1.5))
    bars.set_ylim(max(n, 8) - 0.4, -0.6)  # few actions keep thin bars
    bars.set_yticks(range(n), [action_name(action_names, i) for i in range(n)])
    bars.tick_params(axis="y", length=0)
    for label, open_ in zip(bars.get_yticklabels(), legal, strict=True):
        label.set_color(INK if open_ else GREY)
    bars.spines["left"].set_visible(False)
    if shares is None:
        bars.set_xticks([])
        bars.spines["bottom"].set_visible(False)
    else:
        bars.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
        bars.locator_params(axis="x", nbins=4)
    return fig


def action_name(names: Sequence[str], action: int) -> str:
    """The word for an action, or its number where the environment has none; a name in capitals stays as it is."""
    name = str(names[action]) if len(names) > action else f"action {action}"
    return name if name.isupper() else name.replace("_", " ")


def action_words(recording: Any, t: int) -> str:
    """The action of step t in words; a continuous one in numbers."""
    action = np.asarray(recording.actions[t])
    if np.issubdtype(action.dtype, np.integer):
        return action_name(recording.action_names, int(action))
    return ", ".join(f"{x:.2f}" for x in np.atleast_1d(action))


def died_at(recording: Any) -> int | None:
    """The first frame after a death, where the environment tells of deaths; empty steps may follow it."""
    deaths = np.asarray(getattr(recording, "infos", {}).get("cause/death", ())) > 0
    return int(deaths.argmax()) + 1 if deaths.any() else None


def ending(recording: Any) -> str:
    """How an episode ended, in a word or two."""
    died = died_at(recording)
    if died is not None and died < len(recording.rewards):
        return f"dead for {len(recording.rewards) - died} steps"
    told = {name: values[-1] for name, values in getattr(recording, "infos", {}).items() if "cause/" in name}
    causes = [name.removeprefix("cause/") for name, value in told.items() if value > 0]
    words = {"limit": "time limit", "alive": "not over"}
    if causes:
        return words.get(causes[0]) or str(causes[0])
    ended, cut = getattr(recording, "terminated", False), getattr(recording, "truncated", False)
    return "the end" if ended else "time limit" if cut else "not over"


def _caption(recording: Any, t: int, width: int) -> str:
    if t == len(recording.actions):
        return f"step {t}: {ending(recording)}\nreturn {float(np.sum(recording.rewards)):.1f}"
    name = action_words(recording, t)
    reward = float(recording.rewards[t])
    lines = [f"step {t}", *textwrap.wrap(name, max(8, width))]
    if np.any(recording.values):  # a random policy has no estimate
        lines.append(f"V = {float(recording.values[t]):.2f}")
    if abs(reward) >= 0.005:
        lines.append(f"reward {reward:+.2g}")
    return "\n".join(lines)


def _picture(ax: Any, frame: np.ndarray, inches: float, rim: bool = False) -> None:
    """A frame with whole pixels; one larger than its place is averaged, for nearest would drop lines."""
    fits = frame.shape[1] <= inches * DPI + 0.5
    ax.imshow(frame, interpolation="nearest" if fits else "antialiased")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(color=ORANGE if rim else "#BBBBBB", linewidth=2.2 if rim else 0.6)
