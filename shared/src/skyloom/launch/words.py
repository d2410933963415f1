"""The `name=value` words of a command line, as Make or the shell hands them over."""

import os
import re
from typing import Any

__all__ = ["make_words", "parsed", "take"]


def make_words(text: str) -> list[str]:
    r"""Words of Make's MAKEOVERRIDES in the order typed. Make lists them backwards, doubles `\` and `$`, escapes blanks.

    >>> make_words(r"model.widths=[64,128] title=two\ words +experiment=vit pkg=lensfind")
    ['pkg=lensfind', '+experiment=vit', 'title=two words', 'model.widths=[64,128]']
    """
    words = re.findall(r"(?:\\.|[^\s\\])+", text)
    return [re.sub(r"\\(.)", r"\1", word).replace("$$", "$") for word in reversed(words)]


def given_words(argv: list[str]) -> list[str]:
    return argv + make_words(os.environ.get("SKYLOOM_OVERRIDES", ""))


def take(words: list[str], *names: str) -> tuple[dict[str, str], list[str]]:
    """The launcher's own words by name, and the rest, which is Hydra's.

    >>> take(["run=abc", "seed=1"], "run", "input")
    ({'run': 'abc'}, ['seed=1'])
    """
    own: dict[str, str] = {}
    rest = []
    for word in words:
        name, _, value = word.partition("=")
        if name in names:
            own[name] = value
        else:
            rest.append(word)
    return own, rest


def parsed(value: str) -> Any:
    """What the text after `=` means, as in a configuration file.

    >>> parsed("1e-3"), parsed("[a, 2]"), parsed("null")
    (0.001, ['a', 2], None)
    """
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.create(f"value: {value}"))["value"]  # type: ignore[index, call-overload]
