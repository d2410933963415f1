"""Which rows to label next. Every rule is a function `(pool, k, rng) -> indices [k]` of an unlabeled pool: no label is read.

For two classes entropy, margin, confidence and p (1 - p) of the mean forecast are all decreasing in |p - 1/2|: they are one
rule, `least_certain`. What tells rows apart beyond it is whether members disagree (`bald`, `batch_bald`), whether the batch is
diverse (`core_set`, `clustered`), and, where positives are rare, whether one will be found at all (`most_likely`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.cluster import KMeans

from skyloom.errors import DataError
from skyloom.uncertainty.members import (
    class_probabilities,
    expected_entropy,
    member_logits,
    mutual_information,
    predictive_entropy,
)

__all__ = [
    "Pool",
    "Rule",
    "balanced",
    "bald",
    "batch_bald",
    "clustered",
    "core_set",
    "interleaved",
    "least_certain",
    "most_likely",
    "random_rows",
    "within_budget",
]

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """Unlabeled rows: logits of members [members, n(, classes)]; features [n, d] and those of labelled rows for diversity;
    the cost of labelling each row (hours, say)."""

    logits: Array
    features: Array | None = None
    labelled: Array | None = None
    costs: Array | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "logits", member_logits(self.logits))
        for name in ("features", "costs"):
            value = getattr(self, name)
            if value is not None and len(value) != self.size:
                raise DataError(f"the pool has {self.size} rows but {len(value)} {name}.")

    @property
    def size(self) -> int:
        return self.logits.shape[1]

    def need(self, name: str) -> Array:
        value = getattr(self, name)
        if value is None:
            raise DataError(f"this rule needs the {name} of the pool.")
        return np.asarray(value, np.float64)


Rule = Callable[[Pool, int, np.random.Generator], Index]


def _highest(scores: Array, k: int, rng: np.random.Generator) -> Index:
    """The rows of the k highest scores, from the top; ties in random order; all rows if k is larger than the pool."""
    shuffled = rng.permutation(len(scores))
    return shuffled[np.argsort(-scores[shuffled], kind="stable")[: max(k, 0)]].astype(np.int64)


def random_rows(pool: Pool, k: int, rng: np.random.Generator) -> Index:
    """The baseline that every other rule has to beat."""
    return rng.permutation(pool.size)[:k].astype(np.int64)


def least_certain(pool: Pool, k: int, rng: np.random.Generator) -> Index:
    """Largest entropy of the mean forecast (uncertainty sampling; Lewis and Gale 1994)."""
    return _highest(predictive_entropy(pool.logits), k, rng)


def bald(pool: Pool, k: int, rng: np.random.Generator) -> Index:
    """Largest mutual information between label and member (Houlsby et al. 2011): disagreement, not noise."""
    return _highest(mutual_information(pool.logits), k, rng)


def most_likely(pool: Pool, k: int, rng: np.random.Generator) -> Index:
    """Largest mean probability of the positive class: how rare positives are found (certainty sampling)."""
    if pool.logits.ndim != 2:
        raise DataError("the positive class is that of logits [members, n].")
    return _highest(expit(pool.logits).mean(0), k, rng)


def batch_bald(pool: Pool, k: int, rng: np.random.Generator, *, shortlist: int = 2000, configurations: int = 1024) -> Index:
    """Greedy maximum of the joint mutual information of the batch, I(y_1, ..., y_k; member) (Kirsch, van Amersfoort and Gal
    2019, arXiv:1906.08158): a second copy of a row adds little, where `bald` would take both.

    The joint entropy is exact while the labellings of the rows chosen so far number at most `configurations`; beyond that it
    is estimated from as many labellings drawn from the members. Looks at the `shortlist` rows of largest `bald` score. At most
    ln M nats can be learned of M members: once that is reached the rest are taken by `bald`.
    """
    scores = mutual_information(pool.logits)
    rows = _highest(scores, max(shortlist, k), rng)
    p = class_probabilities(pool.logits[:, rows])  # [M, n, K]
    members, _, classes = p.shape
    conditional = expected_entropy(pool.logits[:, rows])
    joint = np.ones((1, members))  # P(labelling | member) of the rows chosen so far
    weight, known, chosen = np.ones(1), 0.0, list[int]()
    open_rows = np.ones(len(rows), bool)
    for _ in range(min(k, len(rows))):
        gain = _joint_entropy(joint, weight, p) - conditional - known
        gain[~open_rows] = -np.inf
        best = int(np.argmax(gain + 1e-9 * scores[rows]))
        chosen.append(best)
        open_rows[best] = False
        known += float(conditional[best])
        if len(joint) * classes <= configurations:
            joint = (joint[:, None, :] * p[:, best].T[None]).reshape(-1, members)
            weight = np.repeat(weight, classes)
        else:
            joint, weight = _drawn_labellings(p[:, chosen], configurations, rng)
    return rows[chosen]


def _joint_entropy(joint: Array, weight: Array, p: Array) -> Array:
    """H(labels so far, label of each row) [n] = -sum_c w_c sum_y P(c, y) ln P(c, y); in blocks, to bound memory."""
    members, n, classes = p.shape
    entropy = np.zeros(n)
    step = max(1, int(4e6 // max(len(joint), 1)))
    for start in range(0, n, step):
        for y in range(classes):
            both = joint @ p[:, start : start + step, y] / members
            with np.errstate(divide="ignore", invalid="ignore"):
                entropy[start : start + step] -= weight @ np.where(both > 0, both * np.log(both), 0.0)
    return entropy


def _drawn_labellings(p: Array, draws: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Labellings of the chosen rows [M, b, K] drawn from P: their probabilities per member [S, M], and weights 1/(S P)."""
    members, batch, _ = p.shape
    member = rng.integers(0, members, draws)
    cumulative = p[member].cumsum(-1)
    labels = (rng.random((draws, batch, 1)) > cumulative).sum(-1).clip(max=p.shape[2] - 1)
    joint = np.ones((draws, members))
    for b in range(batch):
        joint *= p[:, b, labels[:, b]].T
    return joint, 1 / (draws * joint.mean(1))


def core_set(pool: Pool, k: int, rng: np.random.Generator) -> Index:
    """k-centre greedy (Sener and Savarese 2018, arXiv:1708.00489): each next row is the one farthest from all that are labelled
    or chosen. The largest distance left is at most twice the least possible (Gonzalez 1985)."""
    x = pool.need("features")
    distance = np.full(len(x), np.inf)
    if pool.labelled is not None and len(pool.labelled):
        for known in np.asarray(pool.labelled, np.float64):
            distance = np.minimum(distance, ((x - known) ** 2).sum(1))
    chosen: list[int] = []
    for _ in range(min(k, len(x))):
        far = int(np.argmax(distance)) if np.isfinite(distance).all() else int(rng.integers(len(x)))
        chosen.append(far)
        distance = np.minimum(distance, ((x - x[far]) ** 2).sum(1))
        distance[far] = -1.0
    return np.array(chosen, np.int64)


def clustered(
    pool: Pool,
    k: int,
    rng: np.random.Generator,
    *,
    score: Callable[[ArrayLike], Array] = mutual_information,
    per_cluster: int = 10,
) -> Index:
    """The highest-scored row of each of k clusters among the k * `per_cluster` highest-scored rows (Zhdanov 2019,
    arXiv:1901.05954).

    Diverse like `core_set`, but not fond of outliers. Clusters that coincide leave rows to be filled by score.
    """
    x, values = pool.need("features"), score(pool.logits)
    rows = _highest(values, k * per_cluster, rng)
    if len(rows) <= k:
        return rows
    label = KMeans(k, n_init=1, random_state=int(rng.integers(2**31))).fit_predict(x[rows])
    _, first = np.unique(label, return_index=True)  # rows come from the top, so the first of a cluster is its highest
    rest = np.setdiff1d(np.arange(len(rows)), first)
    return rows[np.concatenate([np.sort(first), rest])[:k]]


def interleaved(*rules: Rule) -> Rule:
    """Queues that take turns: the next row of each rule in order, without repetition. For rare positives, `most_likely` beside
    `bald`: one finds them, the other learns."""

    def rule(pool: Pool, k: int, rng: np.random.Generator) -> Index:
        queues = [list(one(pool, k, rng)) for one in rules]
        chosen: dict[int, None] = {}
        for place in range(k):
            for queue in queues:
                if place < len(queue) and len(chosen) < k:
                    chosen.setdefault(int(queue[place]))
        return np.array(list(chosen), np.int64)

    return rule


def within_budget(scores: ArrayLike, costs: ArrayLike, budget: float) -> Index:
    """Rows of large total score whose total cost is at most `budget`: by score per cost, or the one best row if that is more.

    Worth at least half of the best selection (the knapsack's greedy bound). Scores are not negative, costs above 0.
    """
    s, c = np.asarray(scores, np.float64), np.asarray(costs, np.float64)
    if s.shape != c.shape or (s < 0).any() or not (c > 0).all():
        raise DataError("one score, not negative, and one cost above 0 for each row.")
    chosen, spent = [], 0.0
    for row in np.argsort(-s / c, kind="stable"):
        if spent + c[row] <= budget * (1 + 1e-12):
            chosen.append(int(row))
            spent += c[row]
    single = np.flatnonzero(c <= budget)
    if len(single) and s[single].max() > s[chosen].sum():
        return np.array([single[np.argmax(s[single])]], np.int64)
    return np.array(chosen, np.int64)


def balanced(scores: ArrayLike, guesses: ArrayLike, k: int, share: float, rng: np.random.Generator) -> Index:
    """k rows of which a `share` is guessed positive (by a forecast, not by a label), each class by its highest scores; where a
    class runs out the other fills up, and k larger than the pool gives the whole pool."""
    s, guess = np.asarray(scores, np.float64), np.asarray(guesses).astype(bool)
    k = min(k, len(s))
    positive, negative = (np.flatnonzero(guess == side) for side in (True, False))
    wanted = min(max(round(k * share), k - len(negative)), len(positive))
    parts: Sequence[tuple[Index, int]] = ((positive, wanted), (negative, k - wanted))
    return np.concatenate([rows[_highest(s[rows], count, rng)] for rows, count in parts]).astype(np.int64)
