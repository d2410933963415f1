"""Training batches with the share of labelled lenses that was asked for, or as the rows come."""

import numpy as np

from lensfind.training import balancing


def test_half_of_a_batch_is_labelled_and_every_unlabeled_cutout_is_seen(small):
    train = balancing.balanced(small, positives=0.5).train
    labelled = small.train["labelled"].numpy() > 0
    batches = np.array(list(train.order(len(train), 8, seed=0).epoch(0))).reshape(-1, 8)
    assert (labelled[batches].sum(axis=1) == 4).all()
    seen = batches[~labelled[batches]]
    assert len(seen) == len(set(seen.tolist())) == (~labelled).sum() // 4 * 4


def test_without_a_share_the_rows_come_as_they_are(small, monkeypatch):
    monkeypatch.setattr(balancing, "simulated", lambda **_: small)
    assert balancing.simulated_balanced(positives=None) is small
    assert balancing.simulated_balanced(positives=0.5).val is small.val
