"""The model learns what can be known when its muons are whole, and nothing when they are torn."""

from functools import partial

import numpy as np
import pytest
import torch

from muonflow import BundleFlow, BundleGenerator, Events, MuonBundles, rules, showers
from muonflow.data import check, split
from muonflow.figures import expected_histogram, spectrum
from muonflow.heads import HurdleHead
from muonflow.plateau import torn
from muonflow.predict import predict
from muonflow.scores import muon_weights
from muonflow.tables import read_events
from skyloom.errors import ConfigError, DataError
from skyloom.flows import Box, ContextMLP, SplineAutoregressive, StudentT
from skyloom.training import Trainer
from skyloom.training.optimizers import optimizer

spline = partial(SplineAutoregressive, transforms=2, bins=8, hidden=(32, 32))
embed = partial(ContextMLP, outputs=12, hidden=(32,))
small = partial(BundleFlow, embed=embed, flow=spline, counts=partial(HurdleHead, hidden=32))
OBJECTIVE = [{"metric": "val/nll", "direction": "minimize"}]


@pytest.fixture(scope="module")
def events():
    return showers.simulate(160_000, depths=1, index=2.0, keep_empty=0.01, seed=21)


def trained(data, epochs):
    torch.manual_seed(0)
    task = MuonBundles(data.about, small)
    loop = Trainer(epochs=epochs, batch_size=256, clip_norm=5.0, ema_decay=0.98, quiet=True, objective=OBJECTIVE, log_every=999)
    loop.fit(task, data, partial(optimizer, name="Adam", lr=5e-3))
    return task, loop.predict(task, data.test, data.carry)


@pytest.fixture(scope="module")
def whole(events):
    data = split(events, {"synthetic": True, "oracle": "elbert"}, (0.6, 0.1, 0.3), seed=1)
    return data, *trained(data, 7)


def test_whole_events_bring_the_likelihood_near_its_floor(whole):
    data, task, predictions = whole
    scores = task.score(predictions)
    assert scores["nll_excess"] < 0.05
    assert scores["gain"] > 0.75 * (scores["nll_marginal"] - scores["nll_oracle"]) > 0.08
    assert scores["cond_gain"] > 0.17
    assert scores["nll_count_excess"] < 0.05
    assert scores["above_ceiling"] == 0
    assert scores["cond_gradient"] > 0.3
    assert scores["w1_energy"] < 0.2 and scores["w1_radius"] < 0.2
    shower = [set(getattr(data, name).columns["shower"].tolist()) for name in ("train", "val", "test")]
    assert not (shower[0] & shower[1] | shower[0] & shower[2] | shower[1] & shower[2])


def test_torn_events_leave_it_on_the_plateau_of_the_marginal(events):
    """The famous plateau: no capacity helps, since the conditions say nothing of the muons; the conditional gain tells."""
    broken = torn(events)
    data = split(broken, {"synthetic": True, "oracle": None}, (0.6, 0.1, 0.3), seed=1)
    task, predictions = trained(data, 2)
    scores = task.score(predictions)
    assert abs(scores["nll"] - scores["nll_marginal"]) < 0.03
    assert abs(scores["cond_gain"]) < 0.015
    assert "nll_excess" not in scores


def test_embedding_once_per_event_equals_embedding_per_muon(whole):
    data, task, _ = whole
    batch = data.test.__getitems__(np.arange(64))
    task.eval()
    with torch.no_grad():
        once = task.embed(batch["condition"])[batch["owner"]]
        per_muon = task.embed(batch["condition"][batch["owner"]])
    assert torch.allclose(once, per_muon, atol=1e-6)


def test_a_context_that_ignores_the_condition_gains_nothing(whole):
    """However widely its embedding spreads."""
    data, task, _ = whole

    class Noise(torch.nn.Module):
        outputs = 12

        def forward(self, features):
            return 0.3 * torch.randn(len(features), 12)

    blind = MuonBundles(data.about, small)
    blind.network.load_state_dict(task.network.state_dict())
    blind.network.embed = Noise()
    gains = []
    for seed in range(4):  # the noise of one pass is worth about 0.02 nat
        predictions = Trainer(batch_size=8192, quiet=True, seed=seed).predict(blind, data.test, data.carry)
        scores = blind.score(predictions)
        gains.append(scores["cond_gain"])
        assert scores["cond_gradient"] == 0
    assert abs(np.mean(gains)) < 0.04
    with torch.no_grad():
        assert float(blind.embed(data.test.condition).std()) > 0.25


def test_the_density_of_the_flow_integrates_to_one(whole):
    data, task, _ = whole
    for row in np.flatnonzero(data.test.count.numpy())[:3]:
        condition = data.test.condition[row : row + 1]
        ceiling = condition[:, 0] / condition[:, 2]
        log_e = torch.linspace(-7, float(ceiling.log()) - 1e-6, 300)
        log_r = torch.linspace(-5, 7, 200)
        muons = torch.cartesian_prod(log_e.exp(), log_r.exp())
        with torch.no_grad():
            context = task.embed(condition).expand(len(muons), -1)
            density = task.log_prob(muons, context, ceiling.expand(len(muons))).exp() * muons.prod(1)
        mass = density.double().sum() * (log_e[1] - log_e[0]) * (log_r[1] - log_r[0])
        assert float(mass) == pytest.approx(1, abs=0.02)


def test_generated_bundles_keep_the_laws(whole):
    _, task, _ = whole
    generator = BundleGenerator(task)
    primaries = {"energy": np.geomspace(3e3, 1e7, 400), "zenith": 0.3, "mass_number": 4, "depth": 1500.0}
    a, b, c = (generator(**primaries, seed=s) for s in (1, 1, 2))
    assert torch.equal(a.energy, b.energy)
    assert torch.equal(a.count, b.count)
    assert not torch.equal(a.count, c.count)
    assert torch.equal(torch.bincount(a.owner, minlength=400), a.count)
    nucleon = (a.condition[:, 0] / 4)[a.owner]
    assert bool((a.energy < nucleon).all())
    total = torch.zeros(400).index_add(0, a.owner, a.energy)
    assert bool((total <= a.condition[:, 0]).all())
    assert torch.allclose(torch.hypot(a.x, a.y), a.radius, rtol=1e-4)
    expected = showers.arrival(a.condition).mean
    assert float(a.count.sum()) == pytest.approx(float(expected.sum()), rel=0.25)


def test_a_bundle_with_more_energy_than_its_primary_is_drawn_anew(whole):
    """A network that wants muons near their ceiling: sums of a few exceed a proton's energy."""
    data, _, _ = whole
    torch.manual_seed(2)
    task = MuonBundles(data.about, small)
    with torch.no_grad():
        task.network.target.steps[1].shift += torch.tensor([4.5, 0.0])
        last = task.network.count_head.network[-1]
        for parameter in last.parameters():
            parameter.zero_()
        last.bias += torch.tensor([20.0, 0.7, 3.0])
    bundles = BundleGenerator(task)([3e4] * 200, 0.1, 1, 1500.0, seed=0)
    assert bundles.redrawn > 10
    total = torch.zeros(200).index_add(0, bundles.owner, bundles.energy)
    assert bool((total <= 3e4).all())


def test_conditions_outside_training_are_refused_or_flagged(whole):
    generator = BundleGenerator(whole[1])
    with pytest.raises(DataError, match="event 1 .* outside what the model was trained on .*depth_m"):
        generator([1e5, 1e5], 0.2, 1, [1500.0, 3500.0])
    flagged = generator([1e5, 1e5, 1e5], 0.2, [1, 1, 12], [1500.0, 3500.0, 1500.0], extrapolate=True)
    assert flagged.extrapolated.tolist() == [False, True, True]
    for wrong, message in (((-1.0, 0.2, 1, 1500.0), "energy is not positive"), ((1e5, 3.0, 1, 1500.0), "zenith is outside")):
        with pytest.raises(DataError, match=message):
            generator(*wrong)
    with pytest.raises(DataError, match="lengths"):
        generator([1e5, 1e5, 1e5], [0.1, 0.2], 1, 1500.0)


@pytest.mark.parametrize(
    ("model", "precision", "message"),
    [
        (partial(BundleFlow, flow=partial(spline, bins=3)), "32-true", "bins >= 4"),
        (small, "16-mixed", "collapse in 16 bits"),
        (small, "bf16-true", "collapse in 16 bits"),
        (partial(BundleFlow, flow=partial(spline, base=partial(StudentT, dof=2.0))), "32-true", "dof=2 has no variance"),
        (partial(BundleFlow, flow=partial(spline, base=partial(StudentT, learned=True))), "32-true", "may fall to least=0.5"),
        (partial(BundleFlow, flow=partial(spline, base=Box)), "32-true", "no density outside"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_any_data(model, precision, message):
    with pytest.raises(ConfigError, match=message):
        rules.check(model, precision)


def test_rules_allow_what_works_and_leave_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    rules.check(small, "bf16-mixed")
    assert torch.equal(torch.rand(1), expected)
    with pytest.raises(ConfigError, match="x and y carry nothing beyond r"):
        rules.check(small, selection="xy")


def test_impossible_muons_are_named():
    condition = torch.tensor([[1e4, 0.1, 1.0, 1500.0], [1e4, 0.1, 56.0, 1500.0]])
    with pytest.raises(DataError, match="event 1: a muon has more energy than a nucleon of its primary"):
        check(Events(condition, torch.tensor([1, 1]), torch.tensor([[500.0, 3.0], [500.0, 3.0]])))


def test_predict_writes_one_row_for_each_primary(whole, tmp_path):
    import pandas as pd

    data, task, _ = whole
    energies = np.geomspace(1e4, 1e6, 30).astype(np.float32)
    table = pd.DataFrame({"E0_GeV": energies, "zenith_rad": 0.4, "A": 14, "depth_m": 1450.0})
    table.to_csv(tmp_path / "primaries.csv", index=False)
    summary = predict(task, data.about, tmp_path / "primaries.csv", tmp_path / "out.parquet", apply=lambda dataset: {})
    back, about = read_events(tmp_path / "out.parquet")
    assert np.allclose(back.condition[:, 0], energies, rtol=1e-6)
    assert summary["events"] == len(back) == 30
    assert summary["muons"] == int(back.count.sum())
    assert about["trained_on"] == "synthetic showers"
    predict(task, data.about, tmp_path / "primaries.csv", tmp_path / "again.parquet", apply=lambda dataset: {})
    assert torch.equal(read_events(tmp_path / "again.parquet")[0].muons, back.muons)


def test_figures_show_the_muons_that_are_there(whole, tmp_path):
    _, _, predictions = whole
    p = {name: value.numpy() for name, value in predictions.items()}
    curves = spectrum(p, "energy", tmp_path / "energy.png", True, "test")
    total = p["count"].sum()
    assert curves["observed"].sum() == pytest.approx(total, rel=0.02)  # all but those outside the axes
    assert curves["expected"].sum() == pytest.approx(total, rel=0.02)
    for which, edges in (("energy", np.array([1e-4, 1e8])), ("radius", np.array([0.0, 1e6]))):
        assert expected_histogram(p, which, edges)[0] == pytest.approx(total, rel=1e-3)
    weight = muon_weights(predictions["observed"], predictions["count"])
    there = ~torch.isnan(predictions["observed"][..., 0])
    assert float(weight[there].sum()) == pytest.approx(float(total))


def test_a_long_table_passes_in_pieces_and_gives_what_its_pieces_give(whole, tmp_path):
    """Whatever row groups the file has; and a file of nothing, or without a column, is named."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    from muonflow.tables import stream_conditions

    data, task, _ = whole
    rows = {"E0_GeV": np.geomspace(1e4, 1e6, 2500), "zenith_rad": 0.2, "A": 4, "depth_m": 1500.0}
    table = pa.Table.from_pandas(pd.DataFrame(rows).astype(np.float32))
    outputs = []
    for group in (7, 1000):
        path = tmp_path / f"{group}.parquet"
        pq.write_table(table, path, row_group_size=group)
        pieces = [len(condition) for condition, _ in stream_conditions(path, 1024)]
        assert pieces == [1024, 1024, 452]
        summary = predict(task, data.about, path, tmp_path / f"out{group}.parquet", apply=lambda dataset: {})
        assert summary["above_ceiling_rate"] == 0
        assert 0 <= summary["drawn_anew_rate"] < 0.05
        outputs.append(read_events(tmp_path / f"out{group}.parquet")[0])
    assert torch.equal(outputs[0].muons, outputs[1].muons)
    pq.write_table(table.drop_columns(["A"]), tmp_path / "no.parquet")
    with pytest.raises(DataError, match="no column A"):
        list(stream_conditions(tmp_path / "no.parquet"))
    pq.write_table(table.slice(0, 0), tmp_path / "none.parquet")
    with pytest.raises(DataError, match="holds no events"):
        list(stream_conditions(tmp_path / "none.parquet"))


def test_one_graph_gives_what_the_generator_draws(whole, tmp_path):
    from skyloom.training.graphs import write_graph

    _, task, _ = whole
    written = write_graph(task, tmp_path / "bundles.ts", "torchscript")
    assert written.outputs == ["muon", "counts"]
    assert written.worst < 1e-5
    example = task.example()
    with torch.no_grad():
        muons = task.exportable()(example)["muon"]
        shared = task.shared(example["condition"])
        ceiling = example["condition"][:, 0] / example["condition"][:, 2]
        again = task.network.flow(shared).transform.to_data(example["noise"])[0]
    from muonflow.coordinates import from_flow

    assert torch.allclose(muons, from_flow(task.network.target.inverse(again), ceiling), rtol=1e-4)
    assert bool((muons[:, 0] < ceiling).all())


@pytest.mark.slow
@pytest.mark.parametrize("format", ["pt2", "onnx"])
@pytest.mark.parametrize("transform", ["standardise", "yeo_johnson"])
def test_other_programs_can_read_the_graph(whole, tmp_path, format, transform):
    from skyloom.training.graphs import write_graph

    data, _, _ = whole
    written = write_graph(MuonBundles(data.about, partial(small, transform=transform)), tmp_path / f"bundles.{format}", format)
    assert (written.inputs, written.outputs) == (["condition", "noise"], ["muon", "counts"])
    assert written.worst < 1e-5
