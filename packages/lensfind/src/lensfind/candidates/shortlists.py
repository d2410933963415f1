"""From scores to a list that people look at: ranked, one row per object, cut where the purity or the budget ends."""

import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lensfind.calibration.merit import sigmoid
from lensfind.candidates.sky import groups_on_sky
from skyloom.data.tables import read_columns
from skyloom.errors import ConfigError, MissingFile
from skyloom.run import Run
from skyloom.run.files import write_text, write_whole

__all__ = ["Shortlist", "candidates", "newest_scores", "shortlist"]

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Shortlist:
    """Rows of the scored table, best first, and what is to be expected of them."""

    rows: np.ndarray
    duplicates: int
    expected_lenses: float  # sum of the probabilities
    spread: float  # its standard deviation, if cutouts were independent: sqrt(sum p (1 - p))

    @property
    def expected_purity(self) -> float:
        return self.expected_lenses / len(self.rows) if len(self.rows) else float("nan")


def shortlist(
    probability: np.ndarray,
    ra: np.ndarray | None = None,
    dec: np.ndarray | None = None,
    radius: float = 2.0,
    budget: int | None = None,
    purity: float | None = None,
) -> Shortlist:
    """Rank by calibrated probability (ties by row), keep the best row of each object, and cut.

    Rows within `radius` arcsec of each other are one object. `purity` keeps the longest list whose mean probability, which is
    the expected share of lenses in it, is at least that; `budget` is the number that can be looked at. Rows without a
    probability are no candidates.

    >>> shortlist(np.array([0.2, 0.9, np.nan, 0.6]), purity=0.7).rows.tolist()
    [1, 3]
    """
    if purity is not None and not 0 < purity <= 1:
        raise ConfigError(f"purity={purity} lies in (0, 1].")
    if budget is not None and budget < 0:
        raise ConfigError(f"budget={budget} is the number of candidates to look at.")
    p = np.asarray(probability, dtype=float)
    order = np.argsort(-np.where(np.isfinite(p), p, -np.inf), kind="stable")[: int(np.isfinite(p).sum())]
    ranked = len(order)
    if ra is not None and dec is not None and ranked:
        objects = groups_on_sky(np.asarray(ra)[order], np.asarray(dec)[order], radius)
        order = order[np.sort(np.unique(objects, return_index=True)[1])]
    duplicates = ranked - len(order)
    if purity is not None and len(order):
        mean = np.cumsum(p[order]) / np.arange(1, len(order) + 1)
        pure = np.flatnonzero(mean >= purity)
        order = order[: pure[-1] + 1 if len(pure) else 0]
    order = order[:budget]
    return Shortlist(order, duplicates, float(p[order].sum()), float(np.sqrt((p[order] * (1 - p[order])).sum())))


def newest_scores(run: Run) -> Path:
    """The newest table of predictions for new data; if there is none, that of the test split."""
    folder = run.directory / "predictions"
    tables = sorted(folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime, reverse=True)
    others = [path for path in tables if path.stem not in ("val", "test", "members")]
    if not tables:
        raise MissingFile(f"{run.directory} has no predictions yet: make predict run={run.id} input=<cutouts>.")
    return others[0] if others else folder / "test.parquet"


def candidates(
    run: Run,
    scores: str | None = None,
    budget: int | None = 100,
    purity: float | None = None,
    radius: float = 2.0,
    known: bool = True,
    output: str | None = None,
) -> dict[str, Any]:
    """Write the candidates of a run: candidates.csv, .fits, .reg (DS9) and .html with their pictures.

    `scores` is a table of `make predict` (default: the newest; else the test split), `known=false` leaves out known lenses,
    `output` the directory (default: candidates/ of the run).
    """
    path = Path(scores) if scores else newest_scores(run)
    columns, about = read_columns(path)
    columns = _of_unlabeled(columns)
    if not known and "known_lens" in columns:
        keep = np.array([not name for name in columns["known_lens"]])
        columns = {name: values[keep] for name, values in columns.items()}
    chosen = shortlist(columns["probability"], columns.get("ra"), columns.get("dec"), radius, budget, purity)
    table = {"rank": np.arange(1, len(chosen.rows) + 1), **{name: values[chosen.rows] for name, values in columns.items()}}
    folder = Path(output) if output else run.directory / "candidates"
    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(folder / "candidates.csv", table)
    _write_fits(folder / "candidates.fits", table, bool(run.result.get("synthetic")))
    written = ["candidates.csv", "candidates.fits"]
    if "ra" in table:
        write_text(folder / "candidates.reg", regions(table, radius))
        written.append("candidates.reg")
    pictures = _pictures(run, path, columns, chosen.rows, about)
    best = np.max(columns["probability"], initial=-np.inf, where=np.isfinite(columns["probability"]))
    write_text(folder / "candidates.html", page(run, table, pictures, chosen, path, best))
    expected = {
        "expected lenses": f"{chosen.expected_lenses:.1f} ± {chosen.spread:.1f}",
        "expected purity": round(chosen.expected_purity, 4),
    }
    return {
        "candidates": len(chosen.rows),
        "duplicates left out": chosen.duplicates,
        **(expected if len(chosen.rows) else {"highest probability": round(float(best), 4)}),
        "written": f"{folder}: {', '.join([*written, 'candidates.html'])}",
    }


def _of_unlabeled(columns: Arrays) -> Arrays:
    """The columns of a scored table; of a test split's own, the unlabeled rows, as a scored table would have them."""
    if "labelled" in columns:
        rows = columns["labelled"] == 0
        columns = {name: values[rows] for name, values in columns.items() if name not in ("labelled", "lens")}
        columns["id"] = np.flatnonzero(rows)
    if "probability" not in columns:
        columns["probability"] = sigmoid(columns.get("calibrated", columns["logit"]))
    return columns


# ---------------------------------------------------------------- files


def _write_csv(path: Path, table: Arrays) -> None:
    import pandas as pd

    with write_whole(path) as temporary:
        pd.DataFrame(dict(table)).to_csv(temporary, index=False)


def _write_fits(path: Path, table: Arrays, synthetic: bool) -> None:
    from astropy.table import Table

    plain = {name: values.astype(str) if values.dtype.kind in "OU" else values for name, values in table.items()}
    made = Table(plain)
    for name in ("ra", "dec"):
        if name in made.colnames:
            made[name].unit = "deg"
    made.meta["SYNTH"] = synthetic
    with write_whole(path) as temporary:
        made.write(temporary, format="fits", overwrite=True)


def regions(table: Arrays, radius: float) -> str:
    """Circles for DS9, in ICRS degrees, with rank and probability."""
    lines = ["# Region file format: DS9 version 4.1", "global color=cyan width=1", "icrs"]
    for rank, ra, dec, p in zip(table["rank"], table["ra"], table["dec"], table["probability"], strict=True):
        if np.isfinite(ra) and np.isfinite(dec):
            lines.append(f'circle({ra:.7f},{dec:.7f},{radius:g}") # text={{{rank}: {p:.3f}}}')
    return "\n".join(lines) + "\n"


def _pictures(run: Run, path: Path, columns: Arrays, rows: np.ndarray, about: dict[str, Any]) -> list[bytes] | None:
    """PNG bytes of each candidate: simulated again from its seed, or read from the input that was scored."""
    import pyarrow.parquet as pq

    from lensfind.evaluate import figures
    from skyloom.training.checkpoints import load_best

    known = load_best(run.checkpoints)["about"] if (run.checkpoints / "best.pt").exists() else about
    if (
        path.stem == "test"
        and "seed" in columns
        and known.get("synthetic")
        and "population" in known
        and figures.same_sky(known)
    ):
        images = figures.cutouts(rows, columns, known).numpy() if len(rows) else np.zeros((0, 1, 1, 1))
    else:
        from lensfind.candidates.sources import open_source

        notes = {k.decode(): v.decode() for k, v in (pq.read_schema(path).metadata or {}).items()}
        if "input" not in notes or not Path(notes["input"]).exists():
            return None
        tiles = json.loads(notes.get("tiles", "{}")) or None
        source = open_source(notes["input"], known["bands"], int(known["size"]), tiles)
        place = {str(name): k for k, name in enumerate(source.ids)}
        wanted = np.array([place[str(name)] for name in columns["id"][rows]], dtype=int)
        images = source.read(wanted) if len(wanted) else np.zeros((0, 1, 1, 1))
    return figures.pngs(np.nan_to_num(images), known)


def page(run: Run, table: Arrays, pictures: list[bytes] | None, chosen: Shortlist, path: Path, best: float) -> str:
    """One self-contained page: a card per candidate; if there is none, the `best` probability that was found."""
    import base64

    shown = [name for name in ("probability", "score", "conformal", "flags", "known_lens") if name in table]
    cards = []
    for k in range(len(chosen.rows)):
        picture = ""
        if pictures is not None:
            data = base64.b64encode(pictures[k]).decode()
            picture = f'<img src="data:image/png;base64,{data}" alt="cutout of {html.escape(str(table["id"][k]))}">'
        place = ""
        if "ra" in table and np.isfinite(table["ra"][k]):
            place = f'<span class="place">{table["ra"][k]:.5f} {table["dec"][k]:+.5f}</span>'
        facts = [f"{name.replace('_', ' ')} {_shown(table[name][k])}" for name in shown if str(table[name][k])]
        lines = "".join(f"<span>{html.escape(fact)}</span>" for fact in facts)
        cards.append(
            f"<figure>{picture}<figcaption><b>{k + 1}</b> {html.escape(str(table['id'][k]))} {place}{lines}</figcaption>"
            "</figure>"
        )
    note = "Synthetic images: nothing here is on the sky. " if run.result.get("synthetic") and path.stem == "test" else ""
    head = (
        f"{note}{len(chosen.rows)} candidates from {html.escape(path.name)}; expected lenses {chosen.expected_lenses:.1f} ± "
        f"{chosen.spread:.1f}, expected purity {chosen.expected_purity:.2f}; {chosen.duplicates} duplicates left out."
        if len(chosen.rows)
        else f"{note}No candidates: the highest probability in {html.escape(path.name)} is {best:.2f}; ask for less purity."
    )
    return _PAGE.format(title=html.escape(f"Candidates of {run.id}"), head=head, cards="\n".join(cards))


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, (float, np.floating)) else str(value)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --rule: #d0d7de; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e6edf3; --paper: #0d1117; --rule: #30363d; }} }}
body {{ font: 15px/1.4 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 1.5rem auto;
  max-width: 1200px; padding: 0 1rem; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 0.8rem; }}
figure {{ margin: 0; border: 1px solid var(--rule); border-radius: 6px; overflow: hidden; }}
img {{ width: 100%; display: block; image-rendering: pixelated; }}
figcaption {{ padding: 0.4rem 0.5rem; font-size: 12px; }}
figcaption span {{ display: block; }}
</style></head>
<body><h1>{title}</h1><p>{head}</p><main>
{cards}
</main></body></html>
"""
