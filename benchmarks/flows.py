"""Flows beside FrEIA, zuko, nflows and sbi: training step, density, and a thousand draws for each of a thousand objects.

make bench name=flows               # everything; quick=1 for two rounds of a tenth of the draws
"""

import json
import os
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import torch
from compare import RESULTS, interleaved, row
from torch import nn

from skyloom.flows import AffineAutoregressive, GlowCoupling, SplineAutoregressive
from skyloom.run.files import write_json, write_text

torch.set_num_threads(1)
warnings.filterwarnings("ignore")
FEATURES, CONTEXT, BATCH, ROWS = 6, 7, 256, 10_000


# ---------------------------------------------------------------------- the peers, used as their documentation shows


class PlainFrEIA(nn.Module):
    """A conditional invertible network as FrEIA's users write it: the condition goes through every subnet with every row."""

    def __init__(self, blocks: int, hidden: int, clamp: float):
        super().__init__()
        from FrEIA.framework import SequenceINN
        from FrEIA.modules import GLOWCouplingBlock, PermuteRandom

        def subnet(inputs, outputs):
            return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

        self.inn = SequenceINN(FEATURES)
        for k in range(blocks):
            self.inn.append(GLOWCouplingBlock, cond=0, cond_shape=(CONTEXT,), subnet_constructor=subnet, clamp=clamp)
            self.inn.append(PermuteRandom, seed=k)

    def log_prob(self, y, c):
        z, ladj = self.inn(y, c=[c])
        return -0.5 * (z.square().sum(1) + FEATURES * 1.8378770664093453) + ladj

    def sample(self, draws, c):
        """All draws of all objects in one pass, each with its own copy of the context."""
        z = torch.randn(draws * len(c), FEATURES)
        return self.inn(z, c=[c.repeat(draws, 1)], rev=True)[0]

    def sample_each(self, draws, c):
        """Object by object: smaller tensors, which stay in the cache."""
        return torch.stack([self.inn(torch.randn(draws, FEATURES), c=[x.expand(draws, -1)], rev=True)[0] for x in c], 1)


class Zuko(nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def log_prob(self, y, c):
        return self.flow(c).log_prob(y)

    def sample(self, draws, c):
        return self.flow(c).sample((draws,))


class Nflows(nn.Module):
    def __init__(self, spline: bool, transforms: int, hidden: int):
        super().__init__()
        from nflows.distributions.normal import StandardNormal
        from nflows.flows.base import Flow
        from nflows.transforms import autoregressive
        from nflows.transforms.base import CompositeTransform
        from nflows.transforms.permutations import ReversePermutation

        shared = {"features": FEATURES, "hidden_features": hidden, "context_features": CONTEXT, "num_blocks": 1}
        shared |= {"use_residual_blocks": False}
        kind = autoregressive.MaskedAffineAutoregressiveTransform
        if spline:
            kind = autoregressive.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
            shared |= {"num_bins": 8, "tails": "linear", "tail_bound": 5.0}
        layers = [layer for _ in range(transforms) for layer in (kind(**shared), ReversePermutation(FEATURES))]
        self.flow = Flow(CompositeTransform(layers), StandardNormal([FEATURES]))

    def log_prob(self, y, c):
        return self.flow.log_prob(y, c)

    def sample(self, draws, c):
        return self.flow.sample(draws, c)


class Sbi(nn.Module):
    def __init__(self, model: str, transforms: int, hidden: int):
        super().__init__()
        from sbi.neural_nets import posterior_nn

        build = posterior_nn(model, hidden_features=hidden, num_transforms=transforms, num_bins=8, z_score_theta="none")
        self.flow = build(torch.randn(100, FEATURES), torch.randn(100, CONTEXT))

    def log_prob(self, y, c):
        return self.flow.log_prob(y.unsqueeze(0), c).squeeze(0)

    def sample(self, draws, c):
        return self.flow.sample((draws,), c)


class Ours(nn.Module):
    def __init__(self, flow, compiled=False):
        super().__init__()
        self.flow = flow
        if compiled:
            flow.compile()

    def log_prob(self, y, c):
        return self.flow(c).log_prob(y)

    def sample(self, draws, c):
        return self.flow(c).sample((draws,))


def as_freia(flow):
    """FrEIA's own network with the weights of ours."""
    peer = PlainFrEIA(12, 128, 2.0)
    for theirs, step in zip(list(peer.inn)[::2], list(flow.steps)[::2], strict=True):
        for name in ("subnet1", "subnet2"):
            for target, source in zip(getattr(theirs, name)[::2], getattr(step.block, name).layers, strict=True):
                target.load_state_dict(source.state_dict())
    y, c = torch.randn(50, FEATURES), torch.randn(50, CONTEXT)
    torch.testing.assert_close(peer.log_prob(y, c), flow(c).log_prob(y), rtol=1e-4, atol=1e-3)
    return peer


def as_zuko(flow, peer):
    """zuko's own flow with the weights of ours."""
    for theirs, step in zip(peer.transform.transforms, flow.steps, strict=True):
        theirs.hyper.load_state_dict(step.network.state_dict())
    y, c = torch.randn(50, FEATURES), torch.randn(50, CONTEXT)
    torch.testing.assert_close(peer(c).log_prob(y), flow(c).log_prob(y), rtol=1e-4, atol=1e-3)
    return Zuko(peer)


# ---------------------------------------------------------------------- what is measured


def training(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    y, c = torch.randn(BATCH, FEATURES), torch.randn(BATCH, CONTEXT)

    def steps():
        for _ in range(20):
            loss = -model.log_prob(y, c).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return steps


def density(model):
    y, c = torch.randn(ROWS, FEATURES), torch.randn(ROWS, CONTEXT)

    @torch.no_grad()
    def evaluate():
        model.log_prob(y, c)

    return evaluate


def drawing(method, draws, objects):
    c = torch.randn(objects, CONTEXT)

    @torch.no_grad()
    def draw():
        method(draws, c)

    return draw


def families():
    """Name, ours, and the peers of equal shape: {label: (model, package)}."""
    import zuko

    glow = GlowCoupling(FEATURES, CONTEXT, blocks=12, hidden=128, clamp=2.0)
    spline = SplineAutoregressive(FEATURES, CONTEXT, transforms=3, bins=8, hidden=(64, 64))
    affine = AffineAutoregressive(FEATURES, CONTEXT, transforms=5, hidden=(50, 50))
    nsf = zuko.flows.NSF(FEATURES, CONTEXT, bins=8, transforms=3, hidden_features=(64, 64))
    maf = zuko.flows.MAF(FEATURES, CONTEXT, transforms=5, hidden_features=(50, 50))
    return {
        "GLOW, 12 blocks of 128": (glow, {"FrEIA, plain": (as_freia(glow), "FrEIA")}, 1000),
        "spline, autoregressive, 3 of 64x64": (
            spline,
            {
                "zuko NSF": (as_zuko(spline, nsf), "zuko"),
                "nflows": (Nflows(True, 3, 64), "nflows"),
                "sbi nsf (couplings)": (Sbi("nsf", 3, 64), "sbi"),
            },
            100,
        ),
        "affine, autoregressive, 5 of 50x50": (
            affine,
            {
                "zuko MAF": (as_zuko(affine, maf), "zuko"),
                "nflows": (Nflows(False, 5, 50), "nflows"),
                "sbi maf": (Sbi("maf", 5, 50), "sbi"),
            },
            100,
        ),
    }


def measure(quick):
    rounds, rows = (2, []) if quick else (5, [])
    for name, (flow, peers, objects) in families().items():
        ours = Ours(flow)
        objects = objects // 10 if quick else objects
        models = {"ours": ours, **{label: model for label, (model, _) in peers.items()}}
        versions = {label: version(package) for label, (_, package) in peers.items()}
        jobs = {
            f"training step, batch {BATCH}": ({k: training(m.train()) for k, m in models.items()}, rounds + 4, "≥ 1"),
            f"density of {ROWS:,} rows": ({k: density(m) for k, m in models.items()}, rounds, ""),
            f"1,000 draws x {objects:,} objects": (
                {k: drawing(m.sample, 1000, objects) for k, m in models.items()},
                rounds,
                "",
            ),
        }
        for job, (cases, n, target) in jobs.items():
            for model in models.values():
                model.train(mode=job.startswith("training"))
            if "draws" in job and "GLOW" in name:
                plain = cases.pop("FrEIA, plain")
                cases |= {"FrEIA, plain, all at once": plain}
                cases |= {"FrEIA, plain, object by object": drawing(peers["FrEIA, plain"][0].sample_each, 1000, objects)}
                versions |= dict.fromkeys([k for k in cases if k != "ours"], versions["FrEIA, plain"])
                target = "≥ 3"
            seconds = interleaved(cases, n)
            own = seconds.pop("ours")
            rows += [row(f"{name}: {job}", own, peer, versions[peer], s, target) for peer, s in seconds.items()]
            print(rows[-len(seconds) :], flush=True)
            write(rows, quick)
        if "GLOW" in name:
            rows += compiled(name, flow, objects, rounds)
            write(rows, quick)
    return rows


def compiled(name, flow, objects, rounds):
    """Our own passes, compiled, beside themselves as they are."""
    import copy

    try:
        other = Ours(copy.deepcopy(flow), compiled=True)
        cases = {"ours": drawing(other.sample, 1000, objects), "plain": drawing(Ours(flow).sample, 1000, objects)}
        seconds = interleaved(cases, rounds)
    except Exception as error:  # no compiler on this machine
        print(f"torch.compile does not work here: {error}")
        return []
    case = f"{name}: compiled, 1,000 draws x {objects:,} objects"
    return [row(case, seconds["ours"], "ours, not compiled", version("torch"), seconds["plain"], "")]


def write(rows, quick):
    """The tables, kept up to date as the measurement goes on."""
    command = "make bench name=flows" + (" quick=1" if quick else "")
    lines = [
        f"| {r['case']} | {r['peer']} | {r['version']} | {r['ratio']:.2f} | {r['ratio_min']:.2f} | {r['ratio_max']:.2f} "
        f"| {r['target']} | {'' if not r['target'] else 'met' if r['ratio'] >= float(r['target'][2:]) else 'not met'} |"
        for r in rows
    ]
    head = "| case | peer | version | ratio peer/ours: median | min | max | target | |\n|---|---|---|---|---|---|---|---|"
    notes = (
        f"{FEATURES} targets, {CONTEXT} observables, float32, one thread, CPU seconds, interleaved. FrEIA and zuko run with "
        "the weights of ours, and give the same densities; nflows and sbi have networks of the same widths. FrEIA is drawn by "
        "repeating the context, as its users do, all at once or object by object. sbi's nsf is a coupling flow, and draws in "
        "fewer passes than an autoregressive one. Splines and autoregressive layers draw for 100 objects, since zuko needs "
        "several GB for a million rows at once."
    )
    text = "\n".join(["# Flows beside their peers", "", f"Made by `{command}`. Above 1: ours is faster.", "", head, *lines])
    if not quick:
        write_text(RESULTS / "flows.md", f"{text}\n\n{notes}\n")
        write_json(RESULTS / "flows.json", {"command": command, "python": sys.version.split()[0], "rows": rows, "notes": notes})
    return text


if __name__ == "__main__":
    quick = "quick=1" in sys.argv
    rows = measure(quick)
    print(write(rows, quick))
    print(json.dumps({f"{r['case']} / {r['peer']}": round(r["ratio"], 2) for r in rows}))
