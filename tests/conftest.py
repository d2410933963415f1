"""A scratch checkout with a package made by `make new`, and the command line in this process or in one of its own."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("SKYLOOM_OVERRIDES", None)  # what `make test args=…` was given is not for the commands under test

import contextlib
import io
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("same", derandomize=True)  # a clone passes or fails for everybody alike; test-all explores
settings.load_profile("same")
ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "toyloom"


@pytest.fixture(autouse=True)
def same_numbers():
    """Whatever ran before in this process, a test starts from the same state of torch's own generator."""
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(0)


@dataclass
class Result:
    code: int
    out: str
    err: str


@dataclass
class Checkout:
    """Its `conf/` is a copy of ours, its only own package is `toyloom`."""

    root: Path

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.root / "packages" / PACKAGE / "src"), str(self.root)])
        own = {"SKYLOOM_CONF": self.root / "conf", "SKYLOOM_RUNS": self.runs, "SKYLOOM_CACHE": self.root / "cache"}
        silent = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "OMP_NUM_THREADS": "1"}
        clean = {k: v for k, v in os.environ.items() if k not in ("SKYLOOM_OVERRIDES", "MAKEFLAGS", "MAKEOVERRIDES")}
        return {**clean, **{k: str(v) for k, v in own.items()}, **silent, "PYTHONPATH": path}

    def start(self, *words: str) -> subprocess.Popen:
        """A command of its own process, still running."""
        command = [sys.executable, "-m", "skyloom.launch", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.root, env=self.environment(), **pipes)

    def run(self, *words: str, timeout: float = 240) -> Result:
        process = self.start(*words)
        out, err = process.communicate(timeout=timeout)
        return Result(process.returncode, out, err)

    def call(self, *words: str) -> Result:
        """The same in this process: quicker."""
        from skyloom.launch.__main__ import main

        before, here, environment = dict(os.environ), Path.cwd(), self.environment()
        out, err = io.StringIO(), io.StringIO()
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(self.root)
        added = environment["PYTHONPATH"].split(os.pathsep)
        sys.path[:0] = added
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(list(words))
        finally:
            os.chdir(here)
            os.environ.clear()
            os.environ.update(before)
            for path in added:
                sys.path.remove(path)
        return Result(code, out.getvalue(), err.getvalue())

    def newest(self):
        from skyloom.run import list_runs

        return list_runs(self.runs)[0]


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "conf", root / "conf")
    checkout = Checkout(root)
    assert checkout.call("new", f"pkg={PACKAGE}").code == 0
    return root


@pytest.fixture
def checkout(made, tmp_path) -> Checkout:
    """A fresh copy for each test."""
    root = tmp_path / "checkout"
    shutil.copytree(made, root)
    return Checkout(root)
