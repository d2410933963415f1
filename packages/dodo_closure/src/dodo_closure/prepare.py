"""`make prepare`: files or synthetic states to one table of initial, final and Box3D states, in pieces, in parallel.

Work is cut into pieces; each becomes a part file of its own, whole or not at all, so that a stopped preparation goes on where
it was, and no process ever holds more than a piece. At the end the parts are joined, in order, into one HDF5 table.
"""

import csv
import hashlib
import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dodo_closure.emu import reduced_row
from dodo_closure.readers import Piece, Source, digest, open_source
from dodo_closure.rows import REASONS, Settings, table
from dodo_closure.tables import append, create
from dodo_closure.tiers import Synthetic
from skyloom.errors import ConfigError, DataError, MissingFile
from skyloom.run.files import write_json, write_whole
from skyloom.run.seeds import numpy_generator
from skyloom.training.progress import Bar

__all__ = ["Work", "prepare", "write_table"]


@dataclass(frozen=True)
class Work:
    """Rows start to stop of a file, or blocks start to stop of a synthetic family, as one piece."""

    source: Source | Synthetic
    start: int
    stop: int
    sim_id: str
    group: int
    """Number of the first group of rows of the source."""
    group_rows: int

    def read(self) -> tuple[Piece, np.ndarray | None, np.ndarray, str]:
        """Rows, which have settled, their groups, and why all are refused (or "")."""
        if isinstance(self.source, Synthetic):
            parts = [self.source.read(block) for block in range(self.start, self.stop)]
            piece = Piece(
                np.concatenate([part.initial for part, _ in parts]),
                np.concatenate([part.final for part, _ in parts if part.final is not None]),
                names=[name for part, _ in parts for name in part.names],
            )
            groups = self.group + np.repeat(np.arange(self.start, self.stop), self.source.block_rows)
            return piece, np.concatenate([settled for _, settled in parts]), groups, ""
        if self.source.kind == "emu":
            piece, why = reduced_row(self.source.path)
            return piece, None, np.array([self.group]), why
        piece = self.source.read(self.start, self.stop)
        groups = self.group + (np.arange(self.start, self.stop) // self.group_rows if piece.groups is None else piece.groups)
        return piece, None, groups, ""

    @property
    def name(self) -> str:
        if isinstance(self.source, Source):
            return str(self.source.path)
        return f"synthetic {self.source.tier} {self.source.family}"

    def first_row(self) -> int:
        return self.start * (self.source.block_rows if isinstance(self.source, Synthetic) else 1)


def prepare(
    input: str | Sequence[str] | None = None,
    source: str | None = None,
    output: str | None = None,
    tier: str = "t2",
    n: int = 5000,
    families: Sequence[str] = ("merger", "random"),
    heldout_family: str | None = "nsm_like",
    heldout_n: int | None = None,
    least_ratio: float = 0.03,
    amplitude: float = 0.05,
    seed: int = 0,
    layout: str | None = None,
    kind: str | None = None,
    max_rows: int | None = None,
    on_invalid: str = "drop",
    shuffle: bool = False,
    quadrature: str = "exact",
    variant: str = "box",
    average_heavies: bool = True,
    max_flux_factor: float = 0.9,
    smooth: bool = True,
    group_rows: int = 512,
    piece_rows: int | None = None,
    processes: int | None = None,
    cache_dir: str = "cache",
    quiet: bool = False,
) -> dict[str, Any]:
    """Files (`input`: one, several with commas between, a folder or a pattern) or `source=synthetic` states to one table.

    Args:
        output: HDF5 file; beside it come a report (JSON) and the list of refused rows (CSV)
        tier, n, families, heldout_family, heldout_n, least_ratio, amplitude, seed: of synthetic states; heldout_n rows (n / 10
            unless said) of a family that training leaves out
        layout: order of the axes of four-fluxes where their lengths do not tell it, e.g. ncsf
        kind: of the files; null: told from their data sets
        max_rows: of each file
        on_invalid: drop or raise
        shuffle: mix the rows (pieces among each other, and rows within each); splits by group do not need it
        quadrature, variant, average_heavies, max_flux_factor, smooth: see `dodo_closure.rows.Settings`
        group_rows: rows of a file that stay on one side of a split: neighbours on its grid
        piece_rows: rows of a piece; processes: null is one per core
    """
    if on_invalid not in ("drop", "raise"):
        raise ConfigError(f"on_invalid={on_invalid}: choose drop or raise.")
    settings = Settings(quadrature, variant, average_heavies, max_flux_factor, smooth)  # type: ignore[arg-type]
    if source == "synthetic" or (source is None and input is None):
        if input is not None:
            raise ConfigError("source=synthetic takes no input.")
        own = _families(families, heldout_family, n, n // 10 if heldout_n is None else heldout_n)
        works = _synthetic_work(own, tier, seed, least_ratio, amplitude, piece_rows)
        known: dict[str, Any] = {"synthetic": True, "tier": tier, "families": list(families), "heldout_family": heldout_family}
        name = f"synthetic-{tier}-{n}.h5"
    else:
        if input is None:
            raise ConfigError("say what to read, input=<file, folder or pattern>, or source=synthetic tier=t2 n=5000.")
        works = _file_work(_files(input), layout, kind, max_rows, group_rows, piece_rows or 16384)
        known, name = {"synthetic": False, "tier": "files", "heldout_family": None}, "preprocessed_all.h5"
    path = Path(output) if output else Path(cache_dir) / "dodo_closure" / name
    options = {"on_invalid": on_invalid, "shuffle": shuffle, "seed": seed}
    return write_table(path, works, settings, known, options, processes, quiet)


def _families(families: Sequence[str], heldout: str | None, n: int, heldout_n: int) -> list[tuple[str, int]]:
    shares = [(family, n // len(families)) for family in families]
    return [*shares, (heldout, heldout_n)] if heldout and heldout_n else shares


def _synthetic_work(
    families: Iterable[tuple[str, int]], tier: str, seed: int, least_ratio: float, amplitude: float, piece_rows: int | None
) -> list[Work]:
    works = []
    for place, (family, rows) in enumerate(families):
        source = Synthetic(family, tier, seed, least_ratio, amplitude=amplitude)
        blocks = max(-(-rows // source.block_rows), 1)
        at_once = max((piece_rows or (20 if tier in ("t2", "t3") else 4000)) // source.block_rows, 1)
        for start in range(0, blocks, at_once):
            works.append(Work(source, start, min(start + at_once, blocks), family, place << 32, source.block_rows))
    return works


def _files(given: str | Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for text in given.split(",") if isinstance(given, str) else given:
        path = Path(text)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix in (".h5", ".hdf5"))
            if not inside:
                raise MissingFile(f"{path} holds no .h5 file.")
            found += inside
        elif any(c in text for c in "*?["):
            inside = sorted(path.parent.glob(path.name))
            if not inside:
                raise MissingFile(f"no file matches {text}.")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise MissingFile(f"input={text}: there is no such file.")
    return found


def _file_work(
    paths: list[Path], layout: str | None, kind: str | None, max_rows: int | None, group_rows: int, piece_rows: int
) -> list[Work]:
    works = []
    for place, path in enumerate(paths):
        source = open_source(path, layout, kind)
        rows = min(source.rows, max_rows or source.rows)
        _same_unit(source)
        for start in range(0, rows, piece_rows):
            works.append(Work(source, start, min(start + piece_rows, rows), path.stem, place << 32, group_rows))
    return works


def _same_unit(source: Source) -> None:
    """A final state a million times denser than its initial state is in another unit; say so before all rows are refused."""
    if source.final is None or source.kind == "stable":
        return
    piece = source.read(0, min(source.rows, 64))
    assert piece.final is not None
    before, after = (part[..., 3].sum(axis=(1, 2)) for part in (piece.initial, piece.final))
    good = np.isfinite(before * after) & (before * after > 0)
    if not good.any():
        return
    ratio = np.median(after[good] / before[good])
    if abs(np.log10(ratio)) > 1:
        raise DataError(
            f"{source.path}: {source.final!r} is {ratio:.3g} times as dense as {source.initial!r} in its first rows. "
            "Neutrinos are conserved: these are different units, or different rows."
        )


# -------------------------------------------------------------------------------------------- pieces to parts


def write_table(
    path: Path,
    works: list[Work],
    settings: Settings,
    known: dict[str, Any],
    options: dict[str, Any],
    processes: int | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """All work, as parts beside `path`, then joined into it; returns the counts of the report."""
    if path.exists():
        raise ConfigError(f"output={path} exists already and is not overwritten: name another file.")
    files = {str(w.source.path): digest(w.source.path) for w in works if isinstance(w.source, Source)}
    record = {**asdict(settings), **options, "work": [repr(work) for work in works], "files": files}
    key = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]
    folder = path.parent / f".{path.stem}-{key}.parts"
    folder.mkdir(parents=True, exist_ok=True)
    _make_parts(works, folder, settings, options["on_invalid"] == "raise", processes, quiet)
    order = np.arange(len(works))
    if options["shuffle"]:
        order = numpy_generator(options["seed"], "shuffle pieces").permutation(len(works))
    report = _join(path, works, order, folder, {**known, "settings": asdict(settings), "options": options, "files": files})
    shutil.rmtree(folder)
    return report


def _part(folder: Path, number: int) -> Path:
    return folder / f"{number:07d}.npz"


def _make_parts(works: list[Work], folder: Path, settings: Settings, strict: bool, processes: int | None, quiet: bool) -> None:
    missing = [k for k in range(len(works)) if not _part(folder, k).is_file()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(processes or cores, len(missing))
    with Bar("preparing", len(works), len(works) - len(missing), quiet) as bar:
        if count <= 1:
            for k in missing:
                make_part(works[k], _part(folder, k), settings, strict)
                bar.advance()
            return
        with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_one_thread) as pool:
            waiting: set[Future[None]] = set()
            for k in missing:
                waiting.add(pool.submit(make_part, works[k], _part(folder, k), settings, strict))
                if len(waiting) >= 3 * count:
                    waiting = _collect(waiting, bar)
            while waiting:
                waiting = _collect(waiting, bar)


def _collect(waiting: set["Future[None]"], bar: Bar) -> set["Future[None]"]:
    done, rest = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
        bar.advance()
    return rest


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def make_part(work: Work, path: Path, settings: Settings, strict: bool) -> None:
    """One piece: its columns, groups and reasons."""
    piece, settled, groups, why = work.read()
    if why:
        columns, reason = table(piece, None, settings)
        columns = {name: value[:0] for name, value in columns.items()}
        reason = np.full(len(reason), len(REASONS))
    else:
        columns, reason = table(piece, settled, settings)
    texts = [*REASONS, why]
    if strict and reason.any():
        row = int(np.flatnonzero(reason)[0])
        raise DataError(f"{work.name}, row {work.first_row() + row}: {texts[reason[row]]}.")
    columns["dirname"] = np.array(columns["dirname"], dtype=np.str_)
    columns["split_group"] = groups[reason == 0]
    with write_whole(path) as temporary:
        np.savez(temporary, allow_pickle=False, reason=reason, texts=np.array(texts, dtype=np.str_), **columns)


def _join(path: Path, works: list[Work], order: np.ndarray, folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The table, its report and the list of refused rows."""
    counts: Counter[str] = Counter()
    rejected = path.with_name(f"{path.stem}_rejected.csv")
    kept = 0
    with write_whole(path) as temporary, create(temporary, about) as file:
        with write_whole(rejected) as listing, open(listing, "w", newline="", encoding="utf-8") as lines:
            writer = csv.writer(lines)
            writer.writerow(["file", "row", "reason"])
            for number in order:
                work = works[number]
                with np.load(_part(folder, number)) as part:
                    columns = {name: part[name] for name in part.files}
                reason, texts = columns.pop("reason"), columns.pop("texts")
                for row in np.flatnonzero(reason):
                    counts[str(texts[reason[row]])] += 1
                    writer.writerow([work.name, work.first_row() + row, texts[reason[row]]])
                if about["options"]["shuffle"]:
                    own = numpy_generator(about["options"]["seed"], "shuffle rows", int(number))
                    mixed = own.permutation(len(columns["ntot"]))
                    columns = {name: value[mixed] for name, value in columns.items()}
                append(file, columns, work.sim_id)
                kept += len(columns["ntot"])
        if kept == 0:
            raise DataError(f"no row can be used: {dict(counts)}. See the reasons above; {rejected} would list the rows.")
    report = {"written": str(path), "rows": kept, "refused": sum(counts.values()), "reasons": dict(counts)}
    write_json(path.with_name(f"{path.stem}_report.json"), {**report, "listed": str(rejected), "about": about})
    shown = {k: v for k, v in report.items() if k != "reasons"}
    return {**shown, **{f"refused, {why}": count for why, count in counts.items()}}
