"""A finder on other surveys' sky: each is seen through its own noise, and what cannot be compared is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lensfind.evaluate.across import across, opened
from skyloom.errors import ConfigError
from skyloom.metrics import auroc_delong
from skyloom.run import Run


class Brightness(nn.Module):
    """Its logit is the mean of the flux over the noise."""

    def __init__(self, about):
        super().__init__()
        for name, values in about["statistics"].items():
            self.register_buffer(name, torch.tensor(values)[:, None, None])

    def predict(self, batch):
        return {"logit": (batch["image"] / self.noise).mean(dim=(1, 2, 3))}


@pytest.fixture
def skies(small):
    """One sky, and another whose camera has ten times the noise in its first band."""
    first, *others = small.about["statistics"]["noise"]
    noisy = {**small.about["statistics"], "noise": [10 * first, *others]}
    other = {**small.about, "survey": {**small.about["survey"], "name": "other"}, "statistics": noisy}
    return {"lsst": small, "other": replace(small, about=other)}


@pytest.fixture
def runs(skies, tmp_path, monkeypatch):
    monkeypatch.setattr("hydra.utils.instantiate", lambda node, **_: skies[node["name"]])
    loaded = lambda run: (Brightness(skies[run.config["data"]["name"]].about), skies[run.config["data"]["name"]].about)  # noqa: E731
    monkeypatch.setattr("skyloom.training.saved.load_task", loaded)
    return [
        Run.create(tmp_path, {"pkg": "lensfind", "survey": {"name": name}, "data": {"name": name}}, directory=tmp_path / name)
        for name in skies
    ]


def test_every_sky_is_seen_through_its_own_noise(runs, skies):
    found = across(opened([str(run.directory) for run in runs]))
    assert [line["learned"] for line in found] == ["lsst", "other"]
    rows = skies["lsst"].test["labelled"].numpy() == 0
    lens = skies["lsst"].test["lens"].numpy()[rows] > 0
    for line in found:
        for name, sky in skies.items():
            noise = torch.tensor(sky.about["statistics"]["noise"])[:, None, None]
            logit = (sky.test["image"] / noise).mean(dim=(1, 2, 3)).numpy()[rows].astype(np.float64)
            assert line["auroc"][name]["value"] == pytest.approx(float(auroc_delong(logit, lens)), abs=1e-6)
    assert found[0]["auroc"]["lsst"]["value"] != found[0]["auroc"]["other"]["value"]
    assert (runs[0].directory / "across.json").is_file()


def test_other_sizes_and_the_same_survey_twice_are_refused(runs, skies):
    skies["other"].about["size"] = 48
    with pytest.raises(ConfigError, match="same bands and size"):
        across(runs)
    with pytest.raises(ConfigError, match="different surveys"):
        across([runs[0], runs[0]])
