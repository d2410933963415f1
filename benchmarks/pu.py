"""Positive-unlabeled learning: errors and rankings beside naive, oracle, pulearn and the literal algorithm; class priors."""

import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from compare import RESULTS
from scipy.stats import norm
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from skyloom.pu import (
    ElkanNoto,
    alpha_max,
    best_bin,
    dedpul,
    kernel_mean,
    nnpu,
    out_of_fold,
    pn,
    prevalence_threshold,
    prior_shift,
    tree_induction,
    upu,
)
from skyloom.pu.batches import BalancedOrder
from skyloom.run.files import write_json, write_text

torch.set_num_threads(1)
SEEDS, STEPS, BATCH, SPREAD = 5, 800, 256, 1.35
Risk = Callable[[Tensor, Tensor], dict[str, Tensor]]


@dataclass
class Case:
    """Two samples, P and U, and a test sample of U's population. `bayes`: the least error there is, where it is known."""

    name: str
    p: np.ndarray
    u: np.ndarray
    y_u: np.ndarray
    test: np.ndarray
    y_test: np.ndarray
    prior: float
    bayes: float = float("nan")

    @property
    def x(self) -> np.ndarray:
        return np.concatenate([self.p, self.u])

    @property
    def s(self) -> np.ndarray:
        return np.arange(len(self.p) + len(self.u)) < len(self.p)


def drawn(name: str, x: np.ndarray, y: np.ndarray, prior: float, labelled: int, seed: int) -> Case:
    """P, U and test from one labelled table, disjoint; U and test with the share `prior` of positives."""
    rng = np.random.default_rng(seed)
    positive, negative = rng.permutation(np.flatnonzero(y)), rng.permutation(np.flatnonzero(~y))
    p, positive = positive[:labelled], positive[labelled:]
    n = int(min(len(positive) / prior, len(negative) / (1 - prior)))
    k = round(prior * n)
    positive, negative = positive[:k], negative[: n - k]
    half_p, half_n = 2 * k // 3, 2 * (n - k) // 3
    u = rng.permutation(np.r_[positive[:half_p], negative[:half_n]])
    test = np.r_[positive[half_p:], negative[half_n:]]
    centre, scale = x[np.r_[p, u]].mean(0), x[np.r_[p, u]].std(0) + 1e-6
    x = ((x - centre) / scale).astype(np.float32)
    return Case(name, x[p], x[u], y[u], x[test], y[test], float(y[u].mean()))


def mixture(prior: float, seed: int, separation: float = 3.0, dimension: int = 5) -> Case:
    """Two Gaussians of unit covariance: the Bayes error is known."""
    rng = np.random.default_rng(seed)
    towards = np.zeros(dimension)
    towards[0] = separation

    def sample(y: np.ndarray) -> np.ndarray:
        return (rng.normal(size=(len(y), dimension)) + y[:, None] * towards - towards / 2).astype(np.float32)

    unlabeled = 20_000 if prior < 0.05 else 5_000
    y_u, y_test = rng.random(unlabeled) < prior, rng.random(50_000) < prior
    t = np.log((1 - prior) / prior) / separation
    bayes = prior * norm.cdf(t - separation / 2) + (1 - prior) * norm.sf(t + separation / 2)
    return Case(f"mixture, prior {prior}", sample(np.ones(500, bool)), sample(y_u), y_u, sample(y_test), y_test, prior, bayes)


def cases(seed: int) -> list[Case]:
    digits, cancer = load_digits(), load_breast_cancer()
    return [
        drawn("digits, even", digits.data, digits.target % 2 == 0, 0.5, 150, seed),
        drawn("breast cancer, malignant", cancer.data, cancer.target == 0, 0.3, 50, seed),
        *(mixture(prior, seed) for prior in (0.5, 0.1, 0.01)),
    ]


# ---------------------------------------------------------------- networks


def network(features: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))


def batches(s: np.ndarray, seed: int) -> Any:
    """STEPS balanced batches: a quarter labelled (half where U is small)."""
    size = min(BATCH, int((~s).sum()) // 4 * 4)
    order = BalancedOrder(s, size, size // 4, seed)
    steps, epoch = 0, 0
    while True:
        for rows in order.epoch(epoch):
            yield torch.as_tensor(rows)
            steps += 1
            if steps == STEPS:
                return
        epoch += 1


def trained(case: Case, labels: np.ndarray, risk: Risk, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """The network under a risk; `labels` are what the risk reads, batches are composed by P and U for all alike."""
    model = network(case.x.shape[1], seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-3)
    x, target = torch.from_numpy(case.x), torch.from_numpy(labels.astype(np.float32))
    for rows in batches(case.s, seed):
        risk(model(x[rows])[:, 0], target[rows])["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return scorer(model)


def scorer(model: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    def scores(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(x))[:, 0].double().numpy()

    return scores


def literal(case: Case, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Algorithm 1 of Kiryo et al. (2017) written out, its sigmoid loss differentiated by hand: only the network is ours."""
    model = network(case.x.shape[1], seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-3)
    x, s, beta, gamma, pi = torch.from_numpy(case.x), torch.from_numpy(case.s), 0.0, 1.0, case.prior
    for rows in batches(case.s, seed):
        g = model(x[rows])[:, 0]
        positive, unlabeled = s[rows], ~s[rows]
        sigma = torch.sigmoid(g.detach())
        slope = sigma * (1 - sigma)
        n_p, n_u = positive.sum(), unlabeled.sum()
        risk_minus = sigma[unlabeled].sum() / n_u - pi * sigma[positive].sum() / n_p
        of_minus = slope * unlabeled / n_u - pi * slope * positive / n_p  # d r / d g
        of_plus = -pi * slope * positive / n_p  # d (pi R_P+) / d g
        direction = of_plus + of_minus if risk_minus >= -beta else -gamma * of_minus
        g.backward(direction)
        optimizer.step()
        optimizer.zero_grad()
    return scorer(model)


class Network(ClassifierMixin, BaseEstimator):
    """The same network as a scikit-learn classifier with sample weights, for Elkan and Noto."""

    def __init__(self, seed: int = 0, steps: int = STEPS // 2):
        self.seed, self.steps = seed, steps

    def fit(self, x: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> "Network":
        rng = np.random.default_rng(self.seed)
        model = network(x.shape[1], self.seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-3)
        weights = np.ones(len(x)) if sample_weight is None else sample_weight
        rows, target, w = (torch.from_numpy(np.asarray(v, dtype=np.float32)) for v in (x, y, weights))
        for _ in range(self.steps):
            k = torch.from_numpy(rng.integers(0, len(x), BATCH))
            each = nn.functional.binary_cross_entropy_with_logits(model(rows[k])[:, 0], target[k], reduction="none")
            (each * w[k]).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        self.model_, self.classes_ = model, np.array([0, 1])
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(-scorer(self.model_)(np.asarray(x, dtype=np.float32))))
        return np.stack([1 - p, p], axis=1)


# ---------------------------------------------------------------- methods


def methods(case: Case, seed: int) -> dict[str, Callable[[], Callable[[np.ndarray], np.ndarray]]]:
    pi, s = case.prior, case.s
    truth = np.r_[np.ones(len(case.p)), case.y_u]

    def shifted(scores: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: scores(x) + prior_shift(pi, 0.5)

    few = int(min((~case.y_u).sum(), max(round(((1 - pi) / (2 * pi)) ** 2 * len(case.p)), 20)))
    negatives = np.flatnonzero(~case.y_u)[:few]
    small = replace(
        case, u=case.u[negatives], y_u=case.y_u[negatives]
    )  # as many negatives as PN needs to equal PU: Niu et al. 2016

    def weighted() -> Callable[[np.ndarray], np.ndarray]:
        return ElkanNoto(Network(seed), setting="two_samples", seed=seed).fit(case.x, s).decision_function

    def given() -> Callable[[np.ndarray], np.ndarray]:
        c = len(case.p) / (len(case.p) + pi * len(case.u))
        return ElkanNoto(Network(seed), method=c, setting="two_samples", seed=seed).fit(case.x, s).decision_function

    return {
        "oracle": lambda: trained(case, truth, lambda z, t: pn(z, t, pi), seed),
        "oracle, P and few N": lambda: trained(small, small.s, lambda z, t: pn(z, t, pi), seed),
        "naive (U as N)": lambda: trained(case, s, lambda z, t: pn(z, t, float(s.mean())), seed),
        "naive, at the prior": lambda: trained(case, s, lambda z, t: pn(z, t, pi), seed),
        "uPU": lambda: trained(case, s, lambda z, t: upu(z, t, pi, surrogate="sigmoid"), seed),
        "nnPU": lambda: trained(case, s, lambda z, t: nnpu(z, t, pi, surrogate="sigmoid"), seed),
        "nnPU, logistic, balanced": lambda: shifted(
            trained(case, s, lambda z, t: nnpu(z, t, pi, surrogate="logistic", target_prior=0.5), seed)
        ),
        "Elkan-Noto, c estimated": weighted,
        "Elkan-Noto, c from the prior": given,
        "peer: nnPU, Algorithm 1 literally": lambda: literal(case, seed),
        **pulearn_methods(case, seed),
    }


def pulearn_methods(case: Case, seed: int) -> dict[str, Callable[[], Callable[[np.ndarray], np.ndarray]]]:
    try:
        import pulearn
    except ImportError:
        return {}

    def linear() -> Callable[[np.ndarray], np.ndarray]:
        model = pulearn.NNPUClassifier(prior=case.prior, max_iter=3000, learning_rate=0.1, random_state=seed)
        return model.fit(case.x.astype(float), case.s.astype(int)).decision_function

    def elkan() -> Callable[[np.ndarray], np.ndarray]:
        model = pulearn.ElkanotoPuClassifier(Network(seed), hold_out_ratio=0.2, random_state=seed)
        model.fit(case.x, case.s.astype(int))
        return lambda x: model.predict_proba(x)[:, 1] - 0.5

    return {"peer: pulearn nnPU (linear)": linear, "peer: pulearn Elkan-Noto": elkan}


def measured(scores: np.ndarray, case: Case) -> dict[str, float]:
    """Error at 0, error where the share of the prior is flagged, and ranking."""
    matched = prevalence_threshold(scores, case.prior) if len(np.unique(scores)) > 1 else 0.0
    return {
        "natural": float(((scores > 0) != case.y_test).mean()),
        "matched": float(((scores > matched) != case.y_test).mean()),
        "auroc": float(roc_auc_score(case.y_test, scores)),
    }


def priors(case: Case, seed: int) -> dict[str, Any]:
    """Every estimate of the prior, from features or from out-of-fold scores of labelled against unlabeled."""
    scorer_of_labels = LogisticRegression(C=0.1, max_iter=2000) if len(case.x) < 1500 else Network(seed)
    g, _ = out_of_fold(scorer_of_labels, case.x, case.s, seed=seed)
    p, u = g[case.s], g[~case.s]
    rng = np.random.default_rng(seed)
    return {
        "best bin": best_bin(p, u, spread=SPREAD),
        "DEDPUL": dedpul(p, u, spread=SPREAD, rng=rng),
        "AlphaMax": alpha_max(p, u, spread=SPREAD),
        "KM1": kernel_mean(case.p, case.u, "KM1", rows=200, repeats=3, spread=SPREAD, rng=rng),
        "KM2": kernel_mean(case.p, case.u, "KM2", rows=200, repeats=3, spread=SPREAD, rng=rng),
        "TIcE": tree_induction(case.p, case.u, spread=SPREAD, rng=rng),
    }


# ---------------------------------------------------------------- tables


def of(values: list[float], digits: int = 3) -> str:
    return (
        f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else f"{values[0]:.{digits}f}"
    )


def main() -> None:
    began = time.process_time()
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    estimates: dict[str, dict[str, list[Any]]] = {}
    facts: dict[str, dict[str, float]] = {}
    for seed in range(SEEDS):
        for case in cases(seed):
            facts[case.name] = {"prior": case.prior, "bayes": case.bayes, "P": len(case.p), "U": len(case.u)}
            for name, fit in methods(case, seed).items():
                try:
                    scores = np.asarray(fit()(case.test), dtype=float)
                except ValueError as error:  # a refusal is an answer
                    print(f"{case.name}, seed {seed}, {name}: {error}")
                    continue
                results.setdefault(case.name, {}).setdefault(name, []).append(measured(scores, case))
            for name, found in priors(case, seed).items():
                estimates.setdefault(case.name, {}).setdefault(name, []).append(found)
        print(f"seed {seed}: {time.process_time() - began:.0f} CPU seconds", flush=True)
        text = write(results, estimates, facts, seed + 1)
    print(text)


def write(results: dict[str, Any], estimates: dict[str, Any], facts: dict[str, Any], seeds: int) -> str:
    lines = [
        "# Positive-unlabeled learning",
        "",
        f"Made by `make bench name=pu`. Synthetic mixtures, scikit-learn's tables; {seeds} seeds, mean ± standard deviation. "
        f"One network (64-64, Adam, {STEPS} steps of {BATCH}) for all methods but pulearn's linear nnPU "
        f"(pulearn {_version('pulearn')}). Error at the natural threshold is that at logit 0; the matched threshold flags the "
        "share of the prior. A method that refused in some seeds shows in how many it answered.",
        "",
        "| case | method | error, natural | error, matched | AUROC | seeds |",
        "|---|---|---|---|---|---|",
    ]
    rows = []
    for case, found in results.items():
        bayes = facts[case]["bayes"]
        note = f", least error {bayes:.4f}" if np.isfinite(bayes) else ""
        for name, values in found.items():
            columns = {k: [v[k] for v in values] for k in ("natural", "matched", "auroc")}
            lines.append(
                f"| {case}{note} | {name} | "
                f"{of(columns['natural'], 4)} | {of(columns['matched'], 4)} | {of(columns['auroc'], 4)}"
                f" | {len(values)} of {seeds} |"
            )
            rows.append({"case": case, "method": name, "bayes": bayes, **columns})
    lines += [
        "",
        "## Priors",
        "",
        prior_text(),
        "",
        "| case | truth | method | estimates | answered | largest error |",
        "|---|---|---|---|---|---|",
    ]
    prior_rows = []
    for case, found in estimates.items():
        truth = facts[case]["prior"]
        for name, values in found.items():
            told = [e.value for e in values if not e.refused]
            shown = ", ".join(f"{e.value:.3g}" + ("*" if e.refused else "") for e in values)
            worst = f"{max(abs(v / truth - 1) for v in told):.0%}" if told else "-"
            lines.append(f"| {case} | {truth:.3g} | {name} | {shown} | {len(told)} of {len(values)} | {worst} |")
            prior_rows.append({"case": case, "truth": truth, "method": name, "estimates": [e.to_json() for e in values]})
    goals = judged(results, estimates, facts, seeds)
    lines += ["", "## Goals", "", "| goal | measured | met |", "|---|---|---|"]
    lines += [f"| {g['goal']} | {g['measured']} | {'yes' if g['met'] else 'no'} |" for g in goals]
    text = "\n".join(lines) + "\n"
    write_text(RESULTS / "pu.md", text)
    record = {"command": "make bench name=pu", "facts": facts, "rows": rows, "priors": prior_rows, "goals": goals}
    write_json(RESULTS / "pu.json", record)
    return text


def prior_text() -> str:
    return (
        f"Share of positives among the unlabeled. * marks a refusal: the interval reaches further than a factor {SPREAD} from "
        "the value, or too few rows decide. Scores are out-of-fold, of labelled against unlabeled; KM1, KM2 and TIcE see "
        "the features."
    )


def judged(results: dict[str, Any], estimates: dict[str, Any], facts: dict[str, Any], seeds: int) -> list[dict[str, Any]]:
    """The goals of this benchmark, as measured."""
    half = "mixture, prior 0.5"
    mean = lambda case, name, key="natural": float(np.mean([v[key] for v in results[case][name]]))  # noqa: E731
    bayes = facts[half]["bayes"]
    excess = {name: mean(half, name) - bayes for name in ("oracle", "oracle, P and few N", "nnPU")}
    ours, theirs = "nnPU", "peer: nnPU, Algorithm 1 literally"
    gap = max(
        abs(mean(case, ours, key) - mean(case, theirs, key)) for case in results for key in ("natural", "matched", "auroc")
    )
    goals = [
        {
            "goal": "nnPU's excess error within 20% of the oracle's (prior 0.5)",
            "measured": f"{excess['nnPU']:.4f} against {excess['oracle']:.4f} (ratio {excess['nnPU'] / excess['oracle']:.2f})",
            "met": bool(excess["nnPU"] <= 1.2 * excess["oracle"]),
        },
        {
            "goal": "nnPU's excess error within 20% of that of an oracle with the same P and the N that equal it in theory",
            "measured": f"{excess['nnPU']:.4f} against {excess['oracle, P and few N']:.4f}",
            "met": bool(excess["nnPU"] <= 1.2 * excess["oracle, P and few N"]),
        },
        {
            "goal": "nnPU's error far below naive's at the natural threshold (prior 0.5): at most half",
            "measured": f"{mean(half, 'nnPU'):.4f} against {mean(half, 'naive (U as N)'):.4f}",
            "met": bool(mean(half, "nnPU") <= 0.5 * mean(half, "naive (U as N)")),
        },
        {
            "goal": "nnPU equals the literal algorithm: largest difference of any mean error or AUROC at most 0.002",
            "measured": f"{gap:.2g}",
            "met": bool(gap <= 0.002),
        },
    ]
    for case in ("digits, even", half, "mixture, prior 0.1"):
        told = {n: [abs(e.value / facts[case]["prior"] - 1) for e in v if not e.refused] for n, v in estimates[case].items()}
        worst = max((max(v), n) for n, v in told.items() if v)
        answered = f"{sum(map(len, told.values()))} of {seeds * len(told)} answered"
        goals.append(
            {
                "goal": f"priors within 20%, or refused ({case})",
                "measured": f"worst answer {worst[0]:.0%} ({worst[1]}); {answered}",
                "met": bool(worst[0] <= 0.2),
            }
        )
    return goals


def _version(package: str) -> str:
    try:
        return version(package)
    except Exception:
        return "not installed"


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    main()
