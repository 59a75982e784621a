"""The widgets' Python side, with whatever ipywidgets is installed: clicks and their effects."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mxnb import fit, load_policy, make, show
from mxnb.agents.ppo import PPOConfig, ppo
from mxnb.evaluate import random_policy
from mxnb.show._playback import Playback
from mxnb.show._widgets import Game, Roller, keys_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy for Catch that hardly learned anything, with two checkpoints."""
    config = PPOConfig(env_id="catch-bsuite", total_timesteps=256, num_envs=8, num_steps=8, hidden_dim=8).resolve()
    folder = tmp_path_factory.mktemp("runs") / "catch"
    fit(ppo(config, make("catch")), folder, save_updates=2)
    return folder


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mxnb.show._widgets.in_notebook", lambda: True)


def test_without_a_front_end_there_is_a_playback(run: Path) -> None:
    assert isinstance(show.player(run), Playback) and isinstance(show.take_over(run), Playback)


def test_roll_out_shows_another_episode(run: Path, live: None) -> None:
    roller = show.player(run, seed=2)
    assert isinstance(roller, Roller)
    assert [words for words, _ in roller.which.options] == ["newest", "update 4", "update 2"]
    assert roller.which.label == "newest"
    first = list(roller.screen.frames)
    assert len(first) == 10 == roller.screen.slider.max + 1 == roller.screen.play.max + 1
    roller.screen.slider.value = 9
    assert roller.screen.picture.value == first[9] and ", return" in roller.screen.said.value
    roller.which.value, roller.seed.value = 2, 5
    roller.button.click()
    assert roller.screen.slider.value == 0 and roller.screen.frames != first
    expected = show.episodes(load_policy(run, 2), make("catch"), 1, 5).recordings[0]
    assert f"return {expected.rewards.sum():.2f}" in roller.screen.words[-1]
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "image/png"} <= set(data(roller))
    roller.which.value = "newest"
    roller.greedy.value = True
    roller.button.click()
    expected = show.episodes(load_policy(run), make("catch"), 1, 5, greedy=True).recordings[0]
    assert f"return {expected.rewards.sum():.2f}" in roller.screen.words[-1]


def data(widget: Any) -> dict[str, Any]:
    """The bundle, which ipywidgets 8 may give with metadata."""
    found = widget._repr_mimebundle_()
    return found[0] if isinstance(found, tuple) else found


def test_a_policy_that_is_gone_is_told_in_its_place(run: Path, live: None) -> None:
    roller = show.player(run)
    roller.which.options = [*roller.which.options, ("update 3", 3)]
    roller.which.value = 3
    roller.button.click()
    assert "3" in roller.screen.said.value and not roller.button.disabled


def test_a_run_without_a_policy_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no policy yet"):
        show.player(tmp_path)


def a_game(env_id: str = "catch", seed: int = 3) -> Game:
    env = make(env_id)
    return show.take_over(random_policy(env.spec, use_mask=True), env, seed=seed)


def test_buttons_and_keys_play_and_the_end_ends_it(live: None) -> None:
    game = a_game()
    assert [b.description for b in game.buttons] == [
        f"{name} ({key})" for name, key in zip(("action 0", "action 1", "action 2"), game.keys, strict=True)
    ]
    start = game.screen.picture.value
    game.buttons[0].click()
    assert game.steps == 1 and game.screen.picture.value != start
    game.typed.value = game.keys[2] + "?" + game.keys[1]
    assert game.steps == 3
    game.typed.value += game.keys[0]  # the box is not cleared: a key on its way would come twice
    assert game.steps == 4
    for _ in range(9):
        game.buttons[1].click()
    assert game.over and game.steps == 9 and "the end" in game.screen.said.value
    assert all(b.disabled for b in (*game.buttons, *game.others[:2]))
    game.others[2].click()
    assert game.typed.value == "" and game.steps == 0 and not game.over and not any(b.disabled for b in game.buttons)


def test_the_agent_goes_on_from_where_you_stand(live: None) -> None:
    game = a_game()
    game.buttons[0].click()
    here = np.asarray(game.obs)
    game.others[0].click()
    assert game.steps == 2 and len(game.screen.frames) == 2
    assert game.screen.picture.value == game.screen.frames[1] != game.screen.frames[0]
    assert not np.array_equal(here, game.obs)
    game.others[1].click()
    assert game.over and game.steps == 9 and len(game.screen.frames) == 8
    assert "agent" in game.screen.words[-1]


def test_no_action_acts_on_an_earlier_picture(live: None) -> None:
    game = a_game()
    game.agent(3)
    assert game.screen.slider.value == 3 and game.screen.picture.value == game.screen.frames[3]
    game.screen.slider.value = 1
    assert all(b.disabled for b in (*game.buttons, *game.others[:2])) and not game.others[2].disabled
    game.screen.slider.value = 3
    assert not any(b.disabled for b in (*game.buttons, *game.others))
    bundle = game._repr_mimebundle_()
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    assert base64.b64decode(bundle["image/png"]) == game.screen.frames[3]  # where no widget is shown


@pytest.mark.brief
def test_hackmatrix_is_played_at_its_own_size(live: None) -> None:
    game = a_game("hackmatrix-v1")
    mask = np.asarray(game.env.action_mask(game.state))
    assert [not b.disabled for b in game.buttons] == mask.tolist() and len(set(game.keys)) == 28
    assert game.screen.picture.width == "304"  # smaller, nobody reads the programs
    game.buttons[int(mask.argmax())].click()
    game.others[0].click()
    assert game.steps == 2 and len(game.screen.frames) == 2


def test_small_pictures_are_shown_at_whole_multiples(live: None) -> None:
    from PIL import Image

    game = a_game()
    with Image.open(io.BytesIO(game.screen.picture.value)) as picture:
        assert game.screen.picture.width == str(picture.width) and picture.width >= 240
        assert picture.width % game._frame().shape[1] == 0


def test_illegal_actions_cannot_be_pressed(live: None) -> None:
    game = a_game("probe-mask-v0")
    while game.legal().all():  # a coin decides, in every world
        game.restart()
    legal = game.legal()
    assert [not b.disabled for b in game.buttons] == legal.tolist()
    game.act(int(np.flatnonzero(~legal)[0]))
    assert game.steps == 0


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (("noop", "left", "right", "up", "down", "do"), [".", "a", "d", "w", "s", "e"]),
        (("do", "down", "dig", "drop"), ["e", "s", "d", "r"]),
        (("action 0", "action 1"), ["a", "c"]),
    ],
)
def test_each_action_has_a_key_of_its_own(names: tuple[str, ...], keys: list[str]) -> None:
    assert keys_of(names) == keys


def test_full_craftax_has_keys_for_all() -> None:
    names = [f"action {i}" for i in range(43)]
    assert len(set(keys_of(names))) == 43


def test_what_cannot_be_played_says_so(live: None) -> None:
    env = make("pendulum-v1")
    with pytest.raises(ValueError, match="continuous actions; there is no button"):
        show.take_over(random_policy(env.spec), env)
    with pytest.raises(ValueError, match="the policy was made for"):
        show.take_over(random_policy(env.spec), make("catch"))
    with pytest.raises(ValueError, match=r"take_over\(policy, env\) both"):
        show.take_over(random_policy(env.spec))


def test_a_click_that_fails_is_told(live: None, monkeypatch: pytest.MonkeyPatch) -> None:
    game = a_game()

    def broken(*_: Any) -> Any:
        raise RuntimeError("out of <memory>")

    monkeypatch.setattr(game, "_step", broken)
    game.buttons[0].click()
    assert game.screen.said.value == "RuntimeError: out of &lt;memory&gt;"
