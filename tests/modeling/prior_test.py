"""The priors of items against logarithms that are written out."""

import numpy as np

from trainer.modeling.prior import log_label_means, log_label_sums

ITEMS = np.array([1, 1, 3, 1, 3], np.int32)
LABELS = np.array([1, 1, 0, 1, 1], np.float32)


def test_sums_are_damped_by_mean_labels():
    """The mean label is 0.8, and it counts twice for each item."""
    expected = np.log([1.6, 3 + 1.6, 1.6, 1 + 1.6])
    np.testing.assert_allclose(log_label_sums(ITEMS, LABELS, num_items=4, damping=2.0), expected, rtol=1e-6)


def test_means_are_damped_towards_the_mean_of_all():
    """However often an item was rated."""
    expected = np.log([0.8, (3 + 1.6) / (3 + 2), 0.8, (1 + 1.6) / (2 + 2)])
    np.testing.assert_allclose(log_label_means(ITEMS, LABELS, num_items=4, damping=2.0), expected, rtol=1e-6)


def test_labels_of_0_leave_the_prior_finite():
    assert np.isfinite(log_label_sums(ITEMS, 0 * LABELS, num_items=4, damping=1.0)).all()
