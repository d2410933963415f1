"""Maps of clusters: what they show and what not, encoders that learn from them without labels, and the way into the flow."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from cinn_clusters import combined, encoder, maps
from cinn_clusters.embeddings import parse_name
from cinn_clusters.map_figures import embedding_plane, examples
from cinn_clusters.readout import held_out_r2
from cinn_clusters.synthetic import merger_catalogue
from skyloom.data import Data
from skyloom.errors import ConfigError
from skyloom.plots import style

pytestmark = pytest.mark.filterwarnings("ignore:.*impossible last_M_Crit500_coll")
UPRIGHT = np.array([[[1.0, 0, 0], [0, 1, 0]]])  # the merger in the plane of the sky, along x
ALONG = np.array([[[0.0, 0, 1], [0, 1, 0]]])  # and along the line of sight
ROUND = np.array([[1.0, 0.0]])


class Means(nn.Module):
    """A backbone of one layer, quick enough for tests."""

    width = 16

    def __init__(self, bands, size, outputs):
        super().__init__()
        self.layer = nn.Linear(bands * size * size, self.width)

    def forward(self, images):
        return self.layer(images.flatten(1)).relu()


@pytest.fixture(scope="module")
def seen() -> Data:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return maps.synthetic(n_clusters=60, seed=1, size=16)


def shown(since, ratio, rotation=UPRIGHT, travelled=0.8, passed=0.2):
    return maps.brightness(np.array([[since, ratio, travelled, passed]]), rotation, ROUND, 64)[0]


def test_an_old_merger_leaves_a_round_cluster_and_a_fresh_one_a_second_peak():
    old, fresh = shown(12.0, 0.8, travelled=20.0), shown(0.3, 0.8)
    np.testing.assert_allclose(old, old.T, rtol=0.02)
    np.testing.assert_allclose(old, old[:, ::-1], rtol=0.02)
    row = fresh[int(64 * (0.5 + 0.2 / 4))]  # through the subcluster, 0.2 R500 aside
    ahead = int(64 * (0.5 + 0.8 * np.exp(-0.3) / (2 * maps.EDGE)))
    mirrored = row[::-1]
    assert row[ahead - 1 : ahead + 2].max() > 3 * mirrored[ahead - 1 : ahead + 2].max()


def test_profiles_of_rings_know_no_side_and_see_a_second_peak():
    from cinn_clusters.rings import ring_profiles

    fresh, old = (torch.from_numpy(100 * shown(since, 0.8)) for since in (0.3, 12.0))
    seen_from_all = torch.stack([ring_profiles(torch.rot90(fresh, k)) for k in range(4)])
    torch.testing.assert_close(seen_from_all, seen_from_all[:1].expand(4, -1), rtol=0, atol=1e-3)
    scatter = ring_profiles(fresh)[12:] - ring_profiles(old)[12:]
    assert scatter.argmax() in (6, 7, 8)  # where the subcluster is: 0.6 R500 out of 1
    assert scatter.max() > 0.3


def test_a_merger_along_the_line_of_sight_hides_its_subcluster():
    """The light stays, and lies on the core: seen from there, no map can tell how far the subcluster flew."""
    near, far = shown(0.3, 0.8, ALONG, travelled=0.3), shown(0.3, 0.8, ALONG, travelled=1.2)
    sideways = [shown(0.3, 0.8, UPRIGHT, travelled=t) for t in (0.3, 1.2)]
    assert np.abs(near - far).max() < 0.02 * near.max()
    assert np.abs(sideways[0] - sideways[1]).max() > 0.2 * near.max()


def test_counts_are_poisson_of_the_stated_exposure_and_a_seed_repeats_them(seen):
    tables = merger_catalogue(12, seed=3)
    a, b, other = (maps.xray_maps(*tables, 16, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(a, b)
    assert (a != other).any() and (a == a.round()).all() and a.min() >= 0
    total = np.log((a.sum((2, 3)) - 256 * maps.BACKGROUND) / maps.COUNTS)
    assert abs(np.median(total)) < 0.1 and total.std() == pytest.approx(maps.SCATTER, rel=0.25)
    assert seen.train["maps"].shape[1:] == (3, 16, 16)


def test_a_map_is_joined_to_its_own_row(seen):
    observables, unobservables = merger_catalogue(60, 1)
    everything = maps.xray_maps(observables, unobservables, 16, 1)
    for k in (0, 17):
        halo, snapshot = int(seen.test["halo_id"][k]), int(seen.test["snapshot"][k])
        row = np.flatnonzero((observables["HaloID"] == halo) & (observables["Snapshot"] == snapshot))
        np.testing.assert_array_equal(seen.test["maps"][k].numpy(), everything[int(row[0])])


def test_views_keep_the_light_of_a_map_and_thin_it_as_an_exposure_does():
    torch.manual_seed(0)
    point = torch.zeros(1000, 9, 9)
    point[:, 3:6, 3:6] = 100.0
    total = encoder.views(point, shift=2, least_exposure=0.5).sum((1, 2)) / 900
    assert float(total.min()) > 0.45 and float(total.max()) <= 1.0
    assert float(total.mean()) == pytest.approx(0.75, abs=0.02)
    whole = encoder.views(point, shift=2, least_exposure=1.0)
    torch.testing.assert_close(whole.sum((1, 2)), point.sum((1, 2)))
    assert len(torch.unique(whole.flatten(1), dim=0)) == 25  # shifts; a square keeps its symmetries


@pytest.mark.parametrize("method", ["SimCLR", "BYOL", "MoCo", "DINO", "SimSiam"])
def test_every_method_teaches_the_backbone_its_pairs_without_collapse(seen, method):
    torch.manual_seed(0)
    more = {"keys": 64} if method == "MoCo" else {}
    learner = getattr(encoder, method)(seen.about, Means, dimensions=32, **more).train()
    rows = {"maps": seen.train["maps"][:200]}
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    first = {name: p.clone() for name, p in learner.named_parameters() if p.requires_grad}
    losses = []
    for _ in range(40):
        out = learner.losses(rows)
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        losses.append(float(out["loss"].detach()))
    assert np.mean(losses[-5:]) < np.mean(losses[5:10])  # by then a queue holds real keys
    assert all((p - first[name]).abs().max() > 0 for name, p in learner.named_parameters() if name in first)
    assert float(out["spread"]) > 0.1
    if hasattr(learner, "slow"):
        assert not any(p.requires_grad for p in learner.slow.parameters())
        assert not torch.equal(learner.slow[0].layer.weight, learner.backbone.layer.weight)
    learner.eval()
    kept = {name: b.clone() for name, b in learner.named_buffers()}
    learner.losses(seen.val.columns)
    assert all(torch.equal(b, kept[name]) for name, b in learner.named_buffers())  # validation changes nothing


def test_labels_are_not_read(seen):
    assert torch.isfinite(encoder.SimCLR(seen.about, Means).losses({"maps": seen.train["maps"][:20]})["loss"])


def test_a_readout_finds_what_is_linear_and_nothing_in_what_is_shuffled():
    g = torch.Generator().manual_seed(0)
    cluster = torch.arange(1000) // 5
    hidden = torch.randn(1000, 4, generator=g)
    vectors = hidden @ torch.randn(4, 40, generator=g) + 0.1 * torch.randn(1000, 40, generator=g)
    r2 = held_out_r2(vectors, torch.stack([hidden[:, 0], hidden[torch.randperm(1000, generator=g), 0]], 1), cluster)
    assert r2[0] > 0.95 and abs(r2[1]) < 0.1


def test_a_readout_cannot_profit_from_a_cluster_that_it_knows():
    """Vectors that name the cluster and nothing else: a fit to rows of the same cluster would recall their number."""
    g = torch.Generator().manual_seed(0)
    cluster = torch.arange(400) // 8
    vectors = nn.functional.one_hot(cluster).double()
    target = torch.randn(50, 1, generator=g)[cluster]
    assert held_out_r2(vectors, target, cluster)[0] < 0.05


def test_embeddings_of_a_run_are_read_by_the_combined_pipeline(seen, tmp_path):
    learner = encoder.SimCLR(seen.about, Means).eval()
    vectors, names = [], []
    for split in (seen.train, seen.val, seen.test):
        found = learner.vectors(split["maps"]).detach()
        for side in range(3):
            vectors.append(found[:, side])
            names += maps.map_names(split["halo_id"].tolist(), split["snapshot"].tolist(), side + 1)
    assert parse_name(names[0]) == (int(seen.train["halo_id"][0]), int(seen.train["snapshot"][0]), 1)
    files = {"embeddings": tmp_path / "embeddings.npy", "filenames": tmp_path / "filenames.npy"}
    np.save(files["embeddings"], torch.cat(vectors).numpy())
    np.save(files["filenames"], np.array(names))
    joined = combined.synthetic(n_clusters=60, seed=1, components=4, **files)
    assert joined.test["context"].shape[1] == 11
    torch.testing.assert_close(joined.test["target"], seen.test["target"])
    with pytest.raises(ConfigError, match="two files"):
        combined.synthetic(n_clusters=60, seed=1, embeddings=files["embeddings"])


def test_figures_of_an_encoder_show_rows_in_order_of_their_mergers(seen):
    torch.manual_seed(0)
    with torch.no_grad():
        found = encoder.SimCLR(seen.about, Means).eval().predict(seen.test.columns)
    arrays = {name: value.numpy() for name, value in (found | seen.test.columns).items()}
    with style():
        _, drawn = examples(arrays, seen.about)
        _, plane = embedding_plane(arrays, seen.about)
    assert (np.diff(drawn["since"]) >= 0).all()
    assert plane["plane"].shape == (len(seen.test), 2) and plane["share"][0] >= plane["share"][1]
