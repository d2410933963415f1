"""TensorBoard event files in the run directory."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skyloom.tracking.tracker import Identity, Tracker, numbers, objectives, plain, require

__all__ = ["TensorBoard"]


class TensorBoard(Tracker):
    """Scalars, figures, tables and the configuration, under `<run>/tensorboard`; look with `tensorboard --logdir runs`.

    A run taken up again writes its events anew from its own records: a killed process has lost what it had not
    flushed, and repeats what came after the last checkpoint, so the old file has holes and doubles.
    """

    def __init__(self, folder: str = "tensorboard", flush_seconds: int = 20):
        require("tensorboard", "TensorBoard")
        self.folder = folder
        self.flush_seconds = flush_seconds
        self._writer: Any = None

    def start(self, run: Identity) -> None:
        from torch.utils.tensorboard import SummaryWriter

        place = run.directory / self.folder
        for old in place.glob("events.out.tfevents.*"):
            old.unlink()
        self._config, self._step, self._shown = run.config, 0, set[str]()
        self._writer = SummaryWriter(str(place), flush_secs=self.flush_seconds)
        about = {"run": run.run_id, "group": run.group, "job_type": run.job_type, "tags": list(run.tags)}
        self._writer.add_text("about", _code({k: v for k, v in about.items() if v}))
        self._writer.add_text("config", _code(self._config))

    def resume(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self.log(row, row["step"])

    def log(self, row: Mapping[str, Any], step: int) -> None:
        self._step = max(self._step, step)
        for key, value in numbers(row).items():
            self._writer.add_scalar(key, value, step)
            self._shown.add(key)

    def figure(self, name: str, path: str | Path, caption: str = "") -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            paper = Image.new("RGBA", picture.size, "white")
            paper.alpha_composite(picture.convert("RGBA"))
        self._writer.add_image(f"figures/{name}", np.asarray(paper.convert("RGB")), self._step, dataformats="HWC")
        if caption:
            self._writer.add_text(f"figures/{name}", caption, self._step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        self._writer.add_text(name, "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines), self._step)

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.add_text("result", _code({"status": status, **summary}), self._step)
            self._settings_against_results(writer, status, numbers(summary))
        finally:
            writer.close()

    def _settings_against_results(self, writer: Any, status: str, results: dict[str, float]) -> None:
        """The HParams page, in the run's own event file (torch's `add_hparams` would start a second one)."""
        from torch.utils.tensorboard.summary import hparams

        settings = dict(leaves(self._config))
        experiment, begin, end = hparams(settings, results | dict.fromkeys(objectives(self._config), 0.0))  # names only
        for event in (experiment, begin, end):
            writer.file_writer.add_summary(event)
        for key in set(results) - self._shown:  # a curve that is there already gets no extra point
            writer.add_scalar(key, results[key], self._step)


def leaves(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted names and values of a nested configuration; a list is one value, written as JSON.

    >>> leaves({"model": {"widths": [64, 128], "name": "vit"}, "seed": 1})
    [('model.widths', '[64, 128]'), ('model.name', 'vit'), ('seed', 1)]
    """
    found: list[tuple[str, Any]] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            found += leaves(value, f"{prefix}{key}.")
        else:
            simple = isinstance(value, (bool, int, float, str))
            found.append((f"{prefix}{key}", value if simple else json.dumps(value)))
    return found


def _code(value: Any) -> str:
    text = json.dumps(plain(value), indent=2, ensure_ascii=False)
    return "\n".join("    " + line for line in text.splitlines())


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
