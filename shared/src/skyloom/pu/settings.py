"""Two ways in which positive-unlabeled data come about, and what "the prior" is in each.

**Two samples** (case-control): P is drawn from the positives, U from the whole population, independently. The prior is the
share of positives in U, and U may be taken for the population. Lenses injected into cutouts of a survey are of this kind.

**One sample** (censoring): one sample is drawn from the population, and some of its positives are labelled; U is what is left,
which holds fewer positives than the population does. The prior of the population and that of U differ:

    pi_U = (pi - a) / (1 - a),     a = P(s = 1), the labelled share of the sample;   c = P(s = 1 | y = 1) = a / pi.

A catalogue of which a part was inspected is of this kind. Taking one for the other biases every risk, prior and metric.
"""

from skyloom.errors import ConfigError

__all__ = ["check_prior", "check_share", "prior_of_sample", "prior_of_unlabeled"]


def check_prior(prior: float) -> float:
    if not 0 < prior < 1:
        raise ConfigError(f"the class prior is the share of positives among the unlabeled, in (0, 1), not {prior}.")
    return prior


def check_share(prior: float, labelled_share: float | None) -> float:
    """The labelled share of a one-sample setting, 0 for two samples."""
    if labelled_share is None:
        return 0.0
    if not 0 <= labelled_share < prior:
        raise ConfigError(
            f"labelled_share={labelled_share} says that one sample was drawn and this share of it is labelled; the prior "
            f"({prior}) is then that of the whole sample, labelled included, and must be larger. "
            "For two independent samples leave labelled_share out."
        )
    return labelled_share


def prior_of_unlabeled(prior: float, labelled_share: float) -> float:
    """(pi - a) / (1 - a): the share of positives among the unlabeled of one sample.

    >>> round(prior_of_unlabeled(0.1, 0.03), 6)
    0.072165
    """
    return (check_prior(prior) - check_share(prior, labelled_share)) / (1 - labelled_share)


def prior_of_sample(prior_unlabeled: float, labelled_share: float) -> float:
    """a + (1 - a) pi_U: the share of positives in the whole sample; inverse of `prior_of_unlabeled`.

    >>> round(prior_of_sample(prior_of_unlabeled(0.1, 0.03), 0.03), 6)
    0.1
    """
    return labelled_share + (1 - labelled_share) * prior_unlabeled
