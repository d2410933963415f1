import shutil

import pytest

from conftest import ROOT
from parabola import CONFIG


@pytest.fixture
def home(tmp_path):
    """A Hydra application of its own, with our sweep group."""
    shutil.copytree(ROOT / "conf" / "sweep", tmp_path / "conf" / "sweep")
    (tmp_path / "conf" / "config.yaml").write_text(CONFIG.replace("RUNS", str(tmp_path / "runs")))
    return tmp_path
