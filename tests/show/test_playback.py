"""The player as a file: what lies in it, how large it is, what cannot be shown. tests/browser opens it in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mxnb import show
from mxnb.show._playback import Playback, achieved, events


def changed(recording: Any, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(recording), **more})


def data_of(text: str) -> dict[str, Any]:
    """What the script in a page would read."""
    (found,) = re.findall(r'<script type="application/json">(.*?)</script>', text, re.S)
    return json.loads(found)


def flags(*steps: int | None, length: int = 50) -> np.ndarray:
    return np.stack([np.arange(length) >= (length if step is None else step) for step in steps]).astype(np.float32)


@pytest.fixture
def craft(recording: SimpleNamespace) -> SimpleNamespace:
    """With three achievements (at 7, at 23, never) and an end by death."""
    infos = dict(zip(("eat_cow", "wake_up", "collect_iron"), flags(7, 23, None), strict=True))
    infos["cause/death"] = flags(49)[0]
    return changed(recording, infos=infos, info={name: float(x[-1]) for name, x in infos.items()}, terminated=True)


def test_every_frame_comes_back_without_loss(recording: SimpleNamespace) -> None:
    from PIL import Image

    frames = np.repeat(recording.frames[:17], 3, 0)  # each of 17 pictures three times
    told = data_of(Playback((changed(recording, frames=frames),)).html())
    assert len(told["pictures"]) == 17
    shown = [told["pictures"][i] for i in told["episodes"][0]["frames"]]
    for text, frame in zip(shown, frames, strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
        np.testing.assert_array_equal(np.asarray(picture), frame)


def test_the_numbers_of_each_step_are_there(recording: SimpleNamespace) -> None:
    masks = np.ones((50, 3), bool)
    masks[4, 1] = False
    nan = np.where(np.arange(50) == 3, np.nan, recording.values)
    told = data_of(Playback((changed(recording, masks=masks, values=nan), recording)).html())
    first, second = told["episodes"]
    assert told["actions"] == ["noop", "make wood pickaxe", "an action with a very long name"]
    assert first["actions"] == recording.actions.tolist() and first["values"][3] is None
    assert first["rewards"] == pytest.approx(recording.rewards.tolist())
    assert first["masks"][4] == "101" and first["masks"][5] == "111" and second["masks"] is None
    assert first["probs"][0] == [0.333] * 3 and first["name"] == "1: 50 steps, return 2.00"


def test_what_is_worth_jumping_to(craft: SimpleNamespace) -> None:
    assert achieved(craft) == {"eat_cow": 7, "wake_up": 23, "collect_iron": None}
    assert events(craft) == [(7, "eat cow"), (23, "wake up"), (50, "death")]
    stages = changed(craft, infos=craft.infos | {"stage": np.repeat([0.0, 1.0], 25)})
    assert events(stages) == [(7, "eat cow"), (23, "wake up"), (25, "stage 1"), (50, "death")]
    assert "stage" not in achieved(stages)


def test_a_death_is_at_its_step_though_empty_ones_follow(craft: SimpleNamespace) -> None:
    craft.infos["cause/death"] = flags(30)[0]
    told = events(craft)
    assert (31, "death") in told and told[-1] == (50, "dead for 19 steps")


def test_achievements_of_several_episodes_are_told_by_name(craft: SimpleNamespace) -> None:
    infos = {name: craft.infos[name] for name in ("wake_up", "eat_cow")} | {"new": flags(3)[0]}
    other = changed(craft, infos=infos, info={})
    told = data_of(Playback((craft, other)).html())
    assert told["achievements"] == ["eat cow", "wake up", "collect iron", "new"]
    assert [episode["got"] for episode in told["episodes"]] == [[7, 23, None, None], [7, 23, None, 3]]


def test_a_return_that_is_no_number_can_be_looked_at(recording: SimpleNamespace) -> None:
    rewards = np.where(np.arange(50) == 9, np.inf, recording.rewards)
    (episode,) = data_of(Playback((changed(recording, rewards=rewards),)).html())["episodes"]
    assert episode["total"] is None and episode["rewards"][9] is None


def test_rewards_are_events_unless_most_steps_pay(recording: SimpleNamespace) -> None:
    assert events(recording) == [(7, "reward +1"), (23, "reward +1.1"), (50, "not over")]
    assert events(changed(recording, rewards=np.ones(50), truncated=True)) == [(50, "time limit")]


def test_names_cannot_end_the_script(recording: SimpleNamespace) -> None:
    bad = changed(recording, action_names=("</script><!--<script>", "b", "c"))
    page = Playback((bad,), title="<&>").page()
    assert (
        data_of(page)["actions"][0] == "</script><!--<script>"
        and "<!--" not in page
        and "<title>&lt;&amp;&gt;</title>" in page
    )
    assert page.count("</script>") == 2


def test_continuous_actions_have_numbers_for_words(recording: SimpleNamespace) -> None:
    smooth = changed(recording, actions=np.linspace(-1, 1, 100).reshape(50, 2), probs=np.zeros((50, 0)))
    told = data_of(Playback((smooth,)).html())
    assert told["episodes"][0]["moves"][0] == "-1, -0.98" and told["episodes"][0]["probs"] is None


def test_five_hundred_noisy_frames_stay_under_three_megabytes(recording: SimpleNamespace) -> None:
    """Craftax's night: a dark picture under fresh noise in every frame, at its size of 144 x 144."""
    draw = np.random.default_rng(0)
    tiles = draw.integers(0, 60, (9, 9, 3)).repeat(16, 0).repeat(16, 1)
    noise = draw.normal(0, 12, (501, 144, 144, 1))
    frames = np.clip(tiles + noise, 0, 255).astype(np.uint8)
    steps = {"rewards": np.zeros(500), "values": draw.normal(size=500), "entropies": draw.random(500)}
    probs = draw.dirichlet(np.ones(17), 500)
    long = changed(recording, frames=frames, actions=np.zeros(500, int), probs=probs, **steps)
    assert len(Playback((long,)).page()) < 3_000_000


def test_a_picture_with_words_is_kept_as_it_is(recording: SimpleNamespace) -> None:
    """HackMatrix's panel is in small letters: a lossy picture of it cannot be read."""
    from PIL import Image

    from mxnb.envs.hackmatrix import make_state, render

    boards = [make_state(player=(3, 2), credits=n, owned=[n], enemies=[{"type": n % 4, "row": 1, "col": 4, "hp": 2}])
              for n in range(6)]  # fmt: skip
    frames = np.stack([render(board) for board in boards])
    whole = {name: getattr(recording, name) for name in ("actions", "rewards", "values", "entropies", "probs")}
    cut = {name: value[:5] for name, value in whole.items()}
    told = data_of(Playback((changed(recording, frames=frames, **cut),)).html())
    assert len(told["pictures"]) == 6
    for frame, code in zip(frames, told["pictures"], strict=True):
        with Image.open(io.BytesIO(base64.b64decode(code))) as picture:
            np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), frame)


@pytest.mark.parametrize("kind", ["html", "png", "gif"])
def test_files_are_whole(recording: SimpleNamespace, tmp_path: Path, kind: str) -> None:
    from PIL import Image

    path = Playback((recording,)).save(tmp_path / "new" / f"episode.{kind}")
    assert [p.name for p in path.parent.iterdir()] == [f"episode.{kind}"]
    if kind == "html":
        assert path.read_text().startswith("<!doctype html>") and "http" not in path.read_text()
    else:
        with Image.open(path) as picture:
            assert kind == "png" or (picture.n_frames, picture.width >= 240) == (51, True)


def test_an_mp4_needs_ffmpeg(recording: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=r"ffmpeg, which is not installed; install it, or save \.gif"):
        Playback((recording,)).save(tmp_path / "episode.mp4")


def test_an_mp4_where_ffmpeg_is(recording: SimpleNamespace, tmp_path: Path) -> None:
    import shutil

    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    path = Playback((recording,)).save(tmp_path / "episode.mp4")
    asked = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"]
    assert subprocess.run([*asked, str(path)], capture_output=True, check=True).stdout.strip() == b"51"


@pytest.mark.parametrize("frames", [None, np.zeros((0, 3, 3, 3), np.uint8)])
def test_no_frames_say_so(recording: SimpleNamespace, frames: Any) -> None:
    with pytest.raises(ValueError, match=r"no frames: record it in an environment whose render"):
        Playback((changed(recording, frames=frames),))


def test_no_episode_and_no_known_suffix_say_so(recording: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no episode to show"):
        Playback(())
    with pytest.raises(ValueError, match=r"write \.html, \.png, \.gif or \.mp4"):
        Playback((recording,)).save(tmp_path / "episode.avi")


def test_episodes_are_played_and_shown() -> None:
    from mxnb import make
    from mxnb.evaluate import random_policy

    env = make("catch")
    both = show.episodes(random_policy(env.spec), env, 2, seed=3, max_steps=20)
    assert [len(r.actions) for r in both.recordings] == [9, 9]
    bundle = both._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "image/png", "text/html"} and "data:image/png;base64," in bundle["text/html"]
    again = show.episodes(random_policy(env.spec), env, 1, seed=3, max_steps=20)
    np.testing.assert_array_equal(again.recordings[0].actions, both.recordings[0].actions)
    with pytest.raises(ValueError, match="ask for at least one episode"):
        show.episodes(random_policy(env.spec), env, 0)


def test_an_environment_without_pictures_says_so() -> None:
    from dataclasses import replace

    from mxnb import make
    from mxnb.evaluate import random_policy

    env = replace(make("catch"), render=lambda state: None)
    with pytest.raises(ValueError, match="draws no pictures"):
        show.episodes(random_policy(env.spec), env)
