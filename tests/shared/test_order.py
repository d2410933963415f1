import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyloom.errors import ConfigError, DataError
from skyloom.training.order import Order


@given(st.integers(1, 400), st.integers(1, 12), st.integers(1, 3), st.integers(1, 3), st.integers(0, 5))
def test_processes_and_parts_share_out_each_batch_and_an_epoch_repeats_no_row(rows, quarter, world, accumulate, epoch):
    batch_size = quarter * world * accumulate
    if rows < batch_size:
        return
    whole = Order(rows, batch_size, seed=3).epoch(epoch)
    assert len(np.unique(whole)) == whole.size == (rows // batch_size) * batch_size
    for k, batch in enumerate(whole):
        parts = []
        for rank in range(world):
            order = Order(rows, batch_size, 3, rank, world, accumulate)
            assert np.array_equal(order.epoch(epoch)[k], batch)
            parts += order.parts(batch)
        assert sorted(np.concatenate(parts)) == sorted(batch)
        assert {len(part) for part in parts} == {quarter}


def test_epochs_differ_and_seeds_differ_and_nothing_else_matters():
    a = Order(1000, 10, seed=1)
    assert np.array_equal(a.epoch(4), Order(1000, 10, seed=1, rank=1, world=2).epoch(4))
    assert not np.array_equal(a.epoch(4), a.epoch(5))
    assert not np.array_equal(a.epoch(4), Order(1000, 10, seed=2).epoch(4))


def test_fewer_rows_than_a_batch_says_what_to_set():
    with pytest.raises(DataError, match="37 rows, fewer than one batch of 256.*trainer.batch_size=18"):
        Order(37, 256, seed=0)


def test_a_batch_that_processes_cannot_share_names_the_nearest():
    with pytest.raises(ConfigError, match="Nearest: 99"):
        Order(1000, 100, seed=0, world=3)
