"""Where the time of a step goes: torch's profiler over a few steps of a run, as a table and as a trace."""

from pathlib import Path
from types import TracebackType

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from skyloom.run.files import write_text, write_whole
from skyloom.training.progress import said

__all__ = ["Profiler"]


class Profiler:
    """Skip four steps, watch `steps`, and write `folder/table.txt` and `folder/trace.json` (for ui.perfetto.dev)."""

    def __init__(self, folder: Path, steps: int):
        self.folder = folder
        devices = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        timing = schedule(wait=2, warmup=2, active=steps, repeat=1)
        self._profile = profile(activities=devices, schedule=timing, on_trace_ready=self._write)

    def __enter__(self) -> "Profiler":
        self._profile.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._profile.__exit__(kind, error, trace)

    def step(self) -> None:
        self._profile.step()

    def _write(self, watched: profile) -> None:
        key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        write_text(self.folder / "table.txt", watched.key_averages().table(sort_by=key, row_limit=30))
        with write_whole(self.folder / "trace.json") as temporary:
            watched.export_chrome_trace(str(temporary))
        said(f"profile: {self.folder / 'table.txt'}")
