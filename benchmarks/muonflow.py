"""Muon bundles beside the same model written plainly with zuko and nflows, and the memory of a stream of muons.

make bench name=muonflow            # everything; parts=training,bound,generation,memory,device; quick=1 or share=0.05 for less

Plain means as the libraries' documentation shows and as earlier work did it: the context network runs once per muon, and
bundles are drawn event by event. The networks have the same layers and widths; each case is timed in this process, interleaved.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import pairwise

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.append(sys.path.pop(0))  # this folder last: the package is found before this file of its name

import numpy as np
import torch
from compare import RESULTS, interleaved, row, write_table
from torch import nn

from muonflow import BundleGenerator, MuonBundles, showers
from muonflow.coordinates import ceilings, derived_features, from_flow, source_log_jacobian, to_flow
from muonflow.data import split

torch.set_num_threads(1)
CONTEXT, BINS, HIDDEN = 16, 8, 48


def embedding() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 48), nn.ELU(), nn.Linear(48, CONTEXT), nn.ELU())


def count_head() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 48), nn.ELU(), nn.Linear(48, 48), nn.ELU(), nn.Linear(48, 3))


class Plain(nn.Module):
    """The context of every muon by itself; every event drawn by itself."""

    def __init__(self, about: dict) -> None:
        super().__init__()
        self.embed, self.head = embedding(), count_head()
        self.mean, self.scale = (torch.tensor(about["features"][k]) for k in ("mean", "scale"))
        shift = about["targets"]["standardise"]["steps"][1]
        self.shift, self.width = torch.tensor(shift["shift"]), torch.tensor(shift["scale"])

    def log_prob(self, y, context):
        raise NotImplementedError

    def draw(self, context, n):
        raise NotImplementedError

    def loss(self, batch):
        condition, owner, muons = batch["condition"], batch["owner"], batch["muons"]
        features = (derived_features(condition) - self.mean) / self.scale
        y, ladj = to_flow(muons, ceilings(condition)[owner])
        context = self.embed(features[owner])
        log_prob = self.log_prob((y - self.shift) / self.width, context) + ladj + source_log_jacobian(muons)
        from muonflow.counts import Hurdle

        counts = Hurdle(*self.head(features).unbind(-1)).among_kept(batch["kept"]).log_prob(batch["count"])
        return -(log_prob.sum() + counts.sum()) / len(condition)

    @torch.no_grad()
    def generate(self, condition):
        from muonflow.counts import Hurdle

        bundles = []
        for one in condition:
            features = (derived_features(one[None]) - self.mean) / self.scale
            n = int(Hurdle(*self.head(features).unbind(-1)).sample())
            if n:
                y = self.draw(self.embed(features), n) * self.width + self.shift
                bundles.append(from_flow(y, (one[0] / one[2]).expand(n)))
        return bundles


class PlainZuko(Plain):
    def __init__(self, about):
        super().__init__(about)
        import zuko

        self.flow = zuko.flows.NSF(2, CONTEXT, bins=BINS, transforms=2, hidden_features=[HIDDEN, HIDDEN])

    def log_prob(self, y, context):
        return self.flow(context).log_prob(y)

    def draw(self, context, n):
        return self.flow(context[0]).sample((n,))


class PlainNflows(Plain):
    def __init__(self, about):
        super().__init__(about)
        from nflows.distributions.normal import StandardNormal
        from nflows.flows.base import Flow
        from nflows.transforms.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressiveTransform as Layer
        from nflows.transforms.base import CompositeTransform
        from nflows.transforms.permutations import ReversePermutation

        layers = []
        for _ in range(2):
            layers += [
                Layer(
                    features=2, hidden_features=HIDDEN, context_features=CONTEXT, num_bins=BINS, tails="linear", tail_bound=5.0,
                    num_blocks=2, use_residual_blocks=False,
                ),
                ReversePermutation(2),
            ]  # fmt: skip
        self.flow = Flow(CompositeTransform(layers), StandardNormal([2]))

    def log_prob(self, y, context):
        return self.flow.log_prob(y, context)

    def draw(self, context, n):
        return self.flow.sample(n, context)[0]


def step(parameters, loss):
    optimizer = torch.optim.Adam(parameters, lr=1e-3)

    def run():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return run


def timed(parts: set[str], rounds: int, share: float) -> tuple[list[dict], list[str]]:
    events = showers.simulate(int(200_000 * max(share, 0.3)), 1, 2.0, 0.01, seed=0)
    data = split(events, {"synthetic": True, "oracle": "elbert"})
    torch.manual_seed(0)
    ours = MuonBundles(data.about)
    peers = {"zuko": PlainZuko(data.about), "nflows": PlainNflows(data.about)}
    rows, notes = [], []
    if "training" in parts:
        size = min(2048, len(data.train))
        batch = data.train.__getitems__(np.arange(size))
        cases = {"ours": step(ours.parameters(), lambda: ours.losses(batch)["loss"])}
        cases |= {n: step(p.parameters(), lambda p=p: p.loss(batch)) for n, p in peers.items()}
        seconds = interleaved(cases, rounds)
        rows += [row("training step", seconds["ours"], n, version(n), seconds[n], ">= 3") for n in peers]
        rate = len(batch["muons"]) / np.median(seconds["ours"])
        notes.append(f"Training: {size} events with {len(batch['muons'])} muons a step; ours {rate:,.0f} muons per CPU second.")
    if "bound" in parts:
        notes += bound(data)
    if "generation" in parts:
        ours.eval()
        filled = data.test.where(data.test.count > 0)
        condition = filled.condition[: int(600 * max(share, 0.3))]
        generator = BundleGenerator(ours)
        columns = condition.unbind(1)
        cases = {"ours": lambda: generator(*columns, extrapolate=True)}
        cases |= {n: lambda p=p: p.generate(condition) for n, p in peers.items()}
        seconds = interleaved(cases, rounds)
        rows += [row("generation", seconds["ours"], n, version(n), seconds[n], ">= 20") for n in peers]
        rate = len(condition) / np.median(seconds["ours"])
        notes.append(f"Generation: {len(condition)} bundles of untrained networks; ours {rate:,.0f} bundles per CPU second.")
    return rows, notes


def bound(data, rounds: int = 30) -> list[str]:
    """What a training step cannot be quicker than: its products of matrices and its splines, each timed alone, in the cache."""
    from skyloom.flows.spline_gradient import trained_spline

    batch = data.train.__getitems__(np.arange(min(2048, len(data.train))))
    n = len(batch["muons"])
    knots = 3 * BINS - 1
    widths = [2 + CONTEXT, HIDDEN, HIDDEN, 2 * knots]
    layers = [(torch.randn(b, a), torch.randn(a, n), torch.randn(b, n)) for a, b in pairwise(widths)]
    x, raw = torch.randn(2, n, requires_grad=True), torch.randn(2, knots, n, requires_grad=True)

    def products():
        for weight, seen, slope in layers:  # forward, to the weights, to what was seen
            weight @ seen, slope @ seen.T, weight.T @ slope

    def splines():
        y, ladj = trained_spline(x, raw, 5.0)
        torch.autograd.grad(y.sum() + ladj.sum(), [x, raw])

    model = MuonBundles(data.about)
    whole = step(model.parameters(), lambda: model.losses(batch)["loss"])
    seconds = interleaved({"products": products, "splines": splines, "whole": whole}, rounds)
    products_ms, splines_ms, whole_ms = (1e3 * float(np.median(seconds[name])) for name in ("products", "splines", "whole"))
    operations = 2 * 3 * 2 * n * sum(a * b for a, b in pairwise(widths))
    return [
        f"Bound: a step of {n} muons takes {whole_ms:.1f} ms; in the cache, the {operations / 1e9:.2f} Gflop of products "
        f"of matrices in its two layers alone take {2 * products_ms:.1f} ms, and their splines alone {2 * splines_ms:.1f} ms."
    ]


def stream(folder: str) -> None:
    """Read a whole epoch; print muons, seconds and the largest memory in MiB."""
    from muonflow.streaming import from_shards

    began = time.process_time()
    data = from_shards(folder, most_held_out=10_000)
    order = data.train.order(len(data.train), 1024, seed=0)
    base, muons = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 0
    for rows in order.epoch(0):
        muons += len(data.train.__getitems__(rows)["muons"])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"muons": muons, "cpu_s": time.process_time() - began, "before": base, "most": most}))


def memory(share: float) -> list[str]:
    """Peak memory of a process that streams a file set, and of one that streams twenty times as much."""
    from muonflow.prepare import prepare

    notes = []
    with tempfile.TemporaryDirectory() as folder:
        for name, n in (("small", int(3_000_000 * share)), ("large", int(60_000_000 * share))):
            target = f"{folder}/{name}"
            written = prepare(output=target, n_showers=n, depths=1, index=2.0, keep_empty=0.01, rows_per_file=200_000)
            command = [sys.executable, __file__, f"stream={target}"]
            out = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
            notes.append(
                f"Stream of {written['muons']:,} muons in {written['files']} files: {out['muons']:,} in training batches; "
                f"peak memory {out['most']:.0f} MiB; {out['muons'] / out['cpu_s']:,.0f} muons per CPU second."
            )
    return notes


def device(seconds: float = 3.0) -> list[str]:
    """Muons per second of wall clock that `BundleGenerator` makes on an accelerator, counts and constraints included."""
    if not torch.cuda.is_available():
        return []
    data = split(showers.simulate(100_000, 1, 2.0, 0.01, seed=0), {"synthetic": True, "oracle": "elbert"})
    torch.manual_seed(0)
    task = MuonBundles(data.about).to("cuda")
    train = step(task.parameters(), lambda: task.losses(batch)["loss"])
    for _ in range(150):  # so that bundles have the size of bundles
        batch = data.train.__getitems__(torch.randint(len(data.train), (2048,)))
        batch = {name: value.to("cuda") for name, value in batch.items()}
        train()
    generator = BundleGenerator(task)
    filled = data.test.where(data.test.count > 0).condition
    condition = filled[torch.randint(len(filled), (1_000_000,))].to("cuda")
    made, began = 0, 0.0
    for turn in range(1000):
        if turn == 2:  # the first calls warm up
            torch.cuda.synchronize()
            made, began = 0, time.perf_counter()
        made += len(generator(*condition.unbind(1), seed=turn, extrapolate=True).energy)
        torch.cuda.synchronize()
        if turn > 2 and time.perf_counter() - began > seconds:
            break
    rate = made / (time.perf_counter() - began)
    return [f"Generation on one {torch.cuda.get_device_name()}: {rate:,.0f} muons per second, a million bundles a call."]


def kept(rows: list[dict], notes: list[str]) -> tuple[list[dict], list[str]]:
    """With what an earlier call measured of the parts that this one left out."""
    if not (RESULTS / "muonflow.json").exists():
        return rows, notes
    earlier = json.loads((RESULTS / "muonflow.json").read_text())
    new, about = {(r["case"], r["peer"]) for r in rows}, {note.split()[0] for note in notes}
    rows = [r for r in earlier["rows"] if (r["case"], r["peer"]) not in new] + rows
    return rows, [n for n in earlier["notes"].split("\n\n") if n and n.split()[0] not in about] + notes


def main(words: list[str]) -> None:
    given = dict(word.split("=", 1) for word in words)
    if "stream" in given:
        stream(given["stream"])
        return
    quick = given.get("quick") == "1"
    parts = set(given.get("parts", "training,bound,generation,memory,device").split(","))
    share = float(given.get("share", 0.1 if quick else 1.0))  # of the full work
    rows, notes = timed(parts, 3 if quick else 7, share) if parts & {"training", "bound", "generation"} else ([], [])
    if "device" in parts:
        notes += device()
    if "memory" in parts:
        notes += memory(share)
    rows, notes = kept(rows, notes)
    write_table("muonflow", "Muon bundles: one context per event, all muons in one call", rows, "\n\n".join(notes))


if __name__ == "__main__":
    main(sys.argv[1:])
