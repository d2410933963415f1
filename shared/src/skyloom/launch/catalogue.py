"""`ls`: a package's experiments and their goals. `config`: what a command would run, and every choice of every group."""

import yaml
from rich.console import Console
from rich.table import Table

from skyloom.errors import ConfigError, nearest
from skyloom.launch.compose import choices, compose_config, experiments, first_comment, groups, resolve
from skyloom.launch.summary import goal_text
from skyloom.launch.words import take

__all__ = ["config", "ls"]


def ls(words: list[str]) -> int:
    own, _ = take(words, "pkg")
    if "pkg" in own and own["pkg"] not in choices("pkg"):
        raise ConfigError(f"pkg={own['pkg']} does not exist.{nearest(own['pkg'], choices('pkg'))}")
    found = experiments(own.get("pkg"))
    table = Table("package", "experiment", "what it shows", "goals", box=None, pad_edge=False)
    for name, stated in sorted(found.items(), key=lambda item: (item[1].get("pkg", ""), item[0])):
        goals = "; ".join(goal_text(goal) for goal in stated.get("goals") or [])
        table.add_row(stated.get("pkg", ""), name, first_comment(name), goals)
    Console(highlight=False).print(table)
    return 0


def config(words: list[str]) -> int:
    composed = resolve(compose_config(words))
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(yaml.safe_dump(composed, sort_keys=False, allow_unicode=True), end="")
    console.print("\n# choices of every group")
    pkg = composed["pkg"]
    for group in groups():
        own = [c for c in choices(group) if "/" not in c or c.startswith(f"{pkg}/") or group == "sweep"]
        if group == "experiment":
            own = [f"+{c}" for c in experiments(pkg)]
        console.print(f"#   {group}: {', '.join(own)}")
    return 0
