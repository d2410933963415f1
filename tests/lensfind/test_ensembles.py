"""Fusing members: weights that are known to be best, trust that sharpness does not buy, scores that must earn their place."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from lensfind.candidates.selecting import STRATEGIES, select
from lensfind.ensembles.fusing import RULES, fuse, population_risk, pu_stack, worth_keeping
from lensfind.ensembles.members import Ensemble, colour_agreement, compared, train
from lensfind.models import LightTransformer, LinearHead, finder
from lensfind.training.task import LensFinder
from skyloom.data.tables import write_columns
from skyloom.errors import ConfigError, DataError
from skyloom.pu import nnpu
from skyloom.run import Run

PRIOR = 0.1


def members(strengths, labelled=3000, unlabeled=20_000, prior=PRIOR, seed=0):
    """Members that see independent Gaussian evidence of distance d: their calibrated logits add up to the best one."""
    rng = np.random.default_rng(seed)
    lens = np.concatenate([np.ones(labelled, bool), rng.random(unlabeled) < prior])
    d = np.asarray(strengths, float)[:, None]
    evidence = d * rng.normal(d * lens, 1.0) - d**2 / 2
    return evidence + np.log(prior / (1 - prior)), np.arange(len(lens)) < labelled, lens


def test_stacking_finds_the_known_best_weights_without_a_negative():
    z, labelled, _ = members([1.5, 1.0, 1e-3])
    base = np.log(PRIOR / (1 - PRIOR))
    a, _, b = pu_stack(z[:2], labelled, PRIOR, ridge=1e-4)
    assert a == pytest.approx([1.0, 1.0], abs=0.13)
    assert b == pytest.approx(-base, abs=0.4)  # evidence adds, the prior counts once


def test_a_useless_member_gets_little_and_twins_share():
    z, labelled, _ = members([1.5])
    noise = np.random.default_rng(5).normal(size=z.shape)
    a, _, _ = pu_stack(np.concatenate([z, noise]), labelled, PRIOR)
    assert a[1] < 0.15 * a[0]
    twins, _, _ = pu_stack(np.concatenate([z, z]), labelled, PRIOR)
    assert twins[0] == pytest.approx(twins[1], rel=1e-3)
    assert (a >= 0).all()


@pytest.mark.parametrize("rule", ["mean_logit", "mean_probability", "stack"])
def test_identical_members_are_one_member(rule):
    z, labelled, _ = members([1.5])
    fusion = fuse(rule, np.concatenate([z, z, z]), labelled, PRIOR)
    alone = fuse("mean_logit", z, labelled, PRIOR)(z)
    assert np.corrcoef(fusion(np.concatenate([z, z, z])), alone)[0, 1] > 1 - 1e-6


def test_a_member_made_sharper_gets_no_more_say():
    """Dividing variances by the square of a temperature once gave the hotter member more weight."""
    z, labelled, _ = members([1.2, 1.2])
    sharp = z * np.array([[3.0], [1.0]])
    for rule in ("mean_logit", "mean_probability"):
        assert np.allclose(fuse(rule, sharp, labelled, PRIOR)(sharp), fuse(rule, z, labelled, PRIOR)(z), atol=0.06)
    variances = np.ones_like(z)
    fused = fuse("random_effects", sharp, labelled, PRIOR)(sharp, variances * np.array([[9.0], [1.0]]))
    assert np.allclose(fused, fuse("random_effects", z, labelled, PRIOR)(z, variances), atol=0.06)
    with pytest.raises(DataError, match="variance"):
        fuse("random_effects", z, labelled, PRIOR)(z)


def test_fusing_independent_members_beats_the_best_one():
    z, labelled, _ = members([1.3, 1.2, 1.1])
    fused = fuse("stack", z, labelled, PRIOR)(z)
    best = fuse("mean_logit", z[:1], labelled, PRIOR)(z[:1])
    assert population_risk(fused, labelled, PRIOR) < population_risk(best, labelled, PRIOR) - 0.01


def test_a_score_stays_only_if_it_helps_more_than_its_shuffled_self():
    z, labelled, lens = members([1.3, 1.2], labelled=1000, unlabeled=6000)
    rng = np.random.default_rng(1)
    useful, noise = rng.normal(1.0 * lens), rng.normal(size=len(lens))
    keep, gain, chance = worth_keeping(z, useful, labelled, PRIOR, rng, shuffles=8)
    assert keep
    assert gain > 3 * max(chance, 0)
    assert not worth_keeping(z, noise, labelled, PRIOR, np.random.default_rng(2), shuffles=8)[0]
    fusion = fuse("stack", z, labelled, PRIOR, useful)
    assert fusion.score_weight > 0.3
    assert not np.allclose(fusion(z, score=useful), fusion(z))


def test_the_physical_score_differs_from_image_to_image(small):
    """A term of the weights alone was once handed to every image as its physics."""
    assert colour_agreement(small.test["image"][:64], small.about).std() > 0.01


HEAD = partial(LinearHead, dropout=0.2)
MODEL = partial(finder, backbone=partial(LightTransformer, width=16, depth=1, heads=2), head=HEAD)
MEMBER = partial(LensFinder, model=MODEL, risk=partial(nnpu, surrogate="logistic"), target_prior=0.5)


def test_members_of_one_kind_differ_by_their_seeds(small):
    torch.manual_seed(0)
    ensemble = Ensemble(small.about, {"a": MEMBER, "b": MEMBER}).eval()
    out = ensemble.predict({"image": small.test["image"][:8]})
    assert out["members"].shape == (8, 2)
    assert not torch.allclose(out["members"][:, 0], out["members"][:, 1])
    assert torch.allclose(out["logit"], out["members"].mean(dim=1), atol=1e-5)
    assert (out["mutual_information"] >= 0).all()
    buffers = {name: value.clone() for name, value in ensemble.named_buffers()}
    again = ensemble.predict({"image": small.test["image"][:8]})
    assert all(torch.equal(value, buffers[name]) for name, value in ensemble.named_buffers())  # uncertainty costs no state
    assert torch.equal(again["logit"], out["logit"])


def test_training_together_reaches_every_member(small):
    ensemble = Ensemble(small.about, {"a": MEMBER, "b": MEMBER})
    batch = small.train.__getitems__(np.arange(0, 160, 8))
    ensemble.losses(batch)["loss"].backward()
    assert all(p.grad is not None for p in ensemble.parameters())


def test_mistakes_are_named(small):
    with pytest.raises(ConfigError, match="two members"):
        Ensemble(small.about, {"a": MEMBER})
    with pytest.raises(ConfigError, match="mean_logit"):
        Ensemble(small.about, {"a": MEMBER, "b": MEMBER}, rule="mean_logits")
    with pytest.raises(ConfigError, match="rule=stack"):
        Ensemble(small.about, {"a": MEMBER, "b": MEMBER}, colour_score=True)


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    from lensfind.calibration.calibrating import CalibratedTrainer
    from skyloom.training.hardware import fabric as make_fabric
    from skyloom.training.optimizers import optimizer
    from skyloom.training.schedules import Cosine

    folder = tmp_path_factory.mktemp("ensemble")
    run = Run.create(folder, {"pkg": "lensfind", "experiment": "e"}, directory=folder / "run")
    fabric = make_fabric(devices=1, accelerator="cpu")
    fabric.launch()
    goal = [{"metric": "val/auroc_pu", "direction": "maximize"}]
    metrics = train(
        run, fabric, small, partial(Ensemble, members={"a": MEMBER, "b": MEMBER}, rule="random_effects"),
        partial(optimizer, lr=1e-3), Cosine(), partial(CalibratedTrainer, epochs=1, batch_size=32, objective=goal, quiet=True),
    )  # fmt: skip
    return run, metrics


def test_an_ensemble_leaves_members_logits_and_a_verdict(trained, small):
    from skyloom.data.tables import read_columns
    from skyloom.run.files import read_json
    from skyloom.training.checkpoints import load_best

    run, metrics = trained
    test, _ = read_columns(run.directory / "predictions" / "test.parquet")
    report = read_json(run.directory / "ensemble.json")
    assert set(report["members"]) == {"a", "b"}
    assert set(report["rules"]) == set(RULES) - {"random_effects"}
    assert report["used"]["rule"] == "random_effects"
    assert (run.directory / "members" / "b" / "checkpoints" / "best.pt").exists()
    again = Ensemble(small.about, {"a": MEMBER, "b": MEMBER}, rule="random_effects")
    again.load_state_dict(load_best(run.checkpoints)["task"])
    with torch.no_grad():
        out = again.eval().predict({"image": small.test["image"]})
    assert np.allclose(out["logit"].numpy(), test["logit"], atol=1e-4)
    assert "test/auroc" in metrics
    assert compared(again, test, test)["members"]["a"] == pytest.approx(report["members"]["a"])


def test_what_to_label_next_is_unlabeled_unique_and_tells_no_truth(trained, tmp_path):
    run, _ = trained
    from skyloom.data.tables import read_columns

    test, _ = read_columns(run.directory / "predictions" / "test.parquet")
    for strategy in STRATEGIES:
        done = select(run, n=20, strategy=strategy, output=str(tmp_path / f"{strategy}.csv"))
        table = pd.read_csv(tmp_path / f"{strategy}.csv")
        assert done["chosen"] == len(table) == table["id"].nunique() == 20
        assert (test["labelled"][table["id"]] == 0).all()
        assert set(table) == {"order", "id", "probability"}
    assert select(run, n=10_000, output=str(tmp_path / "all.csv"))["chosen"] == int((test["labelled"] == 0).sum())
    likely = pd.read_csv(tmp_path / "most_likely.csv")
    assert likely["probability"].is_monotonic_decreasing


def test_a_single_network_cannot_quarrel_with_itself(tmp_path):
    run = Run.create(tmp_path, {"pkg": "lensfind"}, directory=tmp_path / "run")
    columns = {"id": np.arange(6), "probability": np.linspace(0.05, 0.95, 6)}
    write_columns(run.directory / "predictions" / "field.parquet", columns, {})
    with pytest.raises(DataError, match="single network"):
        select(run, strategy="bald")
    select(run, n=3, strategy="least_certain")
    assert set(pd.read_csv(run.directory / "select.csv")["id"]) <= {1, 2, 3, 4}
    with pytest.raises(ConfigError, match="mixed"):
        select(run, strategy="mixd")
