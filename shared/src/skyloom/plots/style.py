"""One look for every figure: a journal column wide, colour-blind safe, with the fonts that come with matplotlib.

The colours are those of Okabe and Ito (2008, "Color Universal Design"), in an order that keeps neighbours apart in
grey print as well; yellow is left out because lines of it vanish on white.
"""

import contextlib
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skyloom.run.files import write_whole

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["COLUMN", "PAGE", "PALETTE", "Figure", "labelled", "panels", "save", "style"]

COLUMN = 3.5  # inches: one column of a two-column journal page (89 mm)
PAGE = 7.2  # inches: both columns (183 mm)
DPI = 160

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_ON_DARK = ("#56B4E9", "#E69F00", "#2FC79A", "#E59CC6", "#7FA7E8", "#F0E442", "#E6E6E6")


@dataclass(frozen=True)
class Figure:
    """A drawn figure: where its file is, and the words that stand over and under it."""

    path: Path
    title: str
    caption: str


def _settings(dark: bool) -> Any:
    from cycler import cycler

    ink, paper, grid = ("#E6E6E6", "#16191f", "#3a404b") if dark else ("#1a1a1a", "#ffffff", "#dddddd")
    return {
        "figure.figsize": (COLUMN, 0.7 * COLUMN),
        "figure.dpi": DPI,
        "savefig.dpi": DPI,
        "figure.constrained_layout.use": True,
        "figure.facecolor": paper,
        "savefig.facecolor": paper,
        "axes.facecolor": paper,
        "axes.edgecolor": ink,
        "axes.labelcolor": ink,
        "axes.titlecolor": ink,
        "text.color": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "grid.color": grid,
        "axes.prop_cycle": cycler(color=_ON_DARK if dark else PALETTE),
        "image.cmap": "viridis",
        "font.family": "DejaVu Sans",
        "mathtext.fontset": "dejavusans",
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.linewidth": 0.5,
        "lines.linewidth": 1.4,
        "lines.markersize": 3.5,
        "axes.formatter.useoffset": False,
        "svg.fonttype": "none",
    }


@contextlib.contextmanager
def style(dark: bool = False) -> Iterator[None]:
    """Draw inside this block in the style of the house; settings outside it stay as they were."""
    import matplotlib

    with matplotlib.rc_context(_settings(dark)):
        yield


def panels(
    rows: int = 1, columns: int = 1, *, width: float | None = None, height: float | None = None, **options: Any
) -> tuple["matplotlib.figure.Figure", Any]:
    """A figure and its axes without pyplot: no window, no global list of figures, safe in threads and loops.

    `width` and `height` are in inches; by default one panel is a column wide, several share a page.
    `options` go to `matplotlib.figure.Figure.subplots` (`sharex`, `squeeze`, `width_ratios`, ...).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    width = width or (COLUMN if columns == 1 else PAGE)
    height = height or rows * 0.72 * width / columns
    figure = Canvas(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **options)


_SYNTHETIC: ContextVar[bool] = ContextVar("synthetic", default=False)


@contextlib.contextmanager
def labelled(synthetic: bool) -> Iterator[None]:
    """Figures saved inside this block say in a corner that their data are synthetic, if they are: nobody has to think of it."""
    before = _SYNTHETIC.set(synthetic)
    try:
        yield
    finally:
        _SYNTHETIC.reset(before)


def _label(figure: "matplotlib.figure.Figure") -> None:
    """The words, once, under a drawing that makes room for them where its layout can."""
    if any(text.get_gid() == "synthetic" for text in figure.texts):
        return
    width, height = figure.get_size_inches()
    room = 0.12 / height
    engine = figure.get_layout_engine()
    if engine is not None and "rect" in engine.get():
        engine.set(rect=(0, room, 1, 1 - room))
    figure.text(1 - 0.04 / width, 0.3 * room, "synthetic data", ha="right", fontsize=5.5, color="0.5", gid="synthetic")


def save(figure: "matplotlib.figure.Figure", path: str | Path) -> Path:
    """Write a figure whole or not at all; the ending of `path` (png, svg, pdf) chooses the format.

    Inside `labelled(True)` it says that its data are synthetic. No date is written: the bytes depend on the drawing alone.
    """
    path = Path(path)
    import matplotlib

    if _SYNTHETIC.get():
        _label(figure)
    undated = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
    with write_whole(path) as whole, matplotlib.rc_context({"svg.hashsalt": "skyloom"}):
        figure.savefig(whole, metadata=undated)
    if "matplotlib.pyplot" in sys.modules:  # drawn with pyplot: let it go
        sys.modules["matplotlib.pyplot"].close(figure)
    return path
