"""Verbs that packages bring: what `verbs.<name>` of the configuration names, called before a run or on one.

    verbs:
      prepare: {_target_: lensfind.prepare.prepare, survey: "${survey}", n: 20000}           # make prepare pkg=… n=100
      candidates: {_target_: lensfind.candidates.candidates, _partial_: true, budget: 100}   # make candidates run=… budget=50

A word whose name is an argument of the verb sets it; every other word is Hydra's. A function on a run gets `run` besides.
What is returned, {name: value}, is printed.
"""

from typing import Any

from omegaconf import OmegaConf

from skyloom.errors import ConfigError, nearest
from skyloom.launch.build import build, check_targets
from skyloom.launch.compose import choices, compose_config, conf_dir, groups, resolve, root_keys
from skyloom.launch.saved import named_run
from skyloom.launch.words import parsed, take
from skyloom.training.progress import said

__all__ = ["call", "package_verbs"]


def package_verbs() -> dict[str, list[str]]:
    """Every verb that a package brings, with the packages that have it."""
    found: dict[str, list[str]] = {}
    for pkg in choices("pkg"):
        for verb in _stated(pkg):
            found.setdefault(verb, []).append(pkg)
    return found


def call(verb: str, words: list[str]) -> int:
    own, rest = take(words, "run")
    result = _on_run(verb, own["run"], rest) if "run" in own else _before_run(verb, rest)
    for name, value in (result or {}).items():
        said(f"{name}: {value}")
    return 0


def _before_run(verb: str, words: list[str]) -> Any:
    pkg = take(words, "pkg")[0].get("pkg")
    known = package_verbs()
    if pkg is None:
        raise ConfigError(f"say which package: make {verb} pkg=<name>, one of {', '.join(known[verb])}.")
    if pkg in choices("pkg") and verb not in _stated(pkg):
        raise ConfigError(f"pkg={pkg} has no verb {verb!r}; {', '.join(known[verb])} have.")
    node = _stated(pkg).get(verb, {})
    if node.get("_partial_"):
        raise ConfigError(f"`{verb}` works on a run: say run=<directory or a unique part of it>.")
    shared = {*groups(), *root_keys(), "experiment", "debug"}
    arguments = {name for name in node if not name.startswith("_")} - shared
    overrides = []
    for word in words:
        name = word.partition("=")[0]
        if name in arguments:
            overrides.append(f"++verbs.{verb}.{word}")
            continue
        if "." not in name and name.lstrip("+~") not in shared:
            raise ConfigError(f"`{verb}` has no argument {name!r}.{nearest(name, {*arguments, *shared})}")
        overrides.append(word)
    config = resolve(compose_config(overrides), verb=verb)
    check_targets(config["verbs"])
    return build(config["verbs"], verb)


def _on_run(verb: str, text: str, words: list[str]) -> Any:
    run, config, words = named_run(text, words)
    verbs = config.get("verbs") or {}
    if verb not in verbs:
        raise ConfigError(f"`{verb}` does not work on a run of pkg={config['pkg']}.{nearest(verb, verbs)}")
    node = dict(verbs[verb])
    for word in words:
        name, _, value = word.partition("=")
        if name not in node or name.startswith("_"):
            raise ConfigError(f"`{verb}` has no argument {name!r}.{nearest(name, [n for n in node if not n.startswith('_')])}")
        node[name] = parsed(value)
    check_targets({verb: node})
    return build({verb: node}, verb)(run=run)


def _stated(pkg: str) -> dict[str, dict[str, Any]]:
    """The verbs in a package's file, unresolved."""
    stated: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "pkg" / f"{pkg}.yaml"))
    return stated.get("verbs") or {}
