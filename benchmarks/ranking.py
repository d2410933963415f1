"""Ranking metrics on many scores against scikit-learn and torchmetrics: the same rows and answers, CPU time and memory."""

import os
import sys
import tracemalloc
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import sklearn
import torch
from compare import interleaved, row, write_table
from sklearn.metrics import average_precision_score, roc_auc_score

from skyloom.metrics import Ranking, ranking_scores

torch.set_num_threads(1)
PREVALENCE = 1e-3


def scores(n, digits=None):
    rng = np.random.default_rng(0)
    lens = rng.random(n) < PREVALENCE
    s = rng.normal(size=n) + 2.5 * lens
    return (s if digits is None else s.round(digits)), lens


def copies(work, s):
    """The most memory that `work` holds at once, in copies of the scores."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / s.nbytes


def torchmetrics_areas(s, lens):
    from skyloom.backbones import ensure_torchvision

    ensure_torchvision()  # torchmetrics imports it
    import torchmetrics
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    p, y = torch.from_numpy(1 / (1 + np.exp(-s))), torch.from_numpy(lens.astype(int))
    return (lambda: (float(binary_auroc(p, y)), float(binary_average_precision(p, y)))), torchmetrics.__version__


def compare(n, digits, rounds, with_torchmetrics):
    s, lens = scores(n, digits)
    areas = lambda: (roc_auc_score(lens, s), average_precision_score(lens, s))  # noqa: E731
    cases = {"ours": lambda: ranking_scores(s, lens), "sklearn": areas}
    version = None
    if with_torchmetrics:
        try:
            cases["torchmetrics"], version = torchmetrics_areas(s, lens)
        except ImportError:
            print("torchmetrics is not installed (make setup extras=bench): leaving it out")
    r, theirs = Ranking(s, lens), areas()
    assert np.allclose([r.auroc, r.average_precision], theirs, rtol=0, atol=1e-12), "the answers must be the same"
    seconds = interleaved(cases, rounds)
    case = f"{n:.0e} scores" + ("" if digits is None else f", ties: {len(np.unique(s)):,} values")
    table = [row(case, seconds["ours"], "scikit-learn, AUROC and AP", sklearn.__version__, seconds["sklearn"], "≥ 1")]
    if version:
        table.append(row(case, seconds["ours"], "torchmetrics, AUROC and AP", version, seconds["torchmetrics"], "≥ 1"))
    memory = copies(cases["ours"], s), copies(areas, s)
    return table, f"{case}: {memory[0]:.1f} and {memory[1]:.1f} copies of the scores"


def main():
    table, memory = [], []
    for n, digits, rounds, peers in (
        (10**5, None, 9, True),
        (10**6, None, 3, True),
        (10**6, 2, 3, True),
        (10**7, None, 1, False),
    ):
        rows, held = compare(n, digits, rounds, peers)
        table += rows
        memory.append(held)
    note = (
        f"One thread, CPU seconds, prevalence {PREVALENCE:g}, synthetic scores. Ours is all of `ranking_scores`: AUROC, "
        "average precision, TPR_0, TPR_10, TPR at five FPRs with intervals; the peers' is AUROC and average precision, which "
        "agree to 1e-12. Peak memory, ours and scikit-learn's: " + "; ".join(memory) + "."
    )
    write_table("ranking", "Ranking metrics", table, note)


if __name__ == "__main__":
    main()
