"""Learning curves: what is read, how it is pooled, what is drawn, and the live picture in a notebook."""

from __future__ import annotations

import json
import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest

from mxnb import show
from mxnb.show import _curves, _figures
from mxnb.show._runs import pooled_mean


def lines(fig, panel=0):
    """The strong lines of a panel (not the faint raw ones, not the warning)."""
    return [line for line in fig.axes[panel].lines if line.get_linewidth() == 1.6]


def test_half_written_last_row_is_ignored(make_run):
    run = make_run(rows=5, end='{"update": 6, "timest')
    assert [row["update"] for row in show.read_metrics(run)] == [1, 2, 3, 4, 5]


def test_last_row_without_newline_counts_and_a_cut_character_does_not(make_run):
    run = make_run(rows=2, end='{"update": 3}')
    assert len(show.read_metrics(run)) == 3
    with open(run / "metrics.jsonl", "ab") as file:
        file.write('\n{"update": 4, "a": "é'.encode()[:-1])
    assert len(show.read_metrics(run)) == 3


def test_damaged_line_in_the_middle_is_named(make_run):
    run = make_run(rows=2, end='{"update": 3, "ti\n{"update": 4}\n')
    with pytest.warns(UserWarning, match="line 3 is damaged and was skipped"):
        assert [row["update"] for row in show.read_metrics(run)] == [1, 2, 4]


def test_missing_and_empty_files_say_what_to_do(make_run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"fit\(agent, run_dir\)"):
        show.read_metrics(tmp_path / "nowhere")
    empty = make_run(rows=0)
    assert show.read_metrics(empty) == []
    with pytest.raises(ValueError, match=r"no complete row yet.*or train with fit"):
        show.curves(empty)


def test_one_run_has_four_labelled_panels(make_run, texts, cut_off):
    fig = show.curves(make_run(rows=30))
    words = " ".join(texts(fig))
    for word in ("Episode return", "share of ln(available actions)", "approximate KL (nats)", "share of samples"):
        assert word in words
    assert "environment steps (thousands)" in words
    assert "warns above 0.06" in words and "warns above 0.3" in words
    assert fig.axes[1].get_ylim() == (0, 1)
    assert not cut_off(fig)


def test_result_of_fit_is_a_run(make_run):
    assert lines(show.curves(SimpleNamespace(run_dir=make_run())))


def test_single_row_is_a_visible_point(make_run):
    (line,) = lines(show.curves(make_run(rows=1)))
    assert line.get_marker() == "o"


def test_rows_without_a_value_are_left_out(make_run):
    (line,) = lines(show.curves(make_run(rows=12), smooth=0))
    np.testing.assert_allclose(line.get_xdata(), [0.1, 0.2, 0.4, 0.5, 0.7, 0.8, 1.0, 1.1])
    np.testing.assert_allclose(line.get_ydata(), [2, 3, 5, 6, 8, 9, 11, 12])


def test_a_metric_nobody_reports_says_so(make_run, texts):
    rows = [{"update": u, "timesteps": u, "train/mean_episode_return": float("nan")} for u in (1, 2)]
    assert texts(show.curves(make_run(rows=rows))).count("no data") == 4


def test_smoothing_pools_over_episodes_not_rows():
    key = "train/mean_episode_return"
    rows = [
        {"timesteps": 1, "train/num_episodes": 30, key: 1.0},
        {"timesteps": 2},
        {"timesteps": 3, "train/num_episodes": 10, key: 5.0},
    ]
    x, y = _curves._series(rows, key, 3)
    np.testing.assert_allclose(x, [1, 2, 3])
    np.testing.assert_allclose(y, [1.0, 2.0, 5.0])  # row 2 has no value of its own: (30 * 1 + 10 * 5) / 40
    assert pooled_mean(rows, key) == 2.0
    for row in rows[::2]:
        row["train/approx_kl"] = row[key]
    assert pooled_mean(rows, "train/approx_kl") == 3.0  # a per-update metric: rows count alike


def test_one_exploded_value_stays_where_it_is():
    rows = [{"timesteps": t + 1, "train/approx_kl": 1e30 if t == 5 else 0.01} for t in range(30)]
    _, y = _curves._series(rows, "train/approx_kl", 3)
    np.testing.assert_allclose(np.delete(y, [4, 5, 6]), 0.01)


def test_seeds_are_a_mean_with_a_band_over_shared_steps(make_run, texts):
    runs = {
        "masked": [make_run(f"m{s}", start=float(s)) for s in range(3)],
        "unmasked": [make_run("u0", start=-3.0), make_run("u1", rows=9, start=-4.0)],
    }
    fig = show.curves(runs, smooth=0)
    masked, unmasked = lines(fig)
    np.testing.assert_allclose(masked.get_ydata()[0], 2.0)  # mean of 1, 2 and 3
    assert masked.get_color() != unmasked.get_color()
    assert unmasked.get_xdata()[-1] == pytest.approx(0.8)  # u1's last episode ended at step 800
    assert len(fig.axes[0].collections) == 2
    band = fig.axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 1.0
    words = texts(fig)
    assert "masked (3 seeds)" in words and "unmasked (2 seeds)" in words
    assert any("lowest to highest" in word for word in words)
    narrow = show.curves(runs, smooth=0, band="se").axes[0].collections[0].get_paths()[0].vertices
    assert narrow[:, 1].min() == pytest.approx(2 - 1 / np.sqrt(3))


def test_seeds_without_shared_steps_are_drawn_apart(make_run):
    early = make_run("a", rows=[{"timesteps": t, "train/clip_frac": 0.1} for t in (1, 2)])
    late = make_run("b", rows=[{"timesteps": t, "train/clip_frac": 0.1} for t in (5, 6)])
    assert len(lines(show.curves({"both": [early, late]}), panel=3)) == 2


def test_a_list_is_named_by_folder_or_labels(make_run, texts):
    runs = [make_run("first"), make_run("second")]
    assert {"first", "second"} <= set(texts(show.curves(runs)))
    assert {"one", "two"} <= set(texts(show.curves(runs, labels=["one", "two"])))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda run: show.curves([run], labels=["a", "b"]), "2 labels for 1 runs"),
        (lambda run: show.curves([]), "no runs to draw"),
        (lambda run: show.curves({"a": []}), "no runs to draw"),
        (lambda run: show.curves({"a": run}, labels=["b"]), "keys are the labels"),
        (lambda run: show.curves(run, band="sd"), "'range'"),
        (lambda run: show.curves({"a": [run] * 4, "b": [run] * 3}, band="iqm"), "3 seeds: give at least 4, or band="),
        (lambda run: show.curves(run, band="iqm"), "1 seed: give at least 4"),
        (lambda run: show.curves(run, smooth=-1), "0 or more"),
    ],
)
def test_bad_input_is_named(make_run, bad, words):
    with pytest.raises(ValueError, match=words):
        bad(make_run())


def test_save_replaces_whole_files_and_leaves_no_draft(make_run, tmp_path, monkeypatch):
    fig = show.curves(make_run())
    path = show.save(fig, tmp_path / "new" / "curves.png")
    whole = path.read_bytes()
    assert whole.startswith(b"\x89PNG")

    def fail(draft, data):
        with open(draft, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", fail)
    with pytest.raises(OSError, match="No space"):
        show.save(fig, path)
    assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == ["curves.png"]


@pytest.fixture
def notebook(monkeypatch):
    """A fake IPython with a kernel; `shown` lists what was displayed and updated."""
    shown = []

    class Handle:
        def update(self, fig):
            shown.append(("update", _figures.to_png(fig)))

    def display(fig, display_id=None):
        assert display_id
        shown.append(("display", _figures.to_png(fig)))
        return Handle()

    fake, inner = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    fake.get_ipython = lambda: SimpleNamespace(kernel=object())
    inner.display = display
    fake.display = inner
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setitem(sys.modules, "IPython.display", inner)
    monkeypatch.delenv("MXNB_WIDGETS", raising=False)
    return shown


def split(run, chunk):
    """The rows of a run in chunks, each written to the file just before it is handed out, as `fit` does."""
    rows = show.read_metrics(run)
    (run / "metrics.jsonl").write_text("")
    for i in range(0, len(rows), chunk):
        with open(run / "metrics.jsonl", "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows[i : i + chunk])
        yield rows[i : i + chunk]


def test_live_picture_is_updated_in_place_and_saved_at_the_end(make_run, notebook, monkeypatch):
    monkeypatch.setattr(_curves, "time", SimpleNamespace(monotonic=lambda: 0.0))  # drawing takes no time: no waits
    drawn = []
    real = _curves._draw
    monkeypatch.setattr(_curves, "_draw", lambda *a: drawn.append(len(a[0][0][1][0])) or real(*a))
    run, hook = make_run(rows=12), show.live_curves(0.0)
    png = run / "figures" / "curves.png"
    for rows in split(run, 5):
        assert not png.exists()
        hook(run, rows)
    assert [kind for kind, _ in notebook] == ["display", "update", "update"]
    assert drawn == [5, 10, 12]
    assert png.read_bytes().startswith(b"\x89PNG")  # the last update was seen from the budget
    hook(run, [])
    assert notebook[-1][0] == "display"  # trained on later: a picture of its own


def test_live_picture_waits_between_draws_and_finish_draws(make_run, notebook):
    run, hook = make_run(rows=12), show.live_curves(3600.0)
    chunks = split(run, 2)
    hook(run, next(chunks))
    hook(run, next(chunks))
    assert len(notebook) == 1
    hook.finish(run)
    assert len(notebook) == 2 and (run / "figures" / "curves.png").exists()


def test_live_picture_after_resume_starts_from_the_rows_in_the_folder(make_run, notebook, monkeypatch):
    seen = []
    real = _curves._draw
    monkeypatch.setattr(_curves, "_draw", lambda *a: seen.append(len(a[0][0][1][0])) or real(*a))
    run = make_run(rows=12)
    show.live_curves()(run, show.read_metrics(run)[-2:])
    assert seen == [12]


def test_live_picture_that_cannot_be_drawn_does_not_stop_the_training(make_run, notebook, monkeypatch):
    monkeypatch.setattr(_curves, "_draw", lambda *_: 1 / 0)
    run, hook = make_run(), show.live_curves(0.0)
    with pytest.warns(UserWarning, match="training goes on"):
        hook(run, show.read_metrics(run))
    hook(run, [])  # silent from here on


@pytest.mark.parametrize("where", ["plain python", "MXNB_WIDGETS=off", "papermill"])
def test_live_picture_does_nothing_elsewhere(make_run, notebook, monkeypatch, where):
    if where == "plain python":
        monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
    elif where == "papermill":
        cells = ["", "preset = 'auto'", "# Parameters\npreset = 'cpu'\n"]
        shell = types.SimpleNamespace(kernel=object(), user_ns={"In": cells})
        monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: shell)
    else:
        monkeypatch.setenv("MXNB_WIDGETS", "off")
    run, hook = make_run(), show.live_curves(0.0)
    hook(run, show.read_metrics(run))
    hook.finish(run)
    assert not notebook and not (run / "figures").exists()


def test_a_kernel_learns_to_show_figures_once(make_run, monkeypatch):
    from IPython.core.formatters import DisplayFormatter

    formatter = DisplayFormatter()
    monkeypatch.setattr(_figures, "shell", lambda: SimpleNamespace(display_formatter=formatter))
    fig = show.curves(make_run())
    data, _ = formatter.format(fig)
    assert data["image/png"]
    ours = formatter.formatters["image/png"].lookup_by_type(type(fig))
    formatter.formatters["image/png"].for_type(type(fig), users := lambda fig: b"")
    show.curves(make_run("again"))
    assert ours is _figures.to_png
    assert formatter.formatters["image/png"].lookup_by_type(type(fig)) is users  # a reader's choice stays


def test_no_figure_leaks(make_run, recording, notebook):
    import gc
    import weakref

    import matplotlib.pyplot as plt

    run, hook = make_run(), show.live_curves(0.0)
    hook(run, show.read_metrics(run))
    figures = [show.curves(run), show.achievements(run), show.actions(run), show.filmstrip(recording)]
    figures.append(show.mask_picture(recording.frames[0], [True, False]))
    assert plt.get_fignums() == []
    refs = [weakref.ref(fig) for fig in figures]
    figures.clear()
    gc.collect()
    assert [ref() for ref in refs] == [None] * len(refs)
