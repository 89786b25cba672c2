"""What the training labels say of each item, whoever the user is."""

import numpy as np

_SMALLEST = 1e-6


def log_label_sums(items: np.ndarray, labels: np.ndarray, *, num_items: int, damping: float) -> np.ndarray:
    """The logarithm of the damped sum of each item's labels.

    A softmax over all items that knows nothing of the user has the lowest loss where scores are the logarithms of these
    sums, except for a constant.

    Args:
      items: int32 [num_events], item indices.
      labels: float32 [num_events], at least 0.
      num_items: Number of item indices, including index 0.
      damping: Each sum counts this number of events more, with the mean label, so that none is 0. Above 0.

    Returns:
      float32 [num_items].
    """
    sums = np.bincount(items, weights=labels, minlength=num_items)
    return _log(sums + damping * np.mean(labels, dtype=np.float64))


def log_label_means(items: np.ndarray, labels: np.ndarray, *, num_items: int, damping: float) -> np.ndarray:
    """The logarithm of the damped mean of each item's labels; see `damped_means`.

    It is to lists of rated items what `log_label_sums` is to the whole catalogue: each item is in as many lists as it
    has ratings, so the number of its ratings says nothing about its place in a list.

    Args:
      items, labels, num_items, damping: As in `damped_means`.

    Returns:
      float32 [num_items].
    """
    return _log(damped_means(items, labels, num_items=num_items, damping=damping))


def damped_means(items: np.ndarray, values: np.ndarray, *, num_items: int, damping: float) -> np.ndarray:
    """The damped mean of each item's values, (sum + d · mean of all) / (n + d).

    Args:
      items: int32 [num_events], item indices.
      values: float32 [num_events].
      num_items: Number of item indices, including index 0.
      damping: d, a number of events, above 0.

    Returns:
      float64 [num_items]. An item without events has the mean of all.
    """
    sums = np.bincount(items, weights=values, minlength=num_items)
    counts = np.bincount(items, minlength=num_items)
    return (sums + damping * np.mean(values, dtype=np.float64)) / (counts + damping)


def _log(values: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(values, _SMALLEST)).astype(np.float32)
