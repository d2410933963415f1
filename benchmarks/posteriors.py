"""Posteriors of the public benchmark of simulation-based inference (sbibm): ours beside sbi's NPE with its defaults.

    make bench name=posteriors                      # all tasks at 1,000 and 10,000 simulations
    make bench name=posteriors tasks=two_moons,slcp sizes=1000 observations=3    # these rows again, the others stay

One network per task and number of simulations, amortised over the observations; the score of an observation is the accuracy
of a classifier (C2ST) between draws and the benchmark's reference posterior: 0.5 is perfect, 1 is worst.
Both sides get the same simulations.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time
import warnings
import zipfile
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import torch
from compare import RESULTS
from torch import nn

from skyloom.flows import Affine, AffineAutoregressive, AroundRegression, Box, InUserUnits, SplineAutoregressive, Standardise
from skyloom.metrics.two_sample import c2st
from skyloom.run.files import write_json, write_text

torch.set_num_threads(1)
WHEELS = ("sbibm==1.1.0", "pyro-ppl==1.9.2", "pyro-api==0.1.2", "opt_einsum==3.4.0")
TASKS = ("two_moons", "slcp", "gaussian_linear", "gaussian_mixture", "bernoulli_glm")
DECAY = 0.1  # of the weights of affine maps, which would learn the simulations by heart
PUBLISHED = {  # NPE with a neural spline flow, 2021, one training per observation, C2ST on 10,000 draws
    "two_moons": (0.725, 0.606),
    "slcp": (0.975, 0.901),
    "gaussian_linear": (0.694, 0.552),
    "gaussian_mixture": (0.716, 0.615),
    "bernoulli_glm": (0.863, 0.678),
}


def benchmark_tasks():
    """sbibm's task files and reference posteriors, out of its wheel: its pins (sbi < 0.22) cannot live beside today's sbi."""
    home = Path(os.environ.get("SKYLOOM_CACHE", Path(__file__).parents[1] / "cache")) / "sbibm"
    if not (home / "sbibm").is_dir():
        wheels = home / "wheels"
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary",
            ":all:",
            "-d",
            str(wheels),
            *WHEELS,
        ]
        subprocess.run(command, check=True)
        for wheel in wheels.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(home)
    sys.path.append(str(home))
    from sbibm import get_task

    return get_task


# ---------------------------------------------------------------------- ours


def flows_for(prior, theta, x):
    """What is tried for a task: flows, each with the weight decay that it is trained with.

    A bounded prior is given to splines that map the box onto itself. Without bounds a posterior may nearly be a line with
    Gaussian scatter, which splines around a linear regression begin as, or a Gaussian whose mean and spread bend with the
    observation, for which smooth affine maps suffice: both are trained, and the held-out tenth of the simulations decides.
    """
    features, context = theta.shape[1], x.shape[1]
    scale = Standardise.fit(x)
    base = getattr(prior, "base_dist", prior)
    low, high = getattr(base, "low", None), getattr(base, "high", None)
    splines = partial(SplineAutoregressive, features, context, transforms=5, bins=10, hidden=(64, 64), identity_start=True)
    if low is not None:
        return [(InUserUnits(splines(base=Box), Affine((low + high) / 2, (high - low) / 10), scale), 0.0)]
    target = Standardise.fit(theta)
    smooth = AffineAutoregressive(features, context, transforms=5, hidden=(64, 64), activation="tanh", identity_start=True)
    around = around_regression(splines(), target(theta.double())[0], scale(x.double())[0])
    return [(InUserUnits(around, target, scale), 0.0), (InUserUnits(smooth, target, scale), DECAY)]


def around_regression(flow, z, w):
    design = torch.cat([w, torch.ones(len(w), 1, dtype=w.dtype)], 1)
    solution = torch.linalg.lstsq(design, z).solution
    residual = z - design @ solution
    return AroundRegression(flow, solution[:-1], solution[-1], residual.T @ residual / len(z))


def train(flow, decay, theta, x, seed, rate=1e-3, batch=200, patience=20, most=500):
    """AdamW with a weight average; the rate is halved when validation stalls; the best averaged weights on a tenth held out."""
    order = torch.randperm(len(theta), generator=torch.Generator().manual_seed(seed))
    held, kept = order[: len(theta) // 10], order[len(theta) // 10 :]
    optimizer = torch.optim.AdamW(flow.parameters(), lr=rate, weight_decay=decay)
    average = torch.optim.swa_utils.AveragedModel(flow, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    best, state, stale = math.inf, None, 0
    for _ in range(most):
        flow.train()
        for part in kept[torch.randperm(len(kept))].split(batch):
            loss = -flow(x[part]).log_prob(theta[part]).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
            optimizer.step()
            average.update_parameters(flow)
        with torch.no_grad():
            value = -average.module.eval()(x[held]).log_prob(theta[held]).mean().item()
        stale += 1
        if value < best - 1e-4:
            best, stale, state = value, 0, {k: v.clone() for k, v in average.module.state_dict().items()}
        elif stale % 6 == 0:
            for group in optimizer.param_groups:
                group["lr"] /= 2
        if stale >= patience:
            break
    flow.load_state_dict(state)
    return flow.eval(), best


def ours(task, theta, x, seed):
    torch.manual_seed(seed)
    tried = [train(flow, decay, theta, x, seed) for flow, decay in flows_for(task.get_prior_dist(), theta, x)]
    flow, _ = min(tried, key=lambda found: found[1])
    return lambda observed, n: flow(observed).sample((n,)).squeeze(1)


# ---------------------------------------------------------------------- sbi


def sbi_defaults(task, theta, x, seed):
    from sbi.inference import NPE
    from sbi.utils import BoxUniform

    torch.manual_seed(seed)
    prior = task.get_prior_dist()
    base = getattr(prior, "base_dist", prior)
    if hasattr(base, "low"):
        prior = BoxUniform(base.low, base.high)
    else:
        prior = torch.distributions.MultivariateNormal(prior.loc, precision_matrix=prior.precision_matrix)
    inference = NPE(prior=prior, show_progress_bars=False)
    inference.append_simulations(theta, x).train()
    posterior = inference.build_posterior()
    return lambda observed, n: posterior.sample((n,), x=observed, show_progress_bars=False)


METHODS = {"ours": ours, "sbi": sbi_defaults}


def measure(task, name, size, observations, draws, seed):
    """C2ST of every observation for every method, and CPU seconds of training and of drawing."""
    torch.manual_seed(seed + size)
    theta = task.get_prior()(num_samples=size)
    x = task.get_simulator()(theta)
    out = {}
    for method, fit in METHODS.items():
        began = time.process_time()
        sample = fit(task, theta, x, seed)
        trained = time.process_time()
        each = [sample(task.get_observation(k), draws) for k in range(1, observations + 1)]
        drawn = time.process_time()
        references = [task.get_reference_posterior_samples(k)[:draws] for k in range(1, observations + 1)]
        scores = [c2st(reference, found) for reference, found in zip(references, each, strict=True)]
        print(f"{name} {size} {method}: {statistics.mean(scores):.3f}  {[round(float(s), 3) for s in scores]}", flush=True)
        out[method] = {"c2st": [float(s) for s in scores], "train_s": trained - began, "draw_s": drawn - trained}
    return out


def line(row):
    """One row of the table."""
    a, b, size = row["ours"]["c2st"], row["sbi"]["c2st"], row["simulations"]
    gaps = [q - p for p, q in zip(a, b, strict=True)]
    error = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else math.nan
    published = dict(zip((1000, 10_000), PUBLISHED[row["task"]], strict=True)).get(size, math.nan)
    met = "" if size != 10_000 else ("met" if statistics.mean(a) <= statistics.mean(b) else "not met")
    means = " | ".join(f"{statistics.mean(scores):.3f}" for scores in (a, b))
    ratios = [row["sbi"][key] / row["ours"][key] for key in ("train_s", "draw_s")]
    return (
        f"| {row['task']} | {size} | {means} | {statistics.mean(gaps):+.3f} ± {error:.3f} "
        f"| {published:.3f} | {ratios[0]:.2f} | {ratios[1]:.1f} | {len(a)} x {row['draws']} | {met} |"
    )


def stored():
    """The rows of earlier calls."""
    path = RESULTS / "posteriors.json"
    return json.loads(path.read_text())["rows"] if path.is_file() else []


def write(row=None):
    """The table with this row in place of an older one of its task and size; read again each time, as calls may overlap."""
    import sbi

    key = lambda r: (-r["simulations"], TASKS.index(r["task"]))  # noqa: E731
    rows = stored() if row is None else [r for r in stored() if key(r) != key(row)] + [row]
    rows.sort(key=key)
    notes = (
        f"Mean over the first observations of each task, as many draws for each as the table says, sbibm's own C2ST (a "
        f"perceptron, five folds). Gap: sbi less ours, with the standard error over observations; above 0 ours is closer to "
        f"the reference. sbi {sbi.__version__}: NPE, all defaults. One training per row and method (ours: two kinds of flow "
        f"where the prior has no bounds, of which held-out simulations choose), on the same simulations; the published column "
        f"(neural spline flow of 2021, one training for each observation, 10,000 draws) is for orientation only. Times are CPU "
        f"seconds of one thread. Rows may come from several calls."
    )
    command = "make bench name=posteriors observations=5 draws=1000"
    columns = "task | simulations | C2ST ours | C2ST sbi | gap | published NSF | training sbi/ours | drawing sbi/ours"
    head = f"| {columns} | observations x draws | goal |"
    lines = [
        "# Neural posterior estimation on sbibm",
        "",
        f"Made by `{command}`.",
        "",
        head,
        "|" + "---|" * 10,
        *map(line, rows),
    ]
    text = "\n".join(lines)
    write_text(RESULTS / "posteriors.md", f"{text}\n\n{notes}\n")
    write_json(RESULTS / "posteriors.json", {"command": command, "rows": rows, "notes": notes})
    return text


def main(words):
    warnings.filterwarnings("ignore")
    given = dict(word.split("=", 1) for word in words)
    names = given.get("tasks", ",".join(TASKS)).split(",")
    sizes = [int(s) for s in given.get("sizes", "10000,1000").split(",")]
    observations, draws = int(given.get("observations", 10)), int(given.get("draws", 4000))
    get_task = benchmark_tasks()
    for size in sizes:
        for name in names:
            found = measure(get_task(name), name, size, observations, draws, seed=1)
            text = write({"task": name, "simulations": size, "draws": draws, **found})
    print(text)
    print(json.dumps({f"{r['task']}/{r['simulations']}": statistics.mean(r["ours"]["c2st"]) for r in stored()}))


if __name__ == "__main__":
    main(sys.argv[1:])
