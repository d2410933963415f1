"""Weights & Biases: online with an account, offline without one, never asking."""

import functools
import netrc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from skyloom.tracking.tracker import Identity, Tracker, numbers, objectives, plain, require

__all__ = ["WandB"]

# How wandb shows the end: anything but 0 is "failed" there. A pruned trial did what it was asked to.
_EXIT_CODES = {"finished": 0, "pruned": 0, "failed": 1, "interrupted": 130}


class WandB(Tracker):
    """One wandb run per run directory, under the same id, continued when the run is.

    The mode is decided before wandb is asked anything: `mode` here, else WANDB_MODE, else online when there are
    credentials (WANDB_API_KEY, an identity token, netrc) and offline when not, which is said once.

    Offline segments with one id overwrite each other when they are synced, and a killed process loses rows that it had
    not sent. So a run taken up again writes its whole history, from its own `metrics.jsonl`, into the new segment, and
    older segments move to `wandb/replaced`, where `wandb sync --sync-all` does not look. Online, only what the server
    has not seen is sent: resume is exact, hence repeated steps carry the values that are there already.
    """

    def __init__(
        self,
        project: str = "skyloom",
        entity: str | None = None,
        mode: str | None = None,
        model_artifact: bool = False,
        start_timeout: float = 60.0,  # seconds to wait for the server before training goes on without it
        finish_timeout: float = 300.0,  # seconds to wait for the last uploads; `wandb sync` sends what is left
    ):
        require("wandb", "WandB")
        self.project, self.entity, self.mode = project, entity, mode
        self.model_artifact = model_artifact
        self.start_timeout, self.finish_timeout = start_timeout, finish_timeout
        self._run: Any = None

    def start(self, run: Identity) -> None:
        import wandb

        mode = choose_mode(self.mode)
        if mode == "offline":
            _set_aside_older_segments(run.directory, run.run_id)
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            id=run.run_id,
            name=run.run_id,
            dir=str(run.directory),
            config=dict(run.config),
            group=run.group,
            job_type=run.job_type,
            tags=list(run.tags),
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",  # leave alone a run that a notebook may have open
            settings=wandb.Settings(
                silent=True, console="off", init_timeout=self.start_timeout, finish_timeout=self.finish_timeout
            ),
        )
        self._objectives = objectives(run.config)
        for metric, direction in self._objectives.items():
            self._run.define_metric(metric, summary="max" if direction == "maximize" else "min")
        self._seen = self._step = self._run.starting_step
        if mode == "online":
            say(f"wandb: {self._run.url}")

    def resume(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self.log(row, row["step"])

    def log(self, row: Mapping[str, Any], step: int) -> None:
        if step >= self._seen:
            self._run.log(numbers(row), step=step)
            self._step = step

    def figure(self, name: str, path: str | Path, caption: str = "") -> None:
        import wandb

        self._run.log({f"figures/{name}": wandb.Image(str(path), caption=caption or None)}, step=self._step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        data = [plain(list(row)) for row in rows]
        table = wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)
        self._run.log({f"tables/{name}": table}, step=self._step)

    def artifact(self, path: str | Path) -> None:
        if self.model_artifact:
            self._run.log_artifact(str(path), name=f"model-{self._run.id}", type="model")

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        try:
            # the objective's own summary entry is kept by wandb, as the best value that was logged
            values = {f"best/{k}" if k in self._objectives else k: plain(v) for k, v in summary.items()}
            run.summary.update({"status": status, **values})
        finally:
            run.finish(exit_code=_EXIT_CODES.get(status, 1))


def choose_mode(asked: str | None = None) -> Literal["online", "offline", "disabled"]:
    """Online needs credentials: without them wandb would ask, and a batch job would hang or fail."""
    mode = (asked or os.environ.get("WANDB_MODE") or "").strip().lower()
    if mode == "disabled":
        return "disabled"
    if mode in ("offline", "dryrun"):
        return "offline"
    if has_credentials():
        return "online"
    say(
        "wandb: no account found (WANDB_API_KEY or `wandb login`), so this run is recorded offline, "
        "in its own directory under wandb/; `wandb sync` sends it later."
    )
    return "offline"


def has_credentials() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            entry = netrc.netrc(str(path)).hosts.get(host)  # `hosts`, not a look-up: "default" is for other services
        except (OSError, netrc.NetrcParseError):
            continue
        if entry and entry[2]:
            return True
    return False


def _set_aside_older_segments(directory: Path, run_id: str) -> None:
    place = directory / "wandb"
    for segment in sorted(place.glob(f"offline-run-*-{run_id}")):
        target = place / "replaced" / segment.name
        number = 1
        while target.exists():
            target = target.with_name(f"{segment.name}.{number}")
            number += 1
        target.parent.mkdir(exist_ok=True)
        segment.rename(target)


@functools.cache
def say(message: str) -> None:
    """Once per process, however many runs it makes."""
    import rich

    rich.get_console().print(message, markup=False, highlight=False, soft_wrap=True)
