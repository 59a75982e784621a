"""Episodes on demand, in a notebook with a live kernel: roll one out, play Craftax yourself, hand over to the agent.

ipywidgets 7.7.1 (as on Colab) and 8. Where nobody can click (papermill, a script) the functions give a `Playback`.
"""

from __future__ import annotations

import base64
import html
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mxnb.show._episodes import action_name, action_words
from mxnb.show._figures import in_notebook
from mxnb.show._playback import encoded, ending, enlarged, episodes
from mxnb.show._runs import checkpoints, run_path

_KEYS = {"noop": ".", "left": "a", "right": "d", "up": "w", "down": "s", "do": "e"}
_NEWEST = "newest"
_ON = 200  # steps that the agent plays when it is told to play on


def player(
    run: Any, *, checkpoint: int | str | None = None, seed: int = 0, greedy: bool = False, max_steps: int = 300
) -> Any:
    """Widgets that roll out a run's policy: choose checkpoint, seed and how it acts, press "roll out", then play.

    Args:
        run: the run folder, or the `Result` of `fit`; its environment must be one that `mxnb.make` knows.
        checkpoint: as in `mxnb.load_policy`; the choice is between the newest policy, "best" and what is still there.

    Where no front end lives: the `Playback` of one such episode. Raises FileNotFoundError for a run without a policy.
    """
    from mxnb.build import load_policy, run_env

    folder = run_path(run)
    policy, (env, _) = load_policy(folder, checkpoint), run_env(folder)
    if not in_notebook():
        return episodes(policy, env, 1, seed, greedy=greedy, max_steps=max_steps)
    return Roller(folder, env, checkpoint, seed, greedy, max_steps)


class Screen:
    """A picture, a slider and a play button over frames that are in the kernel; words below."""

    def __init__(self) -> None:
        import ipywidgets as w

        self.frames: list[bytes] = []
        self.words: list[str] = []
        self.picture = w.Image(format="png")
        self.said = w.HTML()
        self.play = w.Play(min=0, max=0, interval=200)
        self.slider = w.IntSlider(min=0, max=0, description="step", readout=False)
        # Frames come from the kernel, so the two are joined there: jslink has been broken on Colab before.
        w.link((self.play, "value"), (self.slider, "value"))
        self.slider.observe(lambda change: self._draw(), "value")
        self.box = w.VBox([self.picture, self.said, w.HBox([self.play, self.slider])])

    def show(self, frames: Sequence[Any], words: Sequence[str], at: int = 0) -> None:
        """Other frames, with a line of words each; begins at `at`."""
        large = enlarged(np.stack(frames))
        self.frames, self.words = [encoded(frame, "png") for frame in large], list(words)
        self.picture.width = large.shape[2]  # as it is: scaled by a part, its words lose strokes
        for control in (self.play, self.slider):
            control.value = 0
            control.max = len(self.frames) - 1
        self.play.value = self.slider.value = at
        self._draw()

    def _draw(self) -> None:
        if self.frames:
            step = min(self.slider.value, len(self.frames) - 1)
            self.picture.value, self.said.value = self.frames[step], self.words[step]


class Roller:
    """What `player` shows; `roll()` is its button."""

    def __init__(
        self, folder: Path, env: Any, checkpoint: int | str | None, seed: int, greedy: bool, max_steps: int
    ) -> None:
        import ipywidgets as w

        self.folder, self.env, self.max_steps = folder, env, max_steps
        self.shown: Any = None
        words = lambda n: n if n == "best" else f"update {n:,}"
        # None as a value would mean that nothing is chosen.
        choices = [(_NEWEST, _NEWEST), *((words(n), n) for n in checkpoints(folder))]
        self.which = w.Dropdown(options=choices, value=_NEWEST if checkpoint is None else checkpoint)
        self.which.description = "policy"
        self.seed = w.BoundedIntText(value=seed, min=0, max=2**31 - 1, description="seed")
        self.greedy = w.Checkbox(value=greedy, description="greedy (no draws)", indent=False)
        self.button = w.Button(description="roll out", button_style="primary")
        self.button.on_click(lambda _: self.roll())
        self.screen = Screen()
        controls = w.HBox([self.which, self.seed, self.greedy, self.button])
        controls.layout.flex_flow = "row wrap"
        self.box = w.VBox([controls, self.screen.box])
        self.roll()

    def roll(self) -> None:
        """Plays an episode of what is chosen, and shows its first frame; a mistake is told in its place."""
        from mxnb.build import load_policy

        self.button.disabled = True
        self.screen.said.value = "playing ..."
        try:
            policy = load_policy(self.folder, None if self.which.value == _NEWEST else self.which.value)
            shown = episodes(policy, self.env, 1, self.seed.value, greedy=self.greedy.value, max_steps=self.max_steps)
            self.shown, recording = shown, shown.recordings[0]
            self.screen.show(recording.frames, spoken(recording))
        except Exception as error:  # a click has no traceback to show
            self.screen.said.value = html.escape(f"{type(error).__name__}: {error}")
        finally:
            self.button.disabled = False

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, and for places without one the episode that it shows now."""
        live = bundle(self.box, **options)
        still = self.shown._repr_mimebundle_() if self.shown is not None else {}
        return (still | live[0], *live[1:]) if isinstance(live, tuple) else still | live


def spoken(recording: Any) -> list[str]:
    """A line for each frame: step, the action about to be taken, its reward, value."""
    lines = []
    for t, reward in enumerate(recording.rewards):
        parts = [f"<b>step {t} of {len(recording.rewards)}:</b> {html.escape(action_words(recording, t))}"]
        parts += [f"reward {reward:+.2f}"] if reward else []
        parts += [f"value {recording.values[t]:.2f}"] if np.any(recording.values) else []
        lines.append(" · ".join(parts))
    return [*lines, f"<b>step {len(lines)}:</b> {ending(recording)}, return {float(np.sum(recording.rewards)):.2f}"]


def bundle(widget: Any, **options: Any) -> Any:
    """What a front end shows of a widget, in ipywidgets 7 and 8."""
    if hasattr(widget, "_repr_mimebundle_"):
        return widget._repr_mimebundle_(**options)
    return {"text/plain": repr(widget), "application/vnd.jupyter.widget-view+json": {
        "version_major": 2, "version_minor": 0, "model_id": widget._model_id}}  # fmt: skip


def take_over(run: Any, env: Any = None, *, seed: int = 0, greedy: bool = False) -> Any:
    """Play yourself: a button and a key for each action, illegal ones disabled; then hand the state to the agent.

    Args:
        run: a run folder (or the `Result` of `fit`), or a `Policy`.
        env: with a policy, the environment; a run knows its own.

    The agent takes over with an empty memory: what you did is none of its experience. Where no front end lives: the
    `Playback` of an episode of the agent alone.
    """
    from mxnb.evaluate import check_fit

    if hasattr(run, "act") != (env is not None):
        raise ValueError("give take_over(run) a run folder or a Result, or take_over(policy, env) both")
    if env is None:
        from mxnb.build import load_policy, run_env

        folder = run_path(run)
        policy, env = load_policy(folder), run_env(folder)[0]
    else:
        policy = run
        check_fit(policy, env)
    if not env.spec.num_actions:
        raise ValueError(f"{env.spec.id} has continuous actions; there is no button for each of them")
    if not in_notebook():
        return episodes(policy, env, 1, seed, greedy=greedy)
    return Game(policy, env, seed, greedy)


class Game:
    """What `take_over` shows; `act(i)` is a button, `agent(n)` lets the agent play n steps, `restart()` begins anew."""

    def __init__(self, policy: Any, env: Any, seed: int, greedy: bool) -> None:
        import ipywidgets as w
        import jax

        self.policy, self.env, self.greedy, self.count = policy, env, greedy, seed
        self._reset, self._step = jax.jit(env.reset), jax.jit(env.step)
        self._mask, self._act = jax.jit(env.action_mask), jax.jit(policy.act)
        names = [action_name(env.spec.action_names, i) for i in range(env.spec.num_actions)]
        self.keys = keys_of(names)
        self.screen = Screen()
        self.buttons = [w.Button(description=f"{name} ({key})") for name, key in zip(names, self.keys, strict=True)]
        for i, button in enumerate(self.buttons):
            button.layout.width = "150px"
            button.on_click(lambda _, i=i: self._told(lambda: self.act(i)))
        self.typed = w.Text(placeholder="or click here and type", description="keys", continuous_update=True)
        self.typed.observe(self._type, "value")
        hand = [("agent: one step", lambda: self.agent(1)), ("agent: play on", lambda: self.agent(_ON))]
        hand.append(("new world", self.restart))
        self.others = [w.Button(description=words, button_style="primary") for words, _ in hand]
        for button, (_, job) in zip(self.others, hand, strict=True):
            button.on_click(lambda _, job=job: self._told(job))
        wrap = w.Layout(display="flex", flex_flow="row wrap")
        parts = [self.screen.box, w.HBox(self.buttons, layout=wrap), self.typed, w.HBox(self.others, layout=wrap)]
        self.box = w.VBox(parts)
        self.restart()
        self.screen.slider.observe(lambda change: self._choices(), "value")

    def restart(self) -> None:
        """Another world, and an empty box of typed keys."""
        import jax

        self.key = jax.random.key(self.count)
        self.count += 1
        self.obs, self.state = self._reset(self._draw())
        self.steps, self.total, self.over, self.memory = 0, 0.0, False, None
        self.typed.value = ""
        self._show([self._frame()], ["<b>step 0:</b> your turn"])

    def act(self, action: int) -> None:
        """One step with this action, unless it is illegal or the episode is over."""
        if self.over or not self.legal()[action]:
            return
        self.memory = None
        words = self._take(action, "you")
        self._show([self._frame()], [words])

    def agent(self, steps: int) -> None:
        """The agent plays up to that many steps from here; the slider then goes back through them."""
        if self.over:
            return
        self._open(np.zeros(len(self.buttons), bool), others=False)  # clicks made meanwhile would queue up
        self.screen.said.value = "the agent is playing ..."
        if self.memory is None:
            self.memory = self.policy.memory(self.policy.params)
        frames, words = [self._frame()], ["the agent's turn"]
        for _ in range(steps):
            key = None if self.greedy else self._draw()
            mask = self._mask(self.state)
            action, self.memory, _ = self._act(self.policy.params, self.obs, mask, self.memory, key)
            words.append(self._take(int(action), "agent"))
            frames.append(self._frame())
            if self.over:
                break
        self._show(frames, words, at=len(frames) - 1)

    def _told(self, job: Any) -> None:
        """Does what a click asks for; what goes wrong is told below the picture, for a click has no traceback."""
        try:
            job()
        except Exception as error:
            self.screen.said.value = html.escape(f"{type(error).__name__}: {error}")

    def legal(self) -> np.ndarray:
        """bool[n]: what may be done now; nothing once the episode is over."""
        mask = self._mask(self.state)
        return np.ones(len(self.buttons), bool) if mask is None else np.asarray(mask)

    def _take(self, action: int, who: str) -> str:
        out = self._step(self._draw(), self.state, action)
        self.obs, self.state = out[0], out[1]
        reward, self.over = float(out[2]), bool(out[3] | out[4])
        self.steps, self.total = self.steps + 1, self.total + reward
        name = html.escape(action_name(self.env.spec.action_names, action))
        end = " · <b>the end</b>" if self.over else ""
        return f"<b>step {self.steps}:</b> {who}: {name} · reward {reward:+.2f} · return {self.total:.2f}{end}"

    def _type(self, change: Any) -> None:
        # Only what was added: cleared after each key, the box would send a key twice that is still on its way.
        old, new = change["old"], change["new"]
        for letter in new[len(old) :] if new.startswith(old) else "":
            if letter in self.keys:
                self._told(lambda letter=letter: self.act(self.keys.index(letter)))

    def _draw(self) -> Any:
        import jax

        self.key, key = jax.random.split(self.key)
        return key

    def _frame(self) -> np.ndarray:
        frame = self.env.render(self.state)
        if frame is None:
            raise ValueError(f"{self.env.spec.id} draws no pictures: its render(state) is None")
        return np.asarray(frame)

    def _show(self, frames: list[np.ndarray], words: list[str], at: int = 0) -> None:
        self.last = frames[-1]
        self.screen.show(frames, words, at)
        self._choices()

    def _choices(self) -> None:
        """Opens what may be done now, but on the newest picture alone: no action acts on an earlier one."""
        newest = self.screen.slider.value == self.screen.slider.max
        self._open(self.legal() & (newest and not self.over), others=newest and not self.over)

    def _open(self, actions: np.ndarray, others: bool) -> None:
        for button, open_ in zip(self.buttons, actions, strict=True):
            button.disabled = not bool(open_)
        for button in self.others[:2]:
            button.disabled = not others

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, and for places without one the picture of now."""
        live = bundle(self.box, **options)
        still = {"image/png": base64.b64encode(encoded(enlarged(self.last[None])[0], "png")).decode()}
        return (still | live[0], *live[1:]) if isinstance(live, tuple) else still | live


def keys_of(names: Sequence[str]) -> list[str]:
    """A key for each action: those players know (wasd, e), the name's own letters, then whatever is free."""
    keys: list[str] = []
    for name in names:
        taken = {*keys, *(key for known, key in _KEYS.items() if known != name and known in names)}
        wanted = [_KEYS[name]] if name in _KEYS else []
        free = name.lower() + string.ascii_lowercase + string.digits + string.ascii_uppercase
        keys.append(next((c for c in (*wanted, *free) if c not in taken and not c.isspace()), ""))
    return keys
