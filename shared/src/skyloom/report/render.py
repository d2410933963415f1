"""Templates, styles and pictures, put together into one file that needs nothing else."""

import base64
import functools
import io
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2
    import matplotlib.figure

__all__ = ["by_day_and_night", "inline", "is_wide", "render"]

_KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".svg": "image/svg+xml"}


@functools.cache
def _environment() -> "jinja2.Environment":
    import jinja2

    here = files("skyloom.report")
    loader = jinja2.FunctionLoader(lambda name: (here / name).read_text(encoding="utf-8"))
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def render(template: str, **values: Any) -> str:
    """Fill `template` (a file beside this one); every value is escaped, whatever it holds."""
    import skyloom

    style = (files("skyloom.report") / "style.css").read_text(encoding="utf-8")
    return _environment().get_template(template).render(style=style, version=skyloom.__version__, **values)


def inline(path: Path) -> str:
    """An image file as a data: address."""
    kind = _KINDS.get(path.suffix.lower(), "application/octet-stream")
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def is_wide(path: Path) -> bool:
    """Whether a PNG was drawn for more than one column: its header says how many pixels wide it is."""
    from skyloom.plots.style import COLUMN, DPI

    head = path.read_bytes()[:24]
    return head[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(head[16:20]) > 1.4 * COLUMN * DPI


def by_day_and_night(name: str, draw: Callable[[Any], "matplotlib.figure.Figure"], what: Any) -> dict[str, str]:
    """`draw(what)` as two data: addresses, on light and on dark ground; the reader's own setting picks one."""
    from skyloom.plots import style

    addresses = {}
    for ground in ("light", "dark"):
        with style(dark=ground == "dark"):
            buffer = io.BytesIO()
            draw(what).savefig(buffer, format="png", metadata={"Software": None})
        addresses[ground] = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"name": name, **addresses}
