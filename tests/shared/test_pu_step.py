"""One decision per optimizer step: whatever the cut over processes and parts, the step of nnPU is that of the whole batch."""

import multiprocessing
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skyloom.data import Columns, Data
from skyloom.errors import ConfigError, DataError
from skyloom.pu import Balanced, nnpu, nnpu_votes, pn, upu
from skyloom.pu.batches import BalancedOrder
from skyloom.run.seeds import numpy_generator
from skyloom.training import Trainer
from skyloom.training.whole_step import WholeStep


def rows(n=96, labelled=24):
    rng = np.random.default_rng(0)
    s = np.zeros(n, np.float32)
    s[rng.permutation(n)[:labelled]] = 1
    x = torch.from_numpy(rng.normal(size=(n, 3)).astype(np.float32))
    x[s > 0, 0] += 3  # separable: the negative risk turns negative for some parts and not for others
    return Columns({"x": x, "s": torch.from_numpy(s)})


class Finder(nn.Module):
    def __init__(self, risk, dropout=0.0, **options):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(
            nn.Linear(3, 16), nn.BatchNorm1d(16, affine=False) if dropout else nn.Tanh(), nn.Dropout(dropout)
        )
        self.head = nn.Linear(16, 1)
        self.risk, self.options, self.calls = risk, options, 0

    def losses(self, batch):
        self.calls += 1
        return self.risk(self.head(self.net(batch["x"]))[:, 0], batch["s"], prior=0.3, **self.options)

    def predict(self, batch):
        return {"logit": self.head(self.net(batch["x"]))[:, 0]}

    def score(self, predictions):
        return {"mean": float(predictions["logit"].mean())}


def fitted(risk, accumulate, table=None, dropout=0.0, epochs=6, **options):
    table = table if table is not None else rows()
    data = Data(table, rows(), rows(), about={"fingerprint": "pu", "synthetic": True})
    task = Finder(risk, dropout, **options)
    seen = []
    trainer = Trainer(
        epochs=epochs, batch_size=24, accumulate=accumulate, quiet=True, log_every=1,
        objective=[{"metric": "val/mean", "direction": "maximize"}],
    )  # fmt: skip
    record = lambda row, step: seen.append(row)  # noqa: E731
    trainer.fit(task, data, lambda m: torch.optim.SGD(m.parameters(), lr=0.5), record=record)
    weights = torch.cat([p.detach().flatten() for p in task.parameters()])
    return weights, [row for row in seen if "train/loss" in row], task


@pytest.mark.parametrize("risk", [nnpu, upu, pn])
def test_accumulation_changes_no_step(risk):
    """Each risk of P and U, whose parts hold different numbers of P: the same weights with 1, 2 and 6 parts."""
    whole, history, _ = fitted(risk, 1)
    for parts in (2, 6):
        weights, other, _ = fitted(risk, parts)
        assert torch.allclose(weights, whole, atol=2e-5)
        for a, b in zip(history, other, strict=True):
            assert a["train/loss"] == pytest.approx(b["train/loss"], abs=1e-5)
    if risk is nnpu:
        clipped = {round(row["train/clipped"], 6) for row in history}
        assert clipped >= {0.0, 1.0}  # both kinds of step were taken, or the test tells nothing


def test_parts_that_decide_for_themselves_take_another_step():
    """What the loop did before: the guard that makes the test above a test."""
    torch.manual_seed(0)
    labels = (torch.arange(24) % 4 == 0).float()
    z = torch.randn(24) - 3 + 6 * labels
    cut = [np.arange(k, k + 4) for k in range(0, 24, 4)]
    decide = lambda part: float(nnpu(z[part], labels[part], prior=0.05)["clipped"])  # noqa: E731
    own = [decide(part) for part in cut]
    with WholeStep(6) as step:
        for part in cut:
            decide(part)
        step.measured()
        together = [decide(part) for part in cut]
    assert len(set(own)) == 2
    assert len(set(together)) == 1


def test_measuring_leaves_buffers_and_draws_alone():
    """With dropout and running statistics, two fits of the same cut agree, and buffers move once a part, not twice."""
    a, _, task = fitted(nnpu, 2, dropout=0.3, epochs=1)
    b, _, _ = fitted(nnpu, 2, dropout=0.3, epochs=1)
    assert torch.equal(a, b)
    steps = 4
    assert int(task.net[1].num_batches_tracked) == steps * 2  # one for each part of each step: measuring leaves no trace
    assert task.calls >= steps * 4


def test_losses_that_are_means_over_rows_are_measured_once_only():
    class Plain(Finder):
        def losses(self, batch):
            self.calls += 1
            return {"loss": self.head(self.net(batch["x"])).square().mean()}

    data = Data(rows(), rows(), rows(), about={"fingerprint": "plain", "synthetic": True})
    task = Plain(None)
    Trainer(epochs=3, batch_size=24, accumulate=2, quiet=True, objective=[{"metric": "val/mean", "direction": "maximize"}]).fit(
        task, data, lambda m: torch.optim.SGD(m.parameters(), lr=0.1)
    )
    assert task.calls == 3 * 4 * 2 + 2


def _process(rank, world, store, queue):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    z = torch.linspace(-3, 4, 24, dtype=torch.float64)
    labels = (torch.arange(24) % 5 == 0).double()
    labels[:12] = (torch.arange(12) % 11 == 0).double()  # unequal numbers of P in the processes
    mine = torch.zeros_like(z, requires_grad=True)
    half = slice(12 * rank, 12 * rank + 12)
    answers = []
    for options in ({}, {"gamma": 0.5}, {"surrogate": "logistic"}):
        terms = nnpu((z + mine)[half] * (1 if not options else 2), labels[half], prior=0.6, **options)
        gradient = torch.autograd.grad(terms["loss"], mine)[0]
        torch.distributed.all_reduce(gradient)
        answers.append((float(terms["loss"].detach()), float(terms["clipped"]), (gradient / world).numpy()))
    cut = [slice(12 * rank, 12 * rank + 4), slice(12 * rank + 4, 12 * rank + 12)]  # and each cuts its own into unequal parts
    with WholeStep(2) as step:
        with torch.no_grad():
            for part in cut:
                nnpu((z + mine)[part], labels[part], prior=0.6)
        step.measured()
        parts = [nnpu((z + mine)[part], labels[part], prior=0.6) for part in cut]
    gradient = torch.autograd.grad(sum(t["loss"] for t in parts) / 2, mine)[0]
    torch.distributed.all_reduce(gradient)
    answers.append((float(parts[0]["loss"].detach()), float(parts[1]["clipped"]), (gradient / world).numpy()))
    with torch.no_grad():  # evaluation parts differ in number from process to process: they must not wait for each other
        answers += [float(nnpu(z[half], labels[half], prior=0.6)["loss"])] if rank == 0 else []
    queue.put((rank, answers, z.numpy(), labels.numpy()))
    torch.distributed.destroy_process_group()


def test_two_processes_take_the_step_of_one():
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        queue = context.Queue()
        workers = [context.Process(target=_process, args=(r, 2, Path(folder) / "store", queue)) for r in range(2)]
        for worker in workers:
            worker.start()
        results = [queue.get(timeout=60) for _ in workers]
        for worker in workers:
            worker.join(60)
    for _, answers, z, labels in results:
        for k, options in enumerate(({}, {"gamma": 0.5}, {"surrogate": "logistic"}, {})):
            whole = torch.zeros(24, dtype=torch.float64, requires_grad=True)
            scale = 1 if not options else 2
            terms = nnpu((torch.from_numpy(z) + whole) * scale, torch.from_numpy(labels), prior=0.6, **options)
            gradient = torch.autograd.grad(terms["loss"], whole)[0].numpy()
            loss, clipped, shared = answers[k]
            assert loss == pytest.approx(float(terms["loss"].detach()), abs=1e-12)
            assert clipped == float(terms["clipped"])
            assert shared == pytest.approx(gradient, abs=1e-12)


def test_votes_are_pooled_too():
    torch.manual_seed(3)
    z, s, votes = torch.randn(24), (torch.arange(24) % 4 == 0).float(), (torch.rand(24) < 0.4).float()
    w = torch.ones(1, requires_grad=True)
    options = {"prior": 0.3, "missed": 0.2, "invented": 0.1}
    whole = nnpu_votes(w * z, s, votes, **options)
    expected = torch.autograd.grad(whole["loss"], w)[0]
    cut = [np.arange(0, 10), np.arange(10, 24)]
    with WholeStep(2) as step:
        for part in cut:
            nnpu_votes(z[part], s[part], votes[part], **options)
        step.measured()
        parts = [nnpu_votes(w * z[part], s[part], votes[part], **options)["loss"] for part in cut]
    gradient = torch.autograd.grad(sum(parts) / 2, w)[0]
    assert torch.allclose(gradient, expected, atol=1e-6)
    assert float(parts[0].detach()) == pytest.approx(float(whole["loss"].detach()), abs=1e-6)


# ---------------------------------------------------------------- balanced batches


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(0, 200),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 9),
)
def test_balanced_batches(labelled, more, p_each, u_each, world, accumulate, epoch):
    """Every part holds its share of P; no U row twice; each P row as often as any other, give or take one."""
    parts = world * accumulate
    batch_size, positives = (p_each + u_each) * parts, p_each * parts
    s = np.zeros(labelled + (batch_size - positives) + more, bool)
    s[numpy_generator(epoch, "scatter").permutation(len(s))[:labelled]] = True
    order = BalancedOrder(s, batch_size, positives, 5, 0, world, accumulate)
    rows_of = order.epoch(epoch)
    assert rows_of.shape == (order.batches, batch_size)
    assert (s[rows_of].sum(1) == positives).all()
    unlabeled = rows_of[~s[rows_of]]
    assert len(np.unique(unlabeled)) == len(unlabeled)
    counts = np.bincount(rows_of[s[rows_of]], minlength=len(s))[s]
    assert counts.max() - counts.min() <= 1
    for rank in range(world):
        for part in BalancedOrder(s, batch_size, positives, 5, rank, world, accumulate).parts(rows_of[0]):
            assert s[part].sum() == p_each
            assert len(part) == p_each + u_each


def test_balanced_batches_are_a_function_of_seed_and_epoch_with_independent_shuffles():
    s = np.arange(400) < 50
    a = BalancedOrder(s, 20, 4, seed=1)
    assert np.array_equal(a.epoch(3), BalancedOrder(s, 20, 4, seed=1).epoch(3))
    assert not np.array_equal(a.epoch(3), a.epoch(4))
    assert not np.array_equal(a.epoch(3), BalancedOrder(s, 20, 4, seed=2).epoch(3))
    meetings = {(i, j) for e in range(3) for b in a.epoch(e) for i in b[s[b]] for j in b[~s[b]]}
    assert len(meetings) > 3 * 20 * 4 * 10  # labelled rows meet other unlabeled ones in each epoch


def test_random_batches_at_a_small_prior_hold_no_positive_and_balanced_ones_do():
    """The share of batches of 256 without a labelled row at 1e-3: 0.77 at random; none here."""
    rng = np.random.default_rng(0)
    s = np.arange(100_000) < 100
    random = np.mean([not s[rng.choice(len(s), 256, replace=False)].any() for _ in range(400)])
    assert random == pytest.approx(0.77, abs=0.06)
    assert s[BalancedOrder(s, 256, 64, seed=0).epoch(0)].sum(1).min() == 64


def test_the_loop_uses_the_order_of_its_training_split():
    table = rows()
    weights, history, _ = fitted(nnpu, 2, Balanced(table, table["s"], positives=0.5))
    assert len(history) >= 6 * (72 // 12)
    assert weights.isfinite().all()
    assert all(row["train/risk_p+"] > 0 for row in history)


def test_impossible_batches_are_named():
    with pytest.raises(ConfigError, match="Nearest: 6"):
        BalancedOrder(np.arange(90) < 30, 24, 5, seed=0, world=3)
    with pytest.raises(DataError, match="0 labelled"):
        BalancedOrder(np.zeros(90, bool), 24, 6, seed=0)
