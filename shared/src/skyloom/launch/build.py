"""Objects from the configuration: every `_target_` checked against its signature before anything is built."""

import inspect
import logging
from collections.abc import Callable, Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_method, instantiate
from omegaconf import OmegaConf

from skyloom.errors import ConfigError, UserError, nearest
from skyloom.run import Interrupted

__all__ = ["build", "check_targets", "workflow_parts"]

PLAIN = (int, float, str, bool, type(None))
SPECIAL = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}


def check_targets(config: dict[str, Any]) -> int:
    """Refuse a key that the object it is meant for does not take. Returns how many objects were checked."""
    count = 0
    for path, node in _targets(config, ""):
        target = _locate(node["_target_"], path)
        names = _accepts(target)
        count += 1
        for key in node.keys() - SPECIAL:
            if names is not None and key not in names:
                raise ConfigError(f"{path}.{key}: {node['_target_']} has no such argument.{nearest(key, names)}")
        _check_values(target, node, path)
    return count


def _check_values(target: Callable[..., Any], node: dict[str, Any], path: str) -> None:
    """Refuse text where a number is meant, and the like, for arguments annotated with plain types."""
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # an annotation that cannot be resolved tells nothing
        return
    for key, value in node.items():
        hint = hints.get(key)
        options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if isinstance(value, (dict, list)) or not all(option in PLAIN for option in options):
            continue
        allowed = set(options)
        fits = type(value) in allowed or (type(value) is int and float in allowed)
        if not fits and not (type(value) is float and int in allowed and value.is_integer()):
            wanted = " or ".join(sorted("null" if kind is type(None) else kind.__name__ for kind in allowed))
            raise ConfigError(f"{path}.{key}={value}: {wanted} is wanted, not {type(value).__name__}.")


def build(config: dict[str, Any], name: str, **more: Any) -> Any:
    """The object of the node `name`; what it lacks or refuses becomes an error that names the node."""
    try:
        return instantiate(OmegaConf.create(config[name]), _convert_="all", **more)
    except InstantiationException as error:
        cause = error.__cause__
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, (UserError, Interrupted)):  # a signal can come while something is built
            raise cause from None
        if isinstance(cause, TypeError) and "argument" in str(cause):
            raise ConfigError(f"{name}: {cause}.") from None
        raise


def workflow_parts(workflow: Callable[..., Any]) -> list[str]:
    """The parts that a workflow asks for, by the names of its parameters."""
    function = workflow.func if hasattr(workflow, "func") else workflow
    return list(inspect.signature(function).parameters)


def _targets(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for name, child in node.items():
            yield from _targets(child, f"{path}.{name}" if path else str(name))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _targets(child, f"{path}[{index}]")


def _locate(target: str, path: str) -> Callable[..., Any]:
    complaints = logging.getLogger("hydra.utils")
    complaints.disabled = True
    try:
        return get_method(target)
    except Exception:
        pass
    finally:
        complaints.disabled = False
    from hydra._internal.utils import _locate as locate

    try:
        return locate(target)
    except Exception as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError(f"{path}._target_={target} cannot be imported: {reason}") from None


def _accepts(target: Callable[..., Any]) -> set[str] | None:
    """Names of its arguments, or None when it takes any."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return set(parameters)
