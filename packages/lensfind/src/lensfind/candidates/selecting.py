"""Which cutouts to look at next: those that would teach the finder most, and those that are probably lenses, in turns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lensfind.candidates.shortlists import newest_scores
from skyloom.data.tables import read_columns
from skyloom.errors import ConfigError, DataError, nearest
from skyloom.run import Run
from skyloom.run.files import write_whole
from skyloom.run.seeds import numpy_generator

__all__ = ["STRATEGIES", "select"]

STRATEGIES = ("mixed", "bald", "batch_bald", "least_certain", "most_likely", "random")


def select(
    run: Run, n: int = 200, strategy: str = "mixed", scores: str | None = None, output: str | None = None, seed: int = 0
) -> dict[str, Any]:
    """Write a list of `n` unlabeled cutouts to label, in the order in which to look: select.csv of the run (or `output`).

    mixed: the most likely lenses and the most disputed (or, of a single network, the least certain) in turns, for lenses are
    rare and a list of doubts alone holds few; bald and batch_bald: where an ensemble's members disagree; least_certain;
    most_likely; random, the baseline. No label is read, and labelled rows are not chosen.
    """
    from skyloom.uncertainty.acquisition import Pool, bald, batch_bald, interleaved, least_certain, most_likely, random_rows

    if strategy not in STRATEGIES:
        raise ConfigError(f"there is no strategy {strategy!r}.{nearest(strategy, STRATEGIES)}")
    path = Path(scores) if scores else newest_scores(run)
    columns, _ = read_columns(path)
    logit = np.asarray(columns["calibrated"] if "calibrated" in columns else _logit(columns["probability"]), dtype=float)
    open_rows = np.isfinite(logit) & (columns["labelled"] == 0 if "labelled" in columns else True)
    rows = np.flatnonzero(open_rows)
    several = "members" in columns
    if strategy in ("bald", "batch_bald") and not several:
        raise DataError(f"{strategy} asks where members disagree: {path} is of a single network. Use an ensemble, or mixed.")
    members = columns["members"].T.astype(float) if several else logit[None]
    pool, fused = Pool(members[:, rows]), Pool(logit[None, rows])
    doubt = bald if several else least_certain

    def likely(_: Pool, k: int, rng: np.random.Generator) -> np.ndarray:
        return most_likely(fused, k, rng)  # by the probability that is stated

    rules: dict[str, Callable[..., Any]] = {
        "mixed": interleaved(likely, doubt), "bald": bald, "batch_bald": batch_bald, "least_certain": least_certain,
        "most_likely": likely, "random": random_rows,
    }  # fmt: skip
    chosen = rows[rules[strategy](pool, min(n, len(rows)), numpy_generator(seed, "select", strategy))]
    target = Path(output) if output else run.directory / "select.csv"
    _write(target, columns, chosen, logit)
    return {"chosen": len(chosen), "of": len(rows), "strategy": strategy, "written": str(target)}


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(np.asarray(p, dtype=float), 1e-9, 1 - 1e-9)
    return np.log(p / (1 - p))


def _write(path: Path, columns: dict[str, np.ndarray], chosen: np.ndarray, logit: np.ndarray) -> None:
    """Order, name, place and probability: nothing that depends on a label goes to those who will give one."""
    import pandas as pd

    table = {"order": np.arange(1, len(chosen) + 1), "id": columns["id"][chosen] if "id" in columns else chosen}
    table |= {name: columns[name][chosen] for name in ("ra", "dec") if name in columns}
    table["probability"] = 1 / (1 + np.exp(-logit[chosen]))
    with write_whole(path) as temporary:
        pd.DataFrame(table).to_csv(temporary, index=False)
