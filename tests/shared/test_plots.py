"""The style of the figures, and the learning curves."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyloom.plots import (
    PALETTE,
    Curve,
    Figure,
    draw_bands,
    draw_learning_curves,
    labelled,
    learning_curves,
    panels,
    save,
    style,
)
from skyloom.plots.curves import band, smoothed


def relative_luminance(colour: str) -> float:
    """WCAG 2 relative luminance of #rrggbb."""
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def seen_by_deuteranope(colour: str) -> np.ndarray:
    """Machado, Oliveira & Fernandes (2009), severity 1, on linear RGB."""
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    matrix = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    return np.clip(np.array(matrix) @ linear, 0, 1) ** (1 / 2.2)


def test_colours_stay_apart_for_colour_blind_readers_and_on_white():
    seen = [seen_by_deuteranope(c) for c in PALETTE]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(apart) > 0.1
    # a mark on white needs contrast: yellow (0.78) would vanish
    assert all(relative_luminance(c) < 0.5 for c in PALETTE)


def test_style_and_panels_leave_no_trace():
    code = """
import matplotlib, sys
before, backend = matplotlib.rcParams.copy(), matplotlib.rcParams._get_backend_or_none()
from skyloom.plots import panels, style
with style(dark=True):
    figure, axes = panels(2, 2)
    inside = matplotlib.rcParams["font.size"]
assert inside == 8 and len(axes.flat) == 4
assert matplotlib.rcParams.copy() == before, "settings leaked"
assert matplotlib.rcParams._get_backend_or_none() == backend, "a backend was chosen"
assert "matplotlib.pyplot" not in sys.modules and "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_fonts_that_come_with_matplotlib():
    import matplotlib
    from matplotlib import font_manager

    with style():
        found = font_manager.findfont(font_manager.FontProperties(), fallback_to_default=False)
    assert str(matplotlib.get_data_path()) in found


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_saving_is_whole_and_repeatable(tmp_path, suffix):
    def draw(path):
        with style():
            figure, axes = panels()
            axes.plot([1, 2, 3], [3, 1, 2], label="a")
            axes.legend()
            return save(figure, path)

    first, second = draw(tmp_path / f"a.{suffix}"), draw(tmp_path / f"b.{suffix}")
    assert first.read_bytes() == second.read_bytes()

    with style():
        figure, _ = panels()
    figure.savefig = lambda *a, **k: (_ for _ in ()).throw(RuntimeError("the disk"))  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="the disk"):
        save(figure, first)
    assert first.read_bytes() == second.read_bytes(), "a failed save must keep the old file"
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a.{suffix}", f"b.{suffix}"]


def test_synthetic_data_are_called_so_once_and_below_everything_drawn(tmp_path):
    with style():
        figure, axes = panels(1, 2)
        axes[1].set_xlabel("a label as long as the panel is wide, more or less, in metres")
        save(figure, tmp_path / "plain.png")
        assert not figure.texts
        with labelled(synthetic=True):
            save(figure, tmp_path / "a.png")
            save(figure, tmp_path / "a.pdf")
        save(figure, tmp_path / "b.png")
    [text] = figure.texts
    assert text.get_text() == "synthetic data"
    words, drawn = text.get_window_extent(), [axis.get_tightbbox() for axis in axes]
    assert words.y1 < min(box.y0 for box in drawn)
    assert 0 <= words.x0 < words.x1 <= figure.bbox.x1
    assert words.y0 >= 0


def test_a_figure_is_a_column_wide_and_sharp(tmp_path):
    import struct

    with style():
        figure, _ = panels()
        width, height = struct.unpack(">II", save(figure, tmp_path / "a.png").read_bytes()[16:24])
    assert width == pytest.approx(3.5 * 160, abs=1)  # 89 mm at 160 dots per inch
    assert height < width
    assert Figure(tmp_path / "a.png", "t", "c").caption == "c"


@given(st.integers(1, 60), st.integers(1, 80), st.floats(-3, 3), st.floats(-3, 3))
def test_smoothing_keeps_straight_lines_and_leaves_out_the_ends(n, window, slope, offset):
    line = offset + slope * np.arange(n)
    half = window // 2
    s = smoothed(line, window)
    np.testing.assert_allclose(s[half : n - half], line[half : n - half], atol=1e-9)
    assert np.isnan(s[:half]).all()
    assert np.isnan(s[max(n - half, 0) :]).all()


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=40), st.integers(1, 20))
def test_smoothing_is_the_mean_of_its_window(values, window):
    half = window // 2
    s = smoothed(np.array(values), window)
    for i in range(half, len(values) - half):
        assert s[i] == pytest.approx(np.mean(values[i - half : i + half + 1]), abs=1e-9)


def test_smoothing_ignores_undefined_values():
    values = np.array([1.0, 1.0, np.nan, 1.0, 1.0])
    np.testing.assert_allclose(smoothed(values, 3)[1:4], 1.0)
    assert np.isnan(smoothed(np.array([np.nan]), 1)).all()


def rows(n=200):
    out: list[dict] = []
    for step in range(1, n + 1):
        row = {"step": step, "epoch": step // 20, "train/loss": 1 / step, "time/samples_per_s": 1e3}
        if step % 20 == 0:
            row |= {"val/loss": 1.5 / step, "val/auroc": 1 - 1 / step}
        out.append(row)
    return out


def test_curves_hold_the_rows_and_nothing_else():
    curves = {(c.split, c.metric): c for c in learning_curves(rows())}
    assert set(curves) == {("train", "loss"), ("val", "loss"), ("val", "auroc")}
    np.testing.assert_allclose(curves["val", "auroc"].step, np.arange(20, 201, 20))
    np.testing.assert_allclose(curves["train", "loss"].value, 1 / np.arange(1, 201))


def test_undefined_values_stay_gaps():
    [curve] = learning_curves([{"step": 1, "val/nll": None}, {"step": 2, "val/nll": float("nan")}])
    assert np.isnan(curve.value).all()
    assert draw_learning_curves([{"step": 1, "val/nll": None}]) == (None, [])


def test_panels_are_ordered_and_limited():
    many = [{"step": s, "train/norm": 1.0, "train/loss": 1.0} | {f"val/m{i:02d}": float(s) for i in range(20)} for s in (1, 2)]
    with style():
        figure, drawn = draw_learning_curves(many, first=["val/m13"], best_step=2)
    assert figure is not None
    assert [p[0].metric for p in drawn] == ["loss", "m13", "m00", "m01", "m02", "m03"]
    assert [a.get_title() for a in figure.axes if a.get_visible()] == [p[0].metric for p in drawn]


def test_a_wild_start_does_not_hide_the_rest():
    wild = [{"step": s, "val/nll": 1e4 if s == 1 else -2 + 1 / s} for s in range(1, 30)]
    with style():
        figure, _ = draw_learning_curves(wild)
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    assert high < 0
    assert low < -2 + 1 / 29
    assert any("1e+04" in t.get_text() for t in figure.axes[0].texts), "what was cut off must be said"


def test_the_band_is_mean_and_deviation_where_all_runs_have_values():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(4, 10))
    steps = np.arange(10.0)
    curves = [Curve("val", "nll", steps, v) for v in values]
    curves[0] = Curve("val", "nll", steps[:7], values[0, :7])  # stopped early
    at, mean, spread = band(curves)
    np.testing.assert_allclose(at, steps[:7])
    np.testing.assert_allclose(mean, values[:, :7].mean(0))
    np.testing.assert_allclose(spread, values[:, :7].std(0, ddof=1))
    assert np.isnan(band(curves[:1])[2]).all()
    assert len(band([])[0]) == 0


def test_bands_name_every_group_or_only_the_chosen():
    groups = {f"g{i}": [Curve("val", "x", np.arange(3.0), np.full(3, float(i)))] * 2 for i in range(3)}
    with style():
        _, axis = panels()
        drawn = draw_bands(axis, groups)
    assert axis.get_legend_handles_labels()[1] == ["g0", "g1", "g2"]
    np.testing.assert_allclose(drawn["g2"][1], 2.0)
    many = {f"g{i:02d}": groups["g0"] for i in range(12)}
    with style():
        _, axis = panels()
        draw_bands(axis, many, emphasise="g05")
    assert axis.get_legend_handles_labels()[1] == ["g05"]
