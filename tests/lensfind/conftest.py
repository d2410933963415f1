"""Small synthetic surveys and data sets, simulated once."""

from pathlib import Path

import pytest
import yaml

from lensfind.simulation.population import Population
from lensfind.survey import Survey

CONF = Path(__file__).parents[2] / "conf"


def load_survey(name: str, **changes) -> Survey:
    """A survey as its configuration file states it."""
    stated = yaml.safe_load((CONF / "survey" / f"{name}.yaml").read_text())
    del stated["_target_"]
    return Survey.of(**{**stated, **changes})


@pytest.fixture(scope="session")
def lsst() -> Survey:
    return load_survey("lsst")


@pytest.fixture(scope="session")
def population() -> Population:
    return Population()


@pytest.fixture(scope="session")
def small(lsst, tmp_path_factory):
    """A data set of a few hundred cutouts."""
    from lensfind.data import simulated

    return simulated(lsst, 160, 96, 160, size=40, seed=3, cache_dir=tmp_path_factory.mktemp("cache"))
