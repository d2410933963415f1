"""The page on positive-unlabeled learning runs as written, and uses every public name."""

import re
from pathlib import Path

import pytest

import skyloom.pu

PAGE = Path(__file__).parents[2] / "docs" / "pu.md"


def test_every_block_of_the_page_runs_and_every_public_name_is_on_it(capsys):
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    code = "\n".join(blocks)
    assert [name for name in skyloom.pu.__all__ if not re.search(rf"\b{name}\b", code)] == []
    assert "nothing is called positive" in capsys.readouterr().out


def test_the_room_opens_quickly_and_names_mistakes():
    assert set(skyloom.pu.__all__) <= set(dir(skyloom.pu))
    with pytest.raises(AttributeError, match="Did you mean 'nnpu'"):
        skyloom.pu.nnpuu  # noqa: B018
