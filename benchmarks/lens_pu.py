"""Lens finders without negatives: nnPU beside the oracle, and beside calling the unlabeled non-lenses.

The cutouts are those of `+experiment=vit_nnpu`, in the sixty numbers that `lensfind.features` measures of each; every seed and
regime draws its labelled and unlabeled rows from that one pool anew, and a small network learns from them. So a fit takes
seconds, and ten seeds tell differences of a thousandth.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
import yaml
from compare import RESULTS
from scipy.stats import t as student
from torch import Tensor, nn

from lensfind.calibration.calibrating import platt
from lensfind.calibration.merit import calibration_error, sigmoid
from lensfind.data import simulated
from lensfind.survey import Survey
from lensfind.training.trees import measured
from skyloom.metrics import Ranking, delong, tpr_at_fpr
from skyloom.pu import nnpu, pn, prior_shift
from skyloom.pu.batches import BalancedOrder
from skyloom.run.files import write_json, write_text
from skyloom.run.seeds import numpy_generator

torch.set_num_threads(1)
CACHE = Path(os.environ.get("SKYLOOM_CACHE", "cache"))
SEEDS, UNLABELED, VALIDATION, TEST, BATCH, EPOCHS = 10, 4000, 2000, 4000, 128, 30
RISKS = ("nnPU", "oracle", "U as negatives")


@dataclass(frozen=True)
class Regime:
    """Labelled lenses beside 4000 unlabeled cutouts of which the share `prior` are lenses; the labelled are drawn at random
    from all lenses, or, with `bright` > 0, with a probability rank^bright of their arcs' signal-to-noise."""

    name: str
    prior: float
    labelled: int
    bright: float = 0.0

    @property
    def frequency(self) -> float:
        """Share of the lenses that are labelled."""
        return self.labelled / (self.labelled + self.prior * UNLABELED)


REGIMES = (
    Regime("few labels", 0.1, 44),  # label frequency 0.1
    Regime("many labels", 0.1, 800),
    Regime("every third a lens", 0.3, 133),  # label frequency 0.1
    Regime("rare", 0.01, 80),
    Regime("bright arcs labelled", 0.1, 400, bright=4.0),
)


# ---------------------------------------------------------------- data


@dataclass
class Sky:
    """Measured features [N, F] of all cutouts, which are lenses, and the signal-to-noise of their arcs."""

    x: np.ndarray
    lens: np.ndarray
    arc_snr: np.ndarray


def sky() -> Sky:
    """The data set of `+experiment=vit_nnpu`, all splits together."""
    conf = Path(__file__).parent.parent / "conf"
    stated = yaml.safe_load((conf / "survey" / "lsst.yaml").read_text())
    survey = Survey.of(**{name: value for name, value in stated.items() if name != "_target_"})
    data = simulated(
        survey, n_train=8000, n_val=4000, n_test=12000, size=None, seed=0, cache_dir=CACHE, class_prior=0.01, labelled_share=0.2
    )
    splits = {name: getattr(data, name) for name in ("train", "val", "test")}
    features = [measured(split, data.about, name, str(CACHE)) for name, split in splits.items()]
    x = np.concatenate([np.stack(list(columns.values()), axis=1) for columns in features])
    lens, snr = (np.concatenate([np.asarray(split[name]) for split in splits.values()]) for name in ("lens", "arc_snr"))
    scale = np.nanmedian(np.abs(x - np.nanmedian(x, axis=0)), axis=0) + 1e-6
    x = np.arcsinh(np.nan_to_num((x - np.nanmedian(x, axis=0)) / scale))
    return Sky(x.astype(np.float32), lens > 0, snr)


@dataclass
class Sample:
    """Rows of the sky: labelled and unlabeled ones of training and validation, and a test sample of the unlabeled's kind."""

    train: np.ndarray
    labelled: np.ndarray
    val: np.ndarray
    val_labelled: np.ndarray
    test: np.ndarray


def drawn(of: Sky, regime: Regime, seed: int) -> Sample:
    """No row twice: first the unlabeled of training, validation and test, then the labelled from the lenses that are left."""
    rng = numpy_generator(seed, "lens_pu", regime.name)
    lenses, others = (rng.permutation(np.flatnonzero(kind)) for kind in (of.lens, ~of.lens))
    parts = []
    for count in (UNLABELED, VALIDATION, TEST):
        n = round(regime.prior * count)
        parts.append(np.concatenate([lenses[:n], others[: count - n]]))
        lenses, others = lenses[n:], others[count - n :]
    few = max(20, regime.labelled // 2)  # of validation
    p = ((of.arc_snr[lenses].argsort().argsort() + 1) / len(lenses)) ** regime.bright
    labelled = rng.choice(lenses, regime.labelled + few, replace=False, p=p / p.sum())
    train = np.concatenate([labelled[: regime.labelled], parts[0]])
    val = np.concatenate([labelled[regime.labelled :], parts[1]])
    return Sample(train, np.arange(len(train)) < regime.labelled, val, np.arange(len(val)) < few, parts[2])


# ---------------------------------------------------------------- fits


def fitted(of: Sky, rows: Sample, risk: str, prior: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of validation and test, at the class prior; or, where the unlabeled are called negative, at the share of labelled
    rows, which is what that classifier believes. All learn as if both classes were alike common, with a quarter of labelled
    rows in each batch, as long, and with their last weights."""
    torch.manual_seed(seed)
    width = of.x.shape[1]
    model = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    target = torch.from_numpy((of.lens[rows.train] if risk == "oracle" else rows.labelled).astype(np.float32))
    believed = float(rows.labelled.mean()) if risk == "U as negatives" else prior
    loss = nnpu if risk == "nnPU" else pn
    x = torch.from_numpy(of.x)
    order = BalancedOrder(rows.labelled, BATCH, BATCH // 4, seed)
    steps = EPOCHS * order.batches
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    for epoch in range(EPOCHS):
        for batch in order.epoch(epoch):
            k = torch.as_tensor(batch).flatten()
            seen = model(x[rows.train[k]])[:, 0]
            loss(seen, target[k], believed, surrogate="logistic", target_prior=0.5)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
            rate.step()

    def said(some: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            z: Tensor = model(x[some])[:, 0] + prior_shift(believed, 0.5)
        return z.double().numpy()

    return said(rows.val), said(rows.test)


# ---------------------------------------------------------------- table


def judged(of: Sky, regime: Regime, risk: str, seed: int) -> dict[str, Any]:
    """Of the unlabeled test sample: ranking, and what the network's own logits say at the natural threshold."""
    rows = drawn(of, regime, seed)
    validated, logit = fitted(of, rows, risk, regime.prior, seed)
    lens, snr = of.lens[rows.test], of.arc_snr[rows.test]
    ranking = Ranking(logit, lens)
    slope, offset = platt(validated, rows.val_labelled, regime.prior)
    p, calibrated = sigmoid(logit), sigmoid(slope * logit + offset)
    faint = ~lens | (snr < np.median(snr[lens]))
    return {
        "logit": logit, "lens": lens, "auroc": ranking.auroc, "tpr": float(tpr_at_fpr(ranking, 1e-2).tpr),
        "auroc_faint": Ranking(logit[faint], lens[faint]).auroc,
        "error": float(((logit > 0) != lens).mean()), "recall": float((logit[lens] > 0).mean()),
        "ece": calibration_error(p, lens), "expected": float(p.sum() / lens.sum()),
        "ece_calibrated": calibration_error(calibrated, lens), "expected_calibrated": float(calibrated.sum() / lens.sum()),
    }  # fmt: skip


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean over seeds, each with its own data, and Student's 95% interval."""
    x = np.array(values)
    if len(x) < 2:
        return float(x.mean()), float("nan"), float("nan")
    half = student.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return float(x.mean()), float(x.mean() - half), float(x.mean() + half)


def paired(of: dict[str, dict[int, dict[str, Any]]], first: str, second: str) -> dict[str, Any]:
    """first less second on the same rows, seed by seed; `won` and `lost` count seeds whose DeLong interval excludes 0."""
    seeds = sorted(set(of[first]) & set(of[second]))
    each = [delong(of[first][s]["logit"], of[second][s]["logit"], of[first][s]["lens"]).difference for s in seeds]
    return {
        "first": first, "second": second, "seeds": len(seeds), "auroc": interval([float(d) for d in each]),
        "won": sum(d.low > 0 for d in each), "lost": sum(d.high < 0 for d in each),
        **{key: interval([of[first][s][key] - of[second][s][key] for s in seeds]) for key in ("tpr", "auroc_faint")},
        "ratio": float(np.mean([of[first][s]["auroc"] / of[second][s]["auroc"] for s in seeds])),
    }  # fmt: skip


def shown(value: tuple[float, float, float]) -> str:
    return f"{value[0]:+.4f} [{value[1]:+.4f}, {value[2]:+.4f}]"


def of_all(values: list[float], digits: int = 3) -> str:
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


_COLUMNS = {
    "auroc": "AUROC", "auroc_faint": "AUROC, fainter half", "tpr": "TPR at FPR 1e-2", "error": "error at 0",
    "recall": "recall at 0", "ece": "ECE", "expected": "expected/true", "ece_calibrated": "ECE after",
    "expected_calibrated": "expected/true after",
}  # fmt: skip
_PAIRED = (
    "regime",
    "first",
    "second",
    "AUROC",
    "TPR at FPR 1e-2",
    "AUROC, fainter half",
    "ratio of AUROC",
    "won, lost",
    "seeds",
)


def heading(names: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def table(found: dict[str, dict[str, dict[int, dict[str, Any]]]]) -> str:
    lines = heading(["regime", "prior", "labelled", "of the lenses", "risk", *_COLUMNS.values(), "seeds"])
    pairs, record = heading(_PAIRED), []
    for regime in REGIMES:
        of = found[regime.name]
        for risk, seeds in of.items():
            each = {name: [found[name] for found in seeds.values()] for name in _COLUMNS}
            cells = [of_all(v, 3 if name in ("tpr", "recall") or name.startswith("exp") else 4) for name, v in each.items()]
            head = [regime.name, f"{regime.prior:g}", str(regime.labelled), f"{regime.frequency:.2f}", risk]
            lines.append(f"| {' | '.join([*head, *cells, str(len(seeds))])} |")
            record.append({**asdict(regime), "risk": risk, **each})
        for first, second in (("nnPU", "U as negatives"), ("nnPU", "oracle")):
            d = paired(of, first, second)
            cells = [shown(d[name]) for name in ("auroc", "tpr", "auroc_faint")]
            cells += [f"{d['ratio']:.4f}", f"{d['won']}, {d['lost']}", str(d["seeds"])]
            pairs.append(f"| {' | '.join([regime.name, first, second, *cells])} |")
            record.append({"regime": regime.name, **d})
    notes = (
        "Made by `make bench name=lens_pu`. Synthetic LSST-like cutouts, in sixty measured features of each and a network "
        f"64-64: {UNLABELED} unlabeled ones and the labelled lenses of each row, {EPOCHS} epochs in batches of {BATCH} with a "
        f"quarter of labelled rows; test: {TEST} unlabeled cutouts. ± is the standard deviation over seeds, each of which "
        "draws its rows anew from one pool of 24,000 cutouts. Error, recall, ECE and expected/true lenses are of the network's "
        'own logits at threshold 0, "after" is after calibration on labelled and unlabeled validation rows. Where bright arcs '
        "are labelled, the probability of a label rises as the fourth power of the rank of their signal-to-noise."
    )
    below = "Mean over seeds with Student's 95% interval; won and lost count the seeds whose own DeLong interval excludes 0."
    text = "\n".join(
        ["# Lens finders from labelled lenses and unlabeled cutouts", "", notes, "", *lines, "",
         "## First less second, on the same rows", "", below, "", *pairs, ""]
    )  # fmt: skip
    write_text(RESULTS / "lens_pu.md", text)
    write_json(RESULTS / "lens_pu.json", {"command": "make bench name=lens_pu", "rows": record})
    return text


def main() -> None:
    of = sky()
    found: dict[str, dict[str, dict[int, dict[str, Any]]]] = {}
    for regime in REGIMES:
        found[regime.name] = {risk: {seed: judged(of, regime, risk, seed) for seed in range(SEEDS)} for risk in RISKS}
        print(
            regime.name,
            {risk: of_all([m["auroc"] for m in f.values()], 4) for risk, f in found[regime.name].items()},
            flush=True,
        )
    print(table(found))


if __name__ == "__main__":
    main()
