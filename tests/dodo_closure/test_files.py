"""Files of every layout, what is refused and why, and preparation that can be stopped, repeated and shared among processes."""

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dodo_closure import asymptotic_state, draw_states, prepared
from dodo_closure.emu import reduce_series
from dodo_closure.fluxes import density, to_public, total_density
from dodo_closure.invariants import invariants27
from dodo_closure.layout import axis_order, canonical, feature_axis
from dodo_closure.minerbo import crossing_discriminant
from dodo_closure.prepare import prepare
from dodo_closure.readers import open_source
from dodo_closure.tables import read_table
from skyloom.errors import ConfigError, DataError, MissingFile

QUIET = {"quiet": True, "processes": 1}


def database(path: Path, F: torch.Tensor, final: torch.Tensor, growth: float = 1e10) -> Path:
    """A published-style file: (N, 4, 2, 3), growth rates, directory names."""
    with h5py.File(path, "w") as file:
        file["nf"] = 3
        file["F4_initial(1|ccm)"] = to_public(F).numpy()
        file["F4_final(1|ccm)"] = to_public(final).numpy()
        file["growthRate(1|s)"] = np.full(len(F), growth)
        file["directorynames"] = [f"run{k}".encode() for k in range(len(F))]
    return path


@pytest.fixture
def sixty_four(tmp_path) -> tuple[Path, torch.Tensor, torch.Tensor]:
    F = draw_states("merger", 64, seed=0)
    final = asymptotic_state(F)[0]
    return database(tmp_path / "sims.h5", F, final), F, final


# ------------------------------------------------------------------------------------------------------------------- axes


def test_layout_inference_ambiguity():
    from itertools import permutations

    F = np.random.default_rng(0).normal(size=(5, 4, 2, 3))
    for order in map("".join, permutations("ncsf")):
        turned = np.transpose(F, ["ncsf".index(letter) for letter in order])
        assert axis_order(turned.shape, "a file") == order
        np.testing.assert_array_equal(canonical(turned, order), np.transpose(F, (0, 2, 3, 1)))
    for shape in ((4, 4, 2, 3), (2, 4, 2, 3), (3, 4, 2, 3), (6, 6, 4), (4, 6, 4)):
        with pytest.raises(DataError, match="can be read as"):
            axis_order(shape, "a file")
    assert axis_order((4, 4, 2, 3), "a file", "ncsf") == "ncsf"
    with pytest.raises(DataError, match="does not fit"):
        axis_order((5, 4, 2, 3), "a file", "nsfc")
    with pytest.raises(DataError, match="any order"):
        axis_order((5, 4, 3, 3), "a file")
    assert (feature_axis((27, 9), 27, "x"), feature_axis((9, 27), 27, "x")) == (0, 1)
    with pytest.raises(DataError, match="both axes"):
        feature_axis((27, 27), 27, "x")


# ------------------------------------------------------------------------------------------------------------- preparation


def test_preprocess_rejects(tmp_path, sixty_four):
    """Three broken rows: 61 are left, and the list says which and why; repeated, the bytes are the same."""
    _, F, final = sixty_four
    F, final = F.clone(), final.clone()
    F[3, 0, 0, 1] = torch.nan
    F[20, 1, 2, 3] *= -1
    final[41, :, 0] *= 1.5  # not conserved
    source = database(tmp_path / "broken.h5", F, final)
    outputs = []
    for name in ("a", "b"):
        report = prepare(input=str(source), output=str(tmp_path / name / "all.h5"), piece_rows=10, **QUIET)
        outputs.append((tmp_path / name / "all.h5").read_bytes())
        assert (report["rows"], report["refused"]) == (61, 3)
    assert outputs[0] == outputs[1]
    with open(tmp_path / "a" / "all_rejected.csv", newline="") as listing:
        listed = [(int(line["row"]), line["reason"]) for line in csv.DictReader(listing)]
    assert listed == [(3, "not finite"), (20, "negative density"), (41, "flavor sums or net flavor numbers not conserved")]
    written = json.loads((tmp_path / "a" / "all_report.json").read_text())
    assert written["reasons"] == {reason: 1 for _, reason in listed}
    with pytest.raises(DataError, match=r"broken.h5, row 3: not finite"):
        prepare(input=str(source), output=str(tmp_path / "c.h5"), on_invalid="raise", **QUIET)


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda F, final: F[1, 0, 0, :3].mul_(100), "flux factor above one"),
        (lambda F, final: F[1].zero_(), "no neutrinos"),
        (
            lambda F, final: F[1, 0, 0, :3].copy_(torch.tensor([0.0, 0, 0.95]) * F[1, 0, 0, 3]),
            "flux factor above max_flux_factor",
        ),
    ],
)
def test_every_reason_has_its_row(tmp_path, sixty_four, spoil, reason):
    _, F, _ = sixty_four
    F = F.clone()
    spoil(F, None)
    report = prepare(input=str(database(tmp_path / "x.h5", F, F.clone())), output=str(tmp_path / "y.h5"), **QUIET)
    assert [count for name, count in report.items() if name.startswith(f"refused, {reason}")] == [1]


def test_h5_roundtrip_and_legacy_transposed(tmp_path, sixty_four):
    source, F, final = sixty_four
    prepare(input=str(source), output=str(tmp_path / "all.h5"), **QUIET)
    columns, about = read_table(tmp_path / "all.h5")
    total = total_density(F)[:, None, None, None]
    np.testing.assert_array_equal(columns["F_init"], F.numpy())
    assert np.abs((columns["F_true"] - final.numpy()) / total.numpy()).max() < 1e-15
    np.testing.assert_array_equal(columns["invariants"], invariants27(F).numpy())
    assert np.abs(columns["residual"]).max() < 1e-14, "the truth of these rows is Box3D"
    assert about["synthetic"] is False
    assert columns["dirname"][7] == "run7"
    with h5py.File(tmp_path / "legacy.h5", "w") as file:  # as a column-major language leaves it
        for name in ("F_init", "F_true"):
            file[name] = columns[name].reshape(64, 6, 4).T
    prepare(input=str(tmp_path / "legacy.h5"), output=str(tmp_path / "again.h5"), **QUIET)
    again, _ = read_table(tmp_path / "again.h5")
    for name in ("F_init", "F_true", "F_box", "invariants"):
        np.testing.assert_array_equal(again[name], columns[name])
    with h5py.File(tmp_path / "all.h5", "a") as file:
        del file.attrs["species_order"]
    with pytest.raises(DataError, match="species_order"):
        read_table(tmp_path / "all.h5")


def test_a_stopped_preparation_goes_on_where_it_was(tmp_path, sixty_four, monkeypatch):
    import dodo_closure.prepare as module

    source, *_ = sixty_four
    prepare(input=str(source), output=str(tmp_path / "whole.h5"), piece_rows=16, **QUIET)
    done, make_part = [], module.make_part

    def stopping(work, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(work.start)
        make_part(work, *rest)

    monkeypatch.setattr(module, "make_part", stopping)
    with pytest.raises(KeyboardInterrupt):
        prepare(input=str(source), output=str(tmp_path / "parts.h5"), piece_rows=16, **QUIET)
    assert not (tmp_path / "parts.h5").exists()
    monkeypatch.setattr(module, "make_part", lambda work, *rest: (done.append(work.start), make_part(work, *rest)))
    prepare(input=str(source), output=str(tmp_path / "parts.h5"), piece_rows=16, **QUIET)
    assert done == [0, 16, 32, 48], "no piece was made twice"
    assert (tmp_path / "parts.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert not list(tmp_path.glob(".*parts"))
    with pytest.raises(ConfigError, match="not overwritten"):
        prepare(input=str(source), output=str(tmp_path / "parts.h5"), **QUIET)


@pytest.mark.slow
def test_processes_do_not_matter(tmp_path):
    for processes in (1, 2):
        prepare(
            source="synthetic", tier="t1", n=120, output=str(tmp_path / f"{processes}.h5"), piece_rows=20, processes=processes
        )
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_neighbours_on_a_grid_stay_on_one_side(tmp_path):
    F = draw_states("merger", 400, seed=1)
    final = asymptotic_state(F)[0]
    change = torch.zeros_like(F)
    change[:, :, 0], change[:, :, 1:] = 1, -0.5
    final = final + 0.004 * change * total_density(F)[:, None, None, None] * torch.tensor([0, 0, 0, 1.0])
    prepare(input=str(database(tmp_path / "grid.h5", F, final)), output=str(tmp_path / "all.h5"), group_rows=40, **QUIET)
    data = prepared(str(tmp_path / "all.h5"))
    blocks = [set(split["block"].tolist()) for split in (data.train, data.val, data.test)]
    assert sum(map(len, blocks)) == 10
    assert not (blocks[0] & blocks[2] or blocks[0] & blocks[1])
    with pytest.raises(DataError, match="no row has sim_id 'gird'"):
        prepared(str(tmp_path / "all.h5"), heldout="gird")
    with pytest.raises(DataError, match="nothing is left to train on"):
        prepared(str(tmp_path / "all.h5"), heldout="grid")


# ----------------------------------------------------------------------------------------------------------- other layouts


def test_a_volume_has_the_sum_of_four_heavy_species(tmp_path):
    F = draw_states("merger", 8, seed=2)
    with h5py.File(tmp_path / "volume.h5", "w") as file:
        for name, part, times in (("e", F[:, 0, 0], 1), ("a", F[:, 1, 0], 1), ("x", F[:, 0, 1], 4)):
            file[f"n_{name}(1|ccm)"] = times * density(part).reshape(2, 2, 2).numpy()
            file[f"fn_{name}(1|ccm)"] = times * part[:, :3].T.reshape(3, 2, 2, 2).numpy()
    source = open_source(tmp_path / "volume.h5")
    assert (source.kind, source.rows) == ("volume", 8)
    np.testing.assert_allclose(source.read(0, 8).initial, F.numpy(), rtol=1e-15)
    np.testing.assert_array_equal(source.read(3, 7).initial, source.read(0, 8).initial[3:7])
    prepare(input=str(tmp_path / "volume.h5"), output=str(tmp_path / "all.h5"), **QUIET)
    columns, _ = read_table(tmp_path / "all.h5")
    assert np.isnan(columns["F_true"]).all()
    discriminant, _ = crossing_discriminant(F[:, 0, 0], F[:, 1, 0])
    np.testing.assert_array_equal(columns["stable"], discriminant.numpy() <= 0)
    with pytest.raises(DataError, match="no final state"):
        prepared(str(tmp_path / "all.h5"))


def test_stable_points_have_themselves_as_final_state(tmp_path):
    F = torch.cat([draw_states("isotropic", 5, seed=3), draw_states("one_flavor", 5, seed=3)])
    with h5py.File(tmp_path / "stable.h5", "w") as file:
        file["F4_initial(1|ccm)"], file["stable"] = to_public(F).numpy(), np.ones(10)
    prepare(input=str(tmp_path / "stable.h5"), output=str(tmp_path / "all.h5"), **QUIET)
    columns, _ = read_table(tmp_path / "all.h5")
    np.testing.assert_array_equal(columns["F_true"], columns["F_init"])
    assert columns["stable"].all()


def series(end: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """exp(2 t) up to t = 5, then an oscillation about 0.3; electron flavor falls from 1 to 0.3 to the benefit of heavies."""
    t = np.linspace(0, end, int(100 * end) + 1)
    late = t >= 5
    coherence = np.where(late, 0.3 + 0.05 * np.cos(8 * (t - 5)), 0.35 * np.exp(2 * (t - 5)))
    electron = np.where(late, 0.3 + 0.02 * np.cos(8 * (t - 5)), 1 - 0.5 * np.exp(2 * (t - 5)))
    F = np.zeros((len(t), 2, 3, 4))
    F[:, :, 0, 3] = electron[:, None]
    F[:, :, 1:, 3] = ((1 - electron) / 2)[:, None, None]
    return t, coherence, F


def test_raw_output_is_reduced_by_the_published_rules(tmp_path):
    found = reduce_series(*series(20.0))
    assert found.growth == pytest.approx(2, rel=0.01)
    assert found.final[0, 0, 3] == pytest.approx(0.3, rel=0.01)
    assert found.rejected == ""
    assert reduce_series(*series(12.5)).rejected == "run shorter than three times its saturation"
    t, coherence, F = series(20.0)
    F[t > 5, 0, 0, 3] += 1e-3
    assert "not conserved" in reduce_series(t, coherence, F).rejected
    for name, end in (("good", 20.0), ("short", 12.5)):
        t, coherence, F = series(end)
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["time(s)"], file["N_offdiag_mag(1|ccm)"] = t, coherence
            for s, bar in enumerate(("", "bar")):
                for k in range(3):
                    for c, x in enumerate(("Fx", "Fy", "Fz", "N")):
                        file[f"{x}{k}{k}{bar}(1|ccm)"] = F[:, s, k, c]
    report = prepare(input=str(tmp_path), output=str(tmp_path / "out" / "all.h5"), **QUIET)
    assert (report["rows"], report["refused, run shorter than three times its saturation"]) == (1, 1)
    columns, _ = read_table(tmp_path / "out" / "all.h5")
    assert columns["growth_rate"][0] == pytest.approx(2, rel=0.01)


# ---------------------------------------------------------------------------------------------------------- what is not so


def test_what_is_wrong_with_a_file_is_named(tmp_path, sixty_four):
    source, F, final = sixty_four
    with h5py.File(tmp_path / "unit.h5", "w") as file:
        file["F4_initial(1|m3)"] = to_public(F).numpy()
    with pytest.raises(DataError, match=r"1\|m3.* is not in 1/cm\^3"):
        open_source(tmp_path / "unit.h5")
    with pytest.raises(DataError, match="different units"):
        prepare(input=str(database(tmp_path / "mixed.h5", F, final * 1e6)), output=str(tmp_path / "x.h5"), **QUIET)
    (tmp_path / "cut.h5").write_bytes(source.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"cut.h5: not a readable HDF5 file.*cut short"):
        open_source(tmp_path / "cut.h5")
    with h5py.File(source, "a") as file:
        file["nf"][...] = 2
    with pytest.raises(DataError, match="nf = 2"):
        open_source(source)
    with h5py.File(database(tmp_path / "short.h5", F, final), "a") as file:
        del file["F4_final(1|ccm)"]
        file["F4_final(1|ccm)"] = to_public(final).numpy()[:63]
    with pytest.raises(DataError, match="has 64 rows and .* 63"):
        open_source(tmp_path / "short.h5")
    with pytest.raises(MissingFile, match=r"nowhere.h5"):
        prepare(input=str(tmp_path / "nowhere.h5"), output=str(tmp_path / "x.h5"), **QUIET)
    with pytest.raises(DataError, match="no row can be used"):
        prepare(input=str(database(tmp_path / "nan.h5", F * torch.nan, final)), output=str(tmp_path / "x.h5"), **QUIET)
    with pytest.raises(ConfigError, match="tier=t9"):
        prepare(source="synthetic", tier="t9", output=str(tmp_path / "x.h5"), **QUIET)
