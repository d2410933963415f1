"""The sweep's loop: claim trials, launch them, tell the study; until all are done or somebody asks for a stop."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from optuna.trial import TrialState
from rich.console import Console

from skyloom.run import Interrupted, StopSignals
from skyloom.sweep.study import Claim, Sweep
from skyloom.sweep.workers import Worker

__all__ = ["Busy", "Jobs", "conduct"]


class Busy(Exception):
    """Another process runs this trial already."""


class Lost(Exception):
    """The launcher lost the process of a trial; nobody knows how it ended."""


@dataclass(frozen=True)
class Jobs:
    """How trials are run: `launch` gives each one's value, values, or exception, in order."""

    launch: Callable[[list[list[str]], int], Sequence[Any]]
    prepare: Callable[[list[str], Path, dict[str, Any]], None]  # before the launch: the trial's run directory
    fixed: list[str]  # overrides that all trials share
    in_process: bool = True  # the launcher runs jobs here, so that a signal reaches the job
    detached: bool = False  # jobs live on without this process (a queue)


def conduct(sweep: Sweep, jobs: Jobs, batch: int) -> int | None:
    """Run the sweep; returns the signal that stopped it, or None when nothing was left to do."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with StopSignals(deferred=True) as stop, Worker(sweep.directory, float(sweep.settings["lease"])) as worker:
        while stop.requested is None:
            claims = sweep.claim(worker, batch)
            if not claims:
                break
            for claim in claims:
                console.print(_announced(sweep, claim), markup=False)
            words = [_prepared(sweep, jobs, claim) for claim in claims]
            try:
                with _stopping(stop, jobs):
                    outcomes = jobs.launch(words, claims[0].number)
            except Interrupted as stopped:  # the jobs live on in their queue, and a resume collects them
                return stopped.signum
            for claim, outcome in zip(claims, outcomes, strict=True):
                if isinstance(outcome, Interrupted):
                    sweep.excuse(claim.number)
                    if jobs.in_process:
                        stop.requested = outcome.signum
                elif not isinstance(outcome, (Busy, Lost)):
                    sweep.tell(claim.number, outcome)
                    console.print(_told(sweep, claim.number), markup=False)
            if stop.requested is None:
                sweep.check_failures()
    return stop.requested


def _prepared(sweep: Sweep, jobs: Jobs, claim: Claim) -> list[str]:
    """The overrides of a trial, whose run directory stands and holds the same."""
    own = sweep.space.overrides(claim.params)
    identity = sweep.trial_identity(claim.number)
    try:
        jobs.prepare([*jobs.fixed, *own], sweep.trial_directory(claim.number), identity)
    except Exception as error:
        sweep.tell(claim.number, error)
        raise
    return [*jobs.fixed, *own, f"++trial={_as_override(identity)}"]


def _as_override(identity: dict[str, Any]) -> str:
    def quoted(value: Any) -> str:
        if value is None or isinstance(value, int):
            return "null" if value is None else str(value)
        return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"

    return "{" + ",".join(f"{key}:{quoted(value)}" for key, value in identity.items()) + "}"


@contextlib.contextmanager
def _stopping(stop: StopSignals, jobs: Jobs) -> Iterator[None]:
    """While jobs run elsewhere a SIGTERM goes on to the processes that run them; a queue's jobs are left alone."""
    if jobs.in_process:
        yield
        return
    if jobs.detached:
        stop.deferred = False
        try:
            yield
        finally:
            stop.deferred = True
        return

    def forward(signum: int, frame: FrameType | None) -> None:
        stop.requested = signum
        for child in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signum)

    before = {signum: signal.signal(signum, forward) for signum in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _children() -> list[int]:
    children: list[int] = []
    for listed in Path("/proc/self/task").glob("*/children"):
        children += [int(word) for word in listed.read_text().split()]
    return children


def _announced(sweep: Sweep, claim: Claim) -> str:
    values = ", ".join(f"{name}={_short(value)}" for name, value in claim.params.items())
    return f"trial {claim.number} of {sweep.n_trials}{' (taken up again)' if claim.again else ''}: {values}"


def _told(sweep: Sweep, number: int) -> str:
    trials = sweep.trials
    trial = trials[number]
    ended = sum(t.state.is_finished() for t in trials)
    words = {TrialState.COMPLETE: "", TrialState.PRUNED: "pruned, ", TrialState.FAIL: "failed: "}[trial.state]
    if trial.state == TrialState.FAIL:
        return f"trial {number} {words}{trial.user_attrs.get('reason')} ({ended} of {sweep.n_trials} ended)"
    metrics = [entry["metric"] for entry in sweep.objective]
    shown = ", ".join(f"{m}={v:.5g}" for m, v in zip(metrics, trial.values or [], strict=False))
    return f"trial {number} {words}{shown}{_best(sweep)} ({ended} of {sweep.n_trials} ended)"


def _best(sweep: Sweep) -> str:
    best = sweep.study.best_trials
    if len(sweep.objective) > 1 or not best:
        return ""
    return f"; best {best[0].values[0]:.5g} in trial {best[0].number}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
