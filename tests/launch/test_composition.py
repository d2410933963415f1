"""Every experiment in the tree composes, and every object that it names exists and takes what it is given."""

import re

import pytest
from omegaconf import OmegaConf

from conftest import ROOT
from skyloom.launch.build import check_targets
from skyloom.launch.compose import choices, compose_config, experiments, first_comment, resolve

EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("SKYLOOM_CONF", raising=False)


def test_none_is_overlooked():
    assert sorted(experiments()) == EXPERIMENTS
    listed = [name for pkg in choices("pkg") for name in experiments(pkg)]
    assert sorted(listed) == EXPERIMENTS
    assert len(EXPERIMENTS) >= 5


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("scale", ["smoke", "full"])
def test_it_composes_and_its_objects_take_what_they_are_given(name, scale):
    pkg = experiments()[name]["pkg"]
    config = resolve(compose_config([f"pkg={pkg}", f"+experiment={name}", f"scale={scale}"]))
    assert config["experiment"] == name
    assert check_targets(config) >= 3


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_opens_with_what_it_shows_and_states_goals(name):
    assert len(first_comment(name)) > 30
    assert experiments()[name].get("goals"), "an experiment states its goals beside its settings"


@pytest.mark.parametrize("pkg", sorted(p.name for p in (ROOT / "packages").iterdir() if p.is_dir()))
def test_each_package_has_defaults_and_an_experiment(pkg):
    config = resolve(compose_config([f"pkg={pkg}", "scale=smoke"]))
    assert config["objective"]
    assert experiments(pkg)


@pytest.mark.parametrize("preset", ["one_step", "overfit", "profiler"])
def test_debug_presets_compose(preset):
    resolve(compose_config(["pkg=lensfind", f"+debug={preset}"]))


def test_every_hardware_logger_optimizer_and_schedule_composes():
    for group in ("hardware", "logger", "optimizer", "schedule", "scale"):
        for choice in choices(group):
            config = resolve(compose_config(["pkg=cinn_clusters", f"{group}={choice}"]))
            if group in ("optimizer", "schedule"):
                check_targets({group: config[group]})


def test_numbers_are_numbers():
    """YAML 1.1 alone would read 1e-3 as text."""
    assert OmegaConf.create("x: 1e-3").x == 0.001
    for path in (ROOT / "conf").rglob("*.yaml"):
        stack = [OmegaConf.to_container(OmegaConf.load(path))]
        while stack:
            node = stack.pop()
            stack += list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
            assert not (isinstance(node, str) and re.fullmatch(r"[-+]?\d[\d.]*(e[-+]?\d+)?", node)), f"{path}: {node} is text"
