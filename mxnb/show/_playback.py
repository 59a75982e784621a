"""Recorded episodes that play wherever they are shown: as a page without a server, as a filmstrip, as a GIF or MP4."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from mxnb.show._episodes import REWARDED, action_name, died_at, ending, filmstrip
from mxnb.show._figures import LARGE, replace_file, to_base64, to_png

_FPS = 5  # frames a second at first, and in GIF and MP4
_FRAME_BYTES = 4096  # 500 frames of this size take 2.7 MB in a page
_LARGE_BYTES = 8_000_000  # of all frames together where they are large and have words in them
_SPEEDS = (1, 2, 5, 10, 20, 40)


@dataclass(frozen=True, repr=False)
class Playback:
    """Episodes to look at; the last expression of a cell shows them.

    In a notebook it is an HTML player whose frames lie in the page: it plays while the kernel is busy, after it has
    ended, and in exported HTML. Where no script may run (GitHub), its place holds the first episode's filmstrip.
    recordings: as `mxnb.evaluate.record` returns them, each with frames. title: above the player of a saved page.
    """

    recordings: tuple[Any, ...]
    title: str = "Episodes"

    def __post_init__(self) -> None:
        if not self.recordings:
            raise ValueError("there is no episode to show; record one, or ask for n of at least 1")
        for recording in self.recordings:
            if recording.frames is None or not len(recording.frames):
                raise ValueError(
                    "the recording has no frames: record it in an environment whose render(state) gives pictures"
                )

    def html(self) -> str:
        """The player as a part of a page, which needs nothing else; the filmstrip where no script runs."""
        return self._html

    @cached_property
    def _html(self) -> str:  # a notebook shows it and then writes it into a page: pictures are encoded once
        home = files("mxnb.show")
        markup, style, script = ((home / f"player.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
        speeds = "".join(f"<option value={n}{' selected' * (n == _FPS)}>{n} a second</option>" for n in _SPEEDS)
        # A "<" in a name could end the script element, or keep it from ending.
        data = json.dumps(_data(self.recordings), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        for key, value in {"STRIP": self._strip, "SPEEDS": speeds, "DATA": data}.items():
            markup = markup.replace(f"@{key}@", value)
        return f"<style>{style}</style>\n{markup}\n<script>{script}</script>\n"

    @cached_property
    def _strip(self) -> str:
        return to_base64(filmstrip(self.recordings[0]))

    def page(self) -> str:
        """A whole HTML page with the player."""
        return whole_page(self.title, self.html())

    def save(self, path: str | os.PathLike[str], episode: int = 0) -> Path:
        """Writes what the suffix says: .html (all episodes), .png (filmstrip), .gif or .mp4 (one episode).

        Returns path. Raises ValueError for another suffix, and for .mp4 where ffmpeg is not installed.
        """
        path, recording = Path(path), self.recordings[episode]
        kind = path.suffix.lower()
        if kind == ".html":
            data = self.page().encode()
        elif kind == ".png":
            data = to_png(filmstrip(recording))
        elif kind == ".gif":
            data = _gif(np.asarray(recording.frames))
        elif kind == ".mp4":
            data = _mp4(np.asarray(recording.frames))
        else:
            raise ValueError(f"{path.name}: write .html, .png, .gif or .mp4")
        return replace_file(path, data)

    def __repr__(self) -> str:
        told = (f"{len(r.actions)} steps, return {float(np.sum(r.rewards)):.2f}" for r in self.recordings)
        return f"{self.title}: {'; '.join(told)}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self), "image/png": self._strip, "text/html": self.html()}


def whole_page(title: str, body: str, style: str = "") -> str:
    """An HTML page that needs no other file; title is text, body and style are what stands in the page."""
    base = (
        ":root { color-scheme: light dark; } body { margin: 12px; font: 15px/1.5 system-ui, sans-serif; } "
        "h1 { font-size: 20px; overflow-wrap: anywhere; } "
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{base}{style}</style>\n</head>\n"
        f"<body>\n<h1>{html.escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def episodes(
    policy: Any, env: Any, n: int = 1, seed: int = 0, *, greedy: bool = False, max_steps: int = 500
) -> Playback:
    """Plays n episodes, the first of them in the world of `seed`, at most max_steps long, and shows them.

    Raises ValueError where n is below 1 or the environment draws no pictures.
    """
    import jax

    from mxnb.evaluate import record

    if n < 1:
        raise ValueError(f"n is {n}; ask for at least one episode")
    keys = [jax.random.fold_in(jax.random.key(seed), i) if i else jax.random.key(seed) for i in range(n)]
    played = [record(policy, env, key, greedy=greedy, max_steps=max_steps) for key in keys]
    if played[0].frames is None:
        raise ValueError(f"{env.spec.id} draws no pictures: its render(state) is None, so there is nothing to watch")
    return Playback(tuple(played), f"{env.spec.id}, {'greedy' if greedy else 'sampled'}, seed {seed}")


def events(recording: Any) -> list[tuple[int, str]]:
    """(step, words) of what is worth jumping to, in order: achievements, new stages, large rewards, and the end.

    The step is that of the action which did it; a death and the end are at the frame that shows them first.
    """
    from mxnb.evaluate import REACHED

    stages = np.asarray(recording.infos.get("stage", ()))
    found = [
        (int(when), name.replace("_", " "))
        for name, when in achieved(recording).items()
        if when is not None and not (name.startswith(REACHED) and len(stages))
    ]
    found += [(int(t) + 1, f"stage {stages[t + 1]:g}") for t in np.flatnonzero(np.diff(stages) > 0)]
    rewards = np.asarray(recording.rewards)
    paid, told = np.flatnonzero(rewards >= REWARDED), {step for step, _ in found}
    if len(paid) <= len(rewards) / 2:  # where most steps pay, a reward is no event
        found += [(int(t), f"reward {rewards[t]:+.3g}") for t in paid if t not in told]
    died = died_at(recording)
    found += [(died, "death")] if died is not None and died < len(rewards) else []
    found.append((len(rewards), ending(recording)))
    return sorted(found)


def achieved(recording: Any) -> dict[str, int | None]:
    """Achievement -> the step whose action earned it, None where it was not. They are the infos that are 0 or 1."""
    from mxnb.evaluate import NUMBERS

    flags = {k: np.asarray(v) for k, v in recording.infos.items() if "/" not in k and k not in NUMBERS}
    flags = {k: v for k, v in flags.items() if len(v) and np.isin(v, (0.0, 1.0)).all()}
    return {k: int(v.argmax()) if v.any() else None for k, v in flags.items()} if len(flags) > 1 else {}


def _data(recordings: Sequence[Any]) -> dict[str, Any]:
    """What the script reads: pictures once each, and every episode's numbers by step."""
    pictures: dict[bytes, Any] = {}  # each picture's bytes -> the picture; a dict keeps their order
    for recording in recordings:
        pictures.update((frame.tobytes(), frame) for frame in np.asarray(recording.frames))
    place = {key: i for i, key in enumerate(pictures)}
    names = list(dict.fromkeys(name for recording in recordings for name in achieved(recording)))
    told = [_episode(i, recording, place, names) for i, recording in enumerate(recordings)]
    first = recordings[0]
    count = np.shape(first.probs)[-1] if np.ndim(first.probs) == 2 else 0
    return {
        "large": LARGE,
        "actions": [action_name(first.action_names, i) for i in range(count)],
        "achievements": [name.replace("_", " ") for name in names],
        "pictures": [base64.b64encode(picture).decode() for picture in _pictures(list(pictures.values()))],
        "episodes": told,
    }


def _episode(index: int, recording: Any, place: dict[bytes, int], names: Sequence[str]) -> dict[str, Any]:
    frames = [place[frame.tobytes()] for frame in np.asarray(recording.frames)]
    probs, actions = np.asarray(recording.probs), np.asarray(recording.actions)
    discrete = probs.ndim == 2 and probs.shape[-1] > 0
    total, masks, got = float(np.sum(recording.rewards)), recording.masks, achieved(recording)
    return {
        "name": f"{index + 1}: {len(actions)} steps, return {total:.2f}",
        "frames": frames,
        "actions": actions.tolist() if discrete else None,
        "moves": None if discrete else [", ".join(f"{x:.3g}" for x in np.atleast_1d(a)) for a in actions],
        "rewards": _rounded(recording.rewards),
        "values": _rounded(recording.values) if np.any(recording.values) else None,  # a random policy has none
        "entropies": _rounded(recording.entropies),
        "probs": [_rounded(row) for row in probs] if discrete else None,
        "masks": None if masks is None else ["".join("01"[int(x)] for x in row) for row in np.asarray(masks)],
        "events": events(recording),
        "got": [got.get(name) for name in names],
        "end": ending(recording),
        "total": total if np.isfinite(total) else None,
    }


def _rounded(values: Any) -> list[float | None]:
    """Three digits behind the point; None where it is not finite, which JSON cannot say."""
    return [round(float(x), 3) if np.isfinite(x) else None for x in np.asarray(values, float)]


def _pictures(frames: Any) -> list[bytes]:
    """As WebP, without loss where that is small; noise (Craftax's night) is kept to what the eye sees.

    On average none takes more than _FRAME_BYTES, or a large one than a tenth of a byte for each pixel while all stay
    below _LARGE_BYTES, as long as that is possible at all.
    """
    most = max(_FRAME_BYTES, min(frames[0].shape[0] * frames[0].shape[1] // 10, _LARGE_BYTES // len(frames)))
    exact = [encoded(frame, "webp", lossless=True, quality=50, method=3) for frame in frames]
    for quality in (60, 40, 20, 5):
        found = [
            x if len(x) <= most else encoded(f, "webp", quality=quality) for x, f in zip(exact, frames, strict=True)
        ]
        if sum(map(len, found)) <= most * len(found):
            break
    return found


def encoded(frame: Any, kind: str, **options: Any) -> bytes:
    """A picture uint8[H, W, 3] as the bytes of a file of that kind."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(frame).save(data, kind, **options)
    return data.getvalue()


def enlarged(frames: np.ndarray, least: int = LARGE) -> np.ndarray:
    """Pictures at whole multiples of their pixels, at least `least` wide."""
    times = max(1, -(-least // frames.shape[2]))
    return frames.repeat(times, 1).repeat(times, 2)


def _gif(frames: np.ndarray) -> bytes:
    from PIL import Image

    images = [Image.fromarray(frame) for frame in enlarged(frames)]
    data = io.BytesIO()
    images[0].save(data, "gif", save_all=True, append_images=images[1:], duration=1000 // _FPS, loop=0)
    return data.getvalue()


def _mp4(frames: np.ndarray) -> bytes:
    """H.264 by ffmpeg, which reads raw pictures from its input."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise ValueError("an MP4 needs ffmpeg, which is not installed; install it, or save .gif or .html instead")
    import tempfile

    frames = enlarged(frames)
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)))  # it wants even sides
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "episode.mp4"
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{frames.shape[2]}x{frames.shape[1]}", "-r", str(_FPS)]
        command = [program, "-loglevel", "error", *source, "-i", "-", "-pix_fmt", "yuv420p", str(target)]
        done = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"ffmpeg failed: {done.stderr.decode(errors='replace').strip()}")
        return target.read_bytes()
