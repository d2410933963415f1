"""A configuration from overrides: composed by Hydra, checked, resolved once. Without torch."""

import os
import re
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from skyloom.errors import ConfigError, nearest
from skyloom.run.goals import check_goals

__all__ = ["choices", "compose_config", "conf_dir", "experiments", "first_comment", "groups", "resolve", "root_keys"]

SCALES = ("smoke", "laptop", "full")


def conf_dir() -> Path:
    """`conf/` of the checkout that the command is run in, or SKYLOOM_CONF."""
    if "SKYLOOM_CONF" in os.environ:
        return Path(os.environ["SKYLOOM_CONF"]).resolve()
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "conf" / "config.yaml").is_file():
            return folder / "conf"
    raise ConfigError("no conf/config.yaml here or above: run this in a Skyloom checkout, or set SKYLOOM_CONF.")


def choices(group: str) -> list[str]:
    """The choices of a group, those of sub-folders as `folder/name`."""
    folder = conf_dir() / group
    return sorted(str(p.relative_to(folder).with_suffix("")) for p in folder.rglob("*.yaml"))


def groups() -> list[str]:
    return sorted(p.name for p in conf_dir().iterdir() if p.is_dir())


def root_keys() -> set[str]:
    """The keys of `conf/config.yaml`."""
    return set(yaml.safe_load((conf_dir() / "config.yaml").read_text(encoding="utf-8")))


def experiments(pkg: str | None = None) -> dict[str, dict[str, Any]]:
    """Experiment files by name, of one package or all: their own keys, unresolved."""
    found = {}
    for name in choices("experiment"):
        stated: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "experiment" / f"{name}.yaml"))
        if pkg is None or stated.get("pkg") == pkg:
            found[name] = stated
    return found


def first_comment(experiment: str) -> str:
    """What an experiment's file says it shows: its first comment that is not Hydra's header."""
    for line in (conf_dir() / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.lstrip("# ").strip()
    return ""


def compose_config(overrides: list[str]) -> DictConfig:
    """Compose, with errors that name what exists; values are not resolved yet."""
    overrides = [f"+{word}" if word.startswith(("experiment=", "debug=")) else word for word in overrides]
    _check_choices(overrides)
    overrides = _of_package(overrides)
    _register_resolvers()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = compose("config", overrides)
    except OverrideParseException as error:
        raise ConfigError(f"cannot read the override {error.override!r}: {error}. Quote it for your shell?") from None
    except (ConfigCompositionException, HydraException, ValueError) as error:
        raise ConfigError(_teach(error, overrides)) from None
    _check_root(config)
    return config


def resolve(config: DictConfig, verb: str | None = None) -> dict[str, Any]:
    """Plain values: every interpolation resolved once, every missing one named.

    Of the package's verbs only `verb` stays; for a run, those that work on runs.
    """
    verbs = config.get("verbs") or {}
    config["verbs"] = {k: v for k, v in verbs.items() if (k == verb if verb else v.get("_partial_"))}
    try:
        OmegaConf.resolve(config)
        plain = OmegaConf.to_container(config, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_plainly(error)) from None
    assert isinstance(plain, dict)
    for name in ("trainer", "hardware", "workflow"):
        if "_target_" not in (plain.get(name) or {}):
            raise ConfigError(f"{name} is taken away (~{name}), but no run goes without it.")
    if type(plain.get("seed")) is not int:
        raise ConfigError(f"seed={plain.get('seed')}: a whole number is wanted.")
    check_goals(plain["goals"] or [])
    for entry in plain["objective"]:
        if set(entry) != {"metric", "direction"}:
            raise ConfigError(f"objective {entry} cannot be read: write {{metric: val/nll, direction: minimize}}.")
    return {str(key): value for key, value in plain.items()}


# -------------------------------------------------------------------- checks


def _check_choices(overrides: list[str]) -> None:
    """pkg and experiment first, in plain words, before anything heavy."""
    given = {word.split("=", 1)[0].lstrip("+"): word.split("=", 1)[1] for word in overrides if "=" in word}
    packages = choices("pkg")
    pkg, experiment = given.get("pkg"), given.get("experiment")
    if pkg is None:
        raise ConfigError(f"say which package: pkg=<name>, one of {', '.join(packages)}.")
    if pkg not in packages:
        raise ConfigError(f"pkg={pkg} does not exist.{nearest(pkg, packages)}")
    if experiment is None:
        return
    known = experiments()
    own = [name for name, stated in known.items() if stated.get("pkg") == pkg]
    if experiment not in known:
        raise ConfigError(f"+experiment={experiment} does not exist. {pkg} has: {', '.join(own) or 'none yet'}.")
    if known[experiment].get("pkg") != pkg:
        raise ConfigError(
            f"+experiment={experiment} belongs to pkg={known[experiment].get('pkg')}, not to pkg={pkg}, "
            f"which has: {', '.join(own) or 'none yet'}."
        )


def _of_package(overrides: list[str]) -> list[str]:
    """`data=bologna1` of pkg=lensfind is `data=lensfind/bologna1` where there is no other `bologna1`."""
    pkg = next(word.partition("=")[2] for word in overrides if word.lstrip("+").startswith("pkg="))
    named = []
    for word in overrides:
        group, _, choice = word.partition("=")
        folder = conf_dir() / group.lstrip("+")
        own = folder / pkg / f"{choice}.yaml"
        named.append(f"{group}={pkg}/{choice}" if own.is_file() and not (folder / f"{choice}.yaml").is_file() else word)
    return named


def _teach(error: Exception, overrides: list[str]) -> str:
    """Hydra's complaint about a key or choice, with the nearest valid ones."""
    text = str(error)
    choice = re.search(r"Could not (?:find|load) '([\w-]+)/(.+?)'", text)
    if choice:
        group, name = choice.groups()
        return f"{group}={name} does not exist.{nearest(name, choices(group))}"
    key = re.search(r"Could not override '([^']+)'", text)
    if key:
        inner = re.search(r"full_key: (\S+)", str(error.__cause__))
        name = inner.group(1) if inner else key.group(1)
        return f"there is no key {name!r} in the configuration.{nearest(name, _keys(overrides))}"
    several = re.search(r"Multiple values for ([\w/]+)", text)
    if several:
        return f"{several.group(1)} is chosen twice: give it once."
    return text.replace("\n", " ")


def _keys(overrides: list[str]) -> list[str]:
    """All dotted keys of the configuration that the group choices among `overrides` give."""
    kept = [word for word in overrides if word.split("=", 1)[0].lstrip("+") in {*groups(), "experiment"}]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", kept)
    found: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, dict):
            for name, child in node.items():
                found.append(f"{prefix}{name}")
                walk(child, f"{prefix}{name}.")

    walk(OmegaConf.to_container(config), "")
    return found


def _check_root(config: DictConfig) -> None:
    valid = {*root_keys(), *groups(), "devices"} - {"defaults", "hydra", "local", "debug"}
    for key in config:
        if key not in valid:
            raise ConfigError(f"there is no key {key!r} at the root of the configuration.{nearest(str(key), valid)}")


def _register_resolvers() -> None:
    """`${by_scale:smoke,laptop,full}` picks by `scale`."""

    def by_scale(*values: Any, _root_: DictConfig) -> Any:
        if len(values) != len(SCALES):
            raise ConfigError(f"by_scale takes {len(SCALES)} values ({', '.join(SCALES)}), not {len(values)}.")
        scale = _root_.scale
        if scale not in SCALES:
            raise ConfigError(f"scale={scale} does not exist.{nearest(scale, SCALES)}")
        return values[SCALES.index(scale)]

    OmegaConf.register_new_resolver("by_scale", by_scale, replace=True)


def _plainly(error: OmegaConfBaseException) -> str:
    """OmegaConf's complaint on one line, with the key it is about."""
    text = str(error).splitlines()[0].removeprefix("ConfigError raised while resolving interpolation: ")
    return f"{text} (at {error.full_key})" if error.full_key else text
