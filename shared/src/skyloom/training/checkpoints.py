"""Checkpoints: whole or not at all, checked by their digest, the previous good one kept, nothing unpickled."""

import hashlib
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch

from skyloom.errors import MissingFile, UserError
from skyloom.run.files import read_json, write_json, write_whole

__all__ = ["load_best", "load_last", "save"]

DIGESTS = "digests.json"


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(state: dict[str, Any], folder: Path, name: str, keep_previous: bool = False) -> None:
    """Write `folder/name`.pt; with `keep_previous` the file that stood there becomes previous.pt.

    Before the rename the new digest joins digests.json, so that at every moment each file's digest is known.
    """
    path = folder / f"{name}.pt"
    with write_whole(path) as temporary:
        torch.save(state, temporary)
        known = _known(folder)
        write_json(folder / DIGESTS, {**known, name: [*known.get(name, [])[-2:], _digest(temporary)]})
        if keep_previous and path.exists():
            _copy_aside(path, folder / "previous.pt")


def _known(folder: Path) -> dict[str, list[str]]:
    """Digests of the last three contents of each file."""
    return read_json(folder / DIGESTS) if (folder / DIGESTS).exists() else {}


def _copy_aside(path: Path, target: Path) -> None:
    """A second name for the old content (a hard link where the file system has them), put in place by a rename."""
    spare = target.with_name(f".{target.name}.spare")
    spare.unlink(missing_ok=True)
    try:
        os.link(path, spare)
    except OSError:
        shutil.copyfile(path, spare)
    os.replace(spare, target)


def _read(path: Path, device: Any = "cpu") -> dict[str, Any]:
    known = _known(path.parent)
    if known and _digest(path) not in known.get("last" if path.stem == "previous" else path.stem, []):
        raise UserError(f"{path} is damaged: its content is not what was saved.")
    return torch.load(path, map_location=device, weights_only=True)


def load_last(folder: Path) -> dict[str, Any] | None:
    """The newest good state: last.pt, or previous.pt with a warning when last.pt is damaged; None when nothing was saved."""
    tried = []
    for name in ("last", "previous"):
        path = folder / f"{name}.pt"
        if not path.exists():
            continue
        try:
            state = _read(path)
        except (UserError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
            tried.append(f"{path.name}: {str(error).splitlines()[0]}")
            continue
        if tried:
            warnings.warn(f"{'; '.join(tried)}. Going on from {path.name}, step {state['progress']['step']}.", stacklevel=2)
        return state
    if tried:
        raise UserError(f"no checkpoint in {folder} can be read ({'; '.join(tried)}). Start the run anew.")
    return None


def load_best(folder: Path, device: Any = "cpu") -> dict[str, Any]:
    path = folder / "best.pt"
    if not path.exists():
        raise MissingFile(f"{folder.parent} has no best checkpoint yet: it never reached a validation. Resume it with run=.")
    return _read(path, device)
