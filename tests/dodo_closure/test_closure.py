"""The closure as a simulation calls it: any frame, any device and precision, bad rows, and as one graph."""

import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch

from dodo_closure import Closure, ClosureTask, asymptotic_state, conservation_error, draw_states, synthetic, total_density
from dodo_closure.boosts import four_velocity, from_comoving, to_comoving
from dodo_closure.closure import GraphClosure, example_input
from dodo_closure.fluxes import is_physical
from dodo_closure.model import EquivariantResidual
from dodo_closure.states import random_rotations, rotate
from skyloom.errors import DataError
from skyloom.training.graphs import write_graph

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def task():
    data = synthetic(tier="t1", rows=160, heldout_rows=20, processes=1)
    torch.manual_seed(0)
    made = ClosureTask(data.about, partial(EquivariantResidual, hidden=24, depth=2, members=3)).eval()
    with torch.no_grad():  # weights as after training: of some size, and of members that mostly trust themselves
        made.residual.coefficients.weights[-1].normal_(std=0.2)
        made.residual.spreads.weights[-1].normal_(std=0.3)
        made.residual.spreads.biases[-1][..., 2:] = 0.1
    return made


def moving(rows: int, fastest: float = 0.6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(rows, 3, generator=generator, dtype=torch.float64))
    return four_velocity(fastest * torch.rand(rows, 1, generator=generator, dtype=torch.float64) * direction)


def unit(F: torch.Tensor) -> torch.Tensor:
    return total_density(F)[:, None, None, None]


def test_boosts_are_lorentz_transformations():
    F, u = draw_states("merger", 50, seed=1), moving(50, 0.9)
    metric = torch.tensor([1.0, 1, 1, -1], dtype=torch.float64)
    rest = to_comoving(F, u)
    torch.testing.assert_close(
        (rest**2 * metric).sum(-1) / unit(F)[..., 0] ** 2, (F**2 * metric).sum(-1) / unit(F)[..., 0] ** 2
    )
    torch.testing.assert_close(rest[..., 3], -(F * metric * u[:, None, None]).sum(-1))
    torch.testing.assert_close(from_comoving(rest, u), F)
    assert bool(is_physical(rest, 1e-12).all())


def test_any_frame_gives_the_same_answer(task):
    closure, F, u = Closure(task), draw_states("merger", 60, seed=2), moving(60)
    at_rest = closure(F)
    seen = closure(from_comoving(F, u), u)
    assert ((to_comoving(seen, u) - at_rest) / unit(F)).abs().max() < 1e-10
    moved = closure.answer(from_comoving(F, u), u)
    trace, _ = conservation_error(from_comoving(F, u), moved.final)
    assert trace.max() < 1e-12
    assert ((at_rest - asymptotic_state(F)[0]) / unit(F)).abs().mean() > 1e-5, "the network does something"


@pytest.mark.parametrize("kind, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_conserves_and_is_physical_in_both_precisions(task, kind, tolerance):
    own = {"merger": 3000, "nsm_like": 500, "one_flavor": 300, "random": 200, "near_isotropic": 200}
    F = torch.cat([draw_states(family, rows, seed=3) for family, rows in own.items()])
    found = Closure(task).answer(F.to(kind))
    assert found.final.dtype == kind
    trace, lepton = conservation_error(F.to(kind).double(), found.final.double())
    assert max(trace.max(), lepton.max()) < tolerance
    assert bool(is_physical(found.final.double(), tolerance).all())
    stable = ~found.unstable
    assert 0.05 < stable.double().mean() < 0.6
    assert torch.equal(found.final[stable], F.to(kind)[stable])
    exact = Closure(task).answer(F)
    same = exact.fallen_back == found.fallen_back
    error = ((found.final.double() - exact.final) / unit(F)).abs().amax(dim=(1, 2, 3))[same]
    assert error.quantile(0.9) < 1e-5  # of six-species states float32 cuts fewer meridians


@pytest.mark.slow
def test_no_unphysical_output_in_a_million_states(task):
    closure, bad = Closure(task), 0
    for seed in range(125):
        F = torch.cat(
            [draw_states("merger", 6000, seed), draw_states("nsm_like", 1000, seed), draw_states("one_flavor", 1000, seed)]
        )
        found = closure.answer(F)
        bad += int((~is_physical(found.final, 1e-12)).sum())
        assert max(part.max() for part in conservation_error(F, found.final)) < 1e-12
    assert closure.rows == 1_000_000
    assert bad == 0


def test_it_counts_how_often_box3d_answers(task):
    closure, F = Closure(task), draw_states("merger", 300, seed=4)
    found = closure.answer(F)
    box = asymptotic_state(F)[0]
    assert 0 < closure.fallen_back == int(found.fallen_back.sum()) < 150
    assert closure.rows == 300
    assert ((found.final - box) / unit(F)).abs()[found.fallen_back].max() < 1e-14
    assert bool((found.error[found.unstable] > 0).any(dim=-1).all())
    bars = (found.error / unit(F)).mean(dim=(1, 2, 3))
    assert 1e-5 < bars[found.unstable].median() < 0.05
    assert bool((found.growth[found.unstable] > 0).all())


def test_rotations_and_shapes(task):
    closure, F = Closure(task), draw_states("random", 24, seed=5)
    R = random_rotations(24, torch.Generator().manual_seed(0))
    assert ((closure(rotate(F, R)) - rotate(closure(F), R)) / unit(F)).abs().max() < 1e-8
    assert torch.equal(closure(F.reshape(2, 3, 4, 2, 3, 4)).reshape(24, 2, 3, 4), closure(F))


def test_rows_that_cannot_be_are_nan_and_harm_no_other(task):
    closure, F = Closure(task), draw_states("merger", 5, seed=6)
    good = closure(F)
    F[0, 0, 0, 0], F[1, 1, 1, 3], F[2, 0, 0, :3] = torch.nan, -1e33, 1e35
    found = closure.answer(F)
    assert found.valid.tolist() == [False, False, False, True, True]
    assert closure.invalid == 3
    assert bool(torch.isnan(found.final[:3]).all())
    torch.testing.assert_close(found.final[3:], good[3:], rtol=1e-12, atol=0)


def test_a_wrong_velocity_or_shape_is_named(task):
    F, u = draw_states("merger", 4), moving(4)
    u[2, 3] += 0.1
    with pytest.raises(DataError, match=r"u of row 2 .* u\.u = -1"):
        Closure(task)(F, u)
    with pytest.raises(DataError, match="from_public"):
        Closure(task)(F.permute(0, 3, 1, 2))


def test_the_graph_is_the_closure(task):
    graph, example = GraphClosure(task), example_input(200)
    with torch.no_grad():
        found = graph(example)
    mine = Closure(task).answer(example["F"], example["u"])
    scale = unit(example["F"])
    for name in ("final", "error"):
        assert ((found[name] - getattr(mine, name)) / scale).abs().max() < 1e-6
    assert torch.equal(found["fallen_back"] > 0.5, mine.fallen_back)


def test_torchscript_says_the_same(task, tmp_path):
    written = write_graph(task, tmp_path / "closure.ts", "torchscript")
    assert written.worst < 1e-6
    other = example_input(9)
    with torch.no_grad():
        final = torch.jit.load(tmp_path / "closure.ts")(other["F"], other["u"])[written.outputs.index("final")]
    assert ((final - Closure(task)(other["F"], other["u"])) / unit(other["F"])).abs().max() < 1e-6


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_other_graphs_say_the_same(task, tmp_path, kind):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    assert write_graph(task, tmp_path / f"closure.{kind}", kind).worst < 1e-6


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("g++") is None or shutil.which("cmake") is None, reason="no C++ compiler")
def test_a_simulation_in_cpp_gets_the_same_numbers(task, tmp_path):
    """The example of the package, compiled against LibTorch, on states written by Python."""
    written = write_graph(task, tmp_path / "closure.ts", "torchscript")
    assert written.outputs[0] == "final"
    source = ROOT / "packages" / "dodo_closure" / "examples" / "cpp"
    prefix = torch.utils.cmake_prefix_path
    for command in (
        ["cmake", "-S", source, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}"],
        ["cmake", "--build", tmp_path / "build"],
    ):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    example = example_input(7)
    rows = torch.cat([example["F"].reshape(7, 24), example["u"]], dim=1)
    text = "\n".join(" ".join(f"{value:.17g}" for value in row) for row in rows.tolist())
    done = subprocess.run(
        [tmp_path / "build" / "closure", tmp_path / "closure.ts"], input=text, capture_output=True, text=True, check=True
    )
    final = torch.tensor([[float(value) for value in line.split()] for line in done.stdout.splitlines()], dtype=torch.float64)
    mine = Closure(task)(example["F"], example["u"])
    assert ((final.reshape(7, 2, 3, 4) - mine) / unit(example["F"])).abs().max() < 1e-6
