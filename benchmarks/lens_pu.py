"""Lens finders without negatives: nnPU beside the oracle, and beside calling the unlabeled non-lenses.

    python benchmarks/lens_pu.py                               # all regimes, seeds and risks, then the table; hours on one core
    python benchmarks/lens_pu.py few-labels:0,1 bright-labels  # these regimes and seeds alone; what is there already is kept

One small ViT, as long under every risk, with its last weights: no validation chooses. What a fit said of the test sample is
kept in the cache, so that several processes can share the work and the table is made from whatever is there.
"""

import hashlib
import inspect
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
import yaml
from compare import RESULTS
from lightning_fabric import Fabric
from scipy.stats import t as student

from lensfind.calibrating import platt
from lensfind.data import dihedral, simulated
from lensfind.scores import calibration_error, sigmoid
from lensfind.survey import Survey
from lensfind.task import LensFinder
from skyloom.backbones import image_encoder
from skyloom.data import Data
from skyloom.metrics import Ranking, delong, tpr_at_fpr
from skyloom.pu import Balanced, nnpu, pn
from skyloom.run.files import write_json, write_text, write_whole
from skyloom.run.seeds import numpy_generator
from skyloom.training import Trainer
from skyloom.training.optimizers import optimizer
from skyloom.training.schedules import Cosine

torch.set_num_threads(1)
CACHE = Path(os.environ.get("SKYLOOM_CACHE", "cache"))
SEEDS, UNLABELED, VALIDATION, BATCH, EPOCHS = 3, 8000, 4000, 64, 10
RISKS = ("nnPU", "oracle", "U as negatives")


@dataclass(frozen=True)
class Regime:
    """Labelled lenses beside 8000 unlabeled cutouts of which the share `prior` are lenses; the labelled are drawn at random
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
    Regime("few-labels", 0.1, 89),  # label frequency 0.1
    Regime("many-labels", 0.1, 1600),
    Regime("half-lenses", 0.5, 444),  # label frequency 0.1
    Regime("imbalanced", 0.01, 160),
    Regime("bright-labels", 0.1, 800, bright=4.0),
)


# ---------------------------------------------------------------- data


def data(regime: Regime, seed: int) -> Data:
    """Cutouts of an LSST-like survey, a quarter of labelled rows in each batch."""
    more = round(regime.labelled * (regime.bright + 1) * 1.1)  # from which the labelled are drawn
    share = more / (more + UNLABELED)
    stated = yaml.safe_load((Path(__file__).parent.parent / "conf" / "survey" / "lsst.yaml").read_text())
    survey = Survey.of(**{name: value for name, value in stated.items() if name != "_target_"})
    rows = {"n_train": more + UNLABELED, "n_val": round(VALIDATION / (1 - share))}
    found = simulated(
        survey, **rows, n_test=round(2 * UNLABELED / (1 - share)), size=None, seed=seed, cache_dir=CACHE,
        class_prior=regime.prior, labelled_share=share,
    )  # fmt: skip
    train = chosen(found.train, regime, regime.labelled, numpy_generator(seed, "labels"))
    few = max(20, round(regime.labelled * VALIDATION / UNLABELED))
    val = chosen(found.val, regime, few, numpy_generator(seed, "labels of validation"))
    balanced = Balanced(train, train["labelled"], positives=0.25)
    return Data(balanced, val, found.test, about=found.about, carry=("labelled", "lens", "arc_snr"), augment=dihedral)


def chosen(split: Any, regime: Regime, count: int, rng: np.random.Generator) -> Any:
    """All unlabeled rows, and `count` of the labelled."""
    labelled = np.flatnonzero(split["labelled"].numpy() > 0)
    rank = (split["arc_snr"].numpy()[labelled].argsort().argsort() + 1) / len(labelled)
    p = rank**regime.bright
    kept = rng.choice(labelled, size=min(count, len(labelled)), replace=False, p=p / p.sum())
    return split.take(np.sort(np.concatenate([kept, np.flatnonzero(split["labelled"].numpy() == 0)])))


# ---------------------------------------------------------------- fits


def finder(risk: str, about: dict[str, Any], share: float) -> LensFinder:
    """The network of `+experiment=vit_nnpu`. All learn as if both classes were alike common; logits are at the class prior, or,
    where the unlabeled are called negative, at the share of labelled rows, which is what that classifier believes."""
    encoder = partial(
        image_encoder, "vit_tiny_patch16_224", stem="convolutional", patch_size=8, embed_dim=64, depth=4, num_heads=4
    )
    of = {"nnPU": (nnpu, "labelled", None), "oracle": (pn, "lens", None), "U as negatives": (pn, "labelled", share)}
    loss, target, prior = of[risk]
    return LensFinder(
        about, encoder, partial(loss, surrogate="logistic"), target, target_prior=0.5, class_prior=prior, colour_aperture=0.6
    )


def fitted(regime: Regime, risk: str, seed: int) -> None:
    """Train, and keep the logits of validation and test."""
    path = kept_at(regime, risk, seed)
    if path.exists():
        return
    rows = data(regime, seed)
    torch.manual_seed(seed)
    share = float((rows.train["labelled"] > 0).float().mean())
    task = finder(risk, rows.about, share)
    fabric = Fabric(accelerator="auto" if torch.cuda.is_available() else "cpu", devices=1)
    loop = Trainer(epochs=EPOCHS, batch_size=BATCH, clip_norm=1.0, quiet=True, fabric=fabric, seed=seed, validate_every=EPOCHS)
    loop.fit(task, rows, partial(optimizer, name="AdamW", lr=5e-4, weight_decay=0.05), Cosine(warmup=0.1))
    found = {}
    for name, split in (("val", rows.val), ("test", rows.test)):
        said = loop.predict(task, split, rows.carry, name)
        found |= {f"{name}_{key}": said[key].float().numpy() for key in ("logit", *rows.carry)}
    with write_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **found)
    print(path.name, flush=True)


def kept_at(regime: Regime, risk: str, seed: int) -> Path:
    """Named by all that the fit depends on: the regime, and the text of this file that fits."""
    recipe = repr((asdict(regime), EPOCHS, BATCH, UNLABELED, VALIDATION)) + inspect.getsource(finder)
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:8]
    return CACHE / "lens_pu" / f"{regime.name}-{risk.replace(' ', '_')}-{seed}-{digest}.npz"


# ---------------------------------------------------------------- table


def measured(regime: Regime, risk: str, seed: int) -> dict[str, Any]:
    """Of the unlabeled test sample: ranking, and what the network's own logits say at the natural threshold."""
    z = dict(np.load(kept_at(regime, risk, seed)))
    rows = z["test_labelled"] == 0
    logit, lens = z["test_logit"][rows].astype(float), z["test_lens"][rows] > 0
    ranking = Ranking(logit, lens)
    slope, offset = platt(z["val_logit"], z["val_labelled"], regime.prior)
    p, calibrated = sigmoid(logit), sigmoid(slope * logit + offset)
    faint = lens & (z["test_arc_snr"][rows] < np.median(z["test_arc_snr"][rows][lens]))
    return {
        "logit": logit, "lens": lens, "auroc": ranking.auroc, "tpr": float(tpr_at_fpr(ranking, 1e-2).tpr),
        "auroc_faint": Ranking(logit[faint | ~lens], lens[faint | ~lens]).auroc,
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


def table() -> str:
    lines = heading(["regime", "prior", "labelled", "of the lenses", "risk", *_COLUMNS.values(), "seeds"])
    pairs, record = heading(_PAIRED), []
    for regime in REGIMES:
        of = {r: {s: measured(regime, r, s) for s in range(100) if kept_at(regime, r, s).exists()} for r in RISKS}
        for risk, seeds in of.items():
            if not seeds:
                continue
            each = {name: [found[name] for found in seeds.values()] for name in _COLUMNS}
            cells = [of_all(v, 3 if name in ("tpr", "recall") or name.startswith("exp") else 4) for name, v in each.items()]
            head = [regime.name, f"{regime.prior:g}", str(regime.labelled), f"{regime.frequency:.2f}", risk]
            lines.append(f"| {' | '.join([*head, *cells, str(len(seeds))])} |")
            record.append({**asdict(regime), "risk": risk, **each})
        for first, second in (("nnPU", "U as negatives"), ("nnPU", "oracle")):
            if of[first] and of[second]:
                d = paired(of, first, second)
                cells = [shown(d[name]) for name in ("auroc", "tpr", "auroc_faint")]
                cells += [f"{d['ratio']:.4f}", f"{d['won']}, {d['lost']}", str(d["seeds"])]
                pairs.append(f"| {' | '.join([regime.name, first, second, *cells])} |")
                record.append({"regime": regime.name, **d})
    notes = (
        f"Made by `make bench name=lens_pu`. Synthetic LSST-like cutouts: {UNLABELED} unlabeled ones and the labelled lenses "
        f"of each row, {EPOCHS} epochs in batches of {BATCH} with a quarter of labelled rows; test: {2 * UNLABELED} unlabeled "
        "cutouts. ± is the standard deviation over seeds, each with its own data. Error, recall, ECE and expected/true lenses "
        'are of the network\'s own logits at threshold 0, "after" is after calibration on labelled and unlabeled validation '
        "rows. In bright-labels the probability of a label rises as the fourth power of the rank of the arcs' signal-to-noise."
    )
    below = "Mean over seeds with Student's 95% interval; won and lost count the seeds whose own DeLong interval excludes 0."
    text = "\n".join(
        ["# Lens finders from labelled lenses and unlabeled cutouts", "", notes, "", *lines, "",
         "## First less second, on the same rows", "", below, "", *pairs, ""]
    )  # fmt: skip
    write_text(RESULTS / "lens_pu.md", text)
    write_json(RESULTS / "lens_pu.json", {"command": "make bench name=lens_pu", "rows": record})
    return text


def main(words: list[str]) -> None:
    asked = {word.partition(":")[0]: word.partition(":")[2] for word in words}
    for regime in REGIMES:
        if asked and regime.name not in asked:
            continue
        seeds = [int(s) for s in asked.get(regime.name, "").split(",") if s] or list(range(SEEDS))
        for seed in seeds:
            for risk in RISKS:
                fitted(regime, risk, seed)
    print(table())


if __name__ == "__main__":
    main(sys.argv[1:])
