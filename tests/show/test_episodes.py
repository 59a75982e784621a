"""Filmstrips and the picture of a mask."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest

from mxnb import show
from mxnb.show._episodes import choose_frames, died_at
from mxnb.show._figures import ORANGE


def captions(fig):
    return [ax.get_xlabel() for ax in fig.axes]


def test_achievements_are_chosen_besides_even_frames(recording, cut_off):
    fig = show.filmstrip(recording, frames=6)
    steps = [int(text.split("\n")[0].removeprefix("step ").partition(":")[0]) for text in captions(fig)]
    assert steps == [0, 7, 10, 20, 23, 30, 40, 50]
    assert not cut_off(fig)


def test_captions_tell_action_value_and_reward(recording):
    text = captions(show.filmstrip(recording, frames=6))
    assert text[1] == "step 7\nmake wood pickaxe\nV = 0.71\nreward +1"
    assert text[0] == "step 0\nnoop\nV = 0.00"
    assert text[5].endswith("reward -0.1")
    assert text[-1] == "step 50: not over\nreturn 2.0"


@pytest.mark.parametrize(("flag", "words"), [("terminated", "the end"), ("truncated", "time limit")])
def test_the_last_caption_says_how_it_ended(recording, flag, words):
    ended = SimpleNamespace(**{**vars(recording), flag: True})
    assert captions(show.filmstrip(ended))[-1].startswith(f"step 50: {words}")


def test_a_death_before_empty_steps_is_told(recording):
    infos = {"cause/death": np.arange(50) >= 40, "cause/alive": np.arange(50) < 40}
    dead = SimpleNamespace(**{**vars(recording), "infos": infos})
    assert died_at(dead) == 41 and captions(show.filmstrip(dead))[-1].startswith("step 50: dead for 9 steps")
    infos["cause/death"] = np.arange(50) >= 49
    assert died_at(dead) == 50 and captions(show.filmstrip(dead))[-1].startswith("step 50: death")
    assert died_at(recording) is None


def test_rewarded_frames_have_a_rim(recording):
    fig = show.filmstrip(recording, frames=6)
    from matplotlib.colors import to_hex

    rims = [to_hex(ax.spines["left"].get_edgecolor()).upper() == ORANGE for ax in fig.axes]
    assert [i for i, rim in enumerate(rims) if rim] == [1, 4]


def test_steady_pay_has_no_rim_and_a_policy_without_a_critic_no_value(recording):
    from matplotlib.colors import to_hex

    steady = SimpleNamespace(**{**vars(recording), "rewards": np.ones(50, np.float32), "values": np.zeros(50)})
    fig = show.filmstrip(steady, frames=6)
    assert ORANGE not in {to_hex(ax.spines["left"].get_edgecolor()).upper() for ax in fig.axes}
    assert not any("V =" in text for text in captions(fig)) and captions(fig)[0].endswith("reward +1")


def test_pixels_stay_crisp(recording):
    assert all(ax.images[0].get_interpolation() == "nearest" for ax in show.filmstrip(recording).axes)


def test_choice_of_frames():
    assert choose_frames(np.zeros(0), 8) == [0]
    assert choose_frames(np.zeros(3), 8) == [0, 1, 2, 3]
    assert choose_frames(np.ones(200), 4) == [0, 67, 133, 200]  # CartPole: a reward on each step is no event
    often = np.tile([1.0, 0, 0], 100)
    assert len(choose_frames(often, 8)) <= 8 + 24


@pytest.mark.parametrize("columns", [1, 2, 4, 6])
def test_nothing_is_cut_off(recording, columns, cut_off):
    assert not cut_off(show.filmstrip(recording, columns=columns))


def test_indices_when_actions_have_no_names(recording):
    recording.action_names = ()
    assert "action 1" in captions(show.filmstrip(recording, frames=6))[1]


def test_write_png(recording, tmp_path):
    path = show.write_png(recording, tmp_path / "episodes" / "best.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(list(path.parent.iterdir())) == 1


def test_bad_recordings_are_named(recording):
    with pytest.raises(ValueError, match="at least 1"):
        show.filmstrip(recording, columns=0)
    recording.values = recording.values[:-1]
    with pytest.raises(ValueError, match="49 values"):
        show.filmstrip(recording)
    recording.frames = None
    with pytest.raises(ValueError, match="render"):
        show.filmstrip(recording)


def test_mask_picture_tells_legal_from_masked(recording, texts, cut_off):
    fig = show.mask_picture(recording.frames[0], [True, False, True], ("noop", "up", "place_table"))
    words = texts(fig)
    assert "2 of 3 actions legal" in words
    assert words.count("legal") == 2 and words.count("✕ masked") == 1
    assert "place table" in words
    legal, masked = (label.get_color() for label in fig.axes[1].get_yticklabels()[:2])
    assert legal != masked
    assert not cut_off(fig)


def test_mask_picture_with_probabilities_and_no_frame(texts, cut_off):
    fig = show.mask_picture(None, [True, False, True], (), [0.75, 0.0, 0.25])
    assert {"75 %", "25 %", "✕ masked", "action 1", "probability (%)"} <= set(texts(fig))
    assert not cut_off(fig)


@pytest.mark.parametrize("n", [2, 17, 43])
def test_mask_picture_fits(n, recording, cut_off):
    names = [f"make_stone_pickaxe_{i}" for i in range(n)]
    probs = np.arange(n) / np.arange(n).sum()
    assert not cut_off(show.mask_picture(recording.frames[0], np.arange(n) % 2 > 0, names, probs))


def test_mask_picture_before_and_after_an_update(texts, cut_off):
    now, then = np.array([0.7, 0.0, 0.3]), np.array([0.2, 0.0, 0.8])
    fig = show.mask_picture(None, [True, False, True], ("left", "sleep", "do"), now, before=then)
    words = texts(fig)
    assert "20 → 70 %" in words and "80 → 30 %" in words and "✕ masked" in words and not cut_off(fig)
    outlines = [bar for bar in fig.axes[0].patches if bar.get_facecolor()[3] == 0]
    assert [bar.get_width() for bar in outlines] == [0.2, 0.8]  # on the scale of the bars
    with pytest.raises(ValueError, match="give those of now as probs"):
        show.mask_picture(None, [True], before=[1.0])


def test_mask_picture_of_unequal_lengths_is_named():
    with pytest.raises(ValueError, match=r"\[2, 3\] entries"):
        show.mask_picture(None, [True, False], ("a", "b", "c"))
    with pytest.raises(ValueError, match="no entries"):
        show.mask_picture(None, None)


def test_the_filmstrip_looks_as_it_did(recording, tmp_path):
    """Against tests/golden/filmstrip.png, opened and judged by a person; other fonts may move a few pixels.

    To make it anew: write_png(recording, "tests/golden/filmstrip.png") with this very recording.
    """
    from pathlib import Path

    from PIL import Image

    golden = Path(__file__).parents[1] / "golden" / "filmstrip.png"
    with Image.open(golden) as old, Image.open(show.write_png(recording, tmp_path / "now.png")) as new:
        assert old.size == new.size
        apart = np.abs(np.asarray(old.convert("RGB"), float) - np.asarray(new.convert("RGB"), float))
    assert apart.mean() < 3.0, f"mean difference {apart.mean():.2f} of 255"


@pytest.mark.parametrize("width", [304, 306, 341])
def test_a_large_picture_keeps_its_size(width):
    """Its words would lose strokes; a small one is drawn over its share of the width."""
    large = np.random.default_rng(0).integers(0, 256, (300, width, 3), dtype=np.uint8)
    drawn = png(show.pictures([large], columns=1)).astype(int)
    assert width <= drawn.shape[1] <= width + 12
    corner = large[2:152, 2:152]  # inside of its rim
    assert not min(np.abs(drawn[y : y + 150, x : x + 150] - corner).sum() for y in range(14) for x in range(14))
    assert png(show.pictures([large[:, :200]], columns=1)).shape[1] == 672
    assert png(show.pictures([large] * 3)).shape[1] == pytest.approx(min(672, 2 * width + 16), abs=2)


def test_large_frames_stand_two_beside_each_other(recording):
    large = SimpleNamespace(**{**vars(recording), "frames": np.zeros((51, 30, 304, 3), np.uint8)})
    assert png(show.filmstrip(large)).shape[1] == 2 * 312 and png(show.filmstrip(recording)).shape[1] == 672


def png(fig):
    from PIL import Image

    from mxnb.show._figures import to_png

    with Image.open(io.BytesIO(to_png(fig))) as image:
        return np.asarray(image.convert("RGB"))


def test_pictures_stand_side_by_side_with_their_words(cut_off):
    frames = [np.full((30, 40, 3), i, np.uint8) for i in range(3)]
    long = show.pictures([np.zeros((30, 304, 3), np.uint8)] * 2, ["after a siphon of two blocks: reward +1.24"] * 2)
    assert not cut_off(long) and captions(long)[0].count("\n") == 1
    fig = show.pictures(frames, ["one", "two", "three"])
    assert captions(fig) == ["one", "two", "three"] and not cut_off(fig)
    assert [int(ax.images[0].get_array()[0, 0, 0]) for ax in fig.axes] == [0, 1, 2]
    left, right, below = (ax.get_position() for ax in fig.axes)
    assert left.x0 < right.x0 and below.y1 < left.y0
    assert captions(show.pictures(frames, columns=1)) == ["", "", ""]
    for wrong in ([], [frames[0], frames[1][1:]]):
        with pytest.raises(ValueError, match="of one size"):
            show.pictures(wrong)
    with pytest.raises(ValueError, match="3 pictures and 1 captions; give one each"):
        show.pictures(frames, ["one"])
