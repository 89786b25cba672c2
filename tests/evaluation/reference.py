"""Metrics of one list and the order of a catalogue in plain NumPy, straight from their definitions."""

import numpy as np

LOWEST = np.finfo(np.float32).min


def reference(name, labels, scores, items, *, threshold, subtopics):
    """The metric of one list by its definition, over the real entries only. Scores are distinct.

    Args:
      name: "key" or "key@cutoff".
      labels: [list_size], negative where padded.
      scores: [list_size].
      items: [list_size], item indices, for metrics of subtopics.
      threshold: Labels at or above it are relevant.
      subtopics: bool [num_items, num_subtopics].
    """
    key, _, cutoff = name.partition("@")
    real = labels >= 0
    order = np.argsort(-scores[real])
    labels, items = labels[real][order].astype(np.float64), items[real][order]
    n = min(int(cutoff), len(labels)) if cutoff else len(labels)
    rank = np.arange(1, len(labels) + 1)
    discount = 1 / np.log2(rank + 1)
    relevant = 1.0 * (labels >= threshold)
    covers = relevant[:, np.newaxis] * subtopics[items]
    gain = 2**labels - 1

    def ratio(numerator, denominator):
        return numerator / denominator if denominator else 0.0

    match key:
        case "dcg":
            return np.sum((gain * discount)[:n])
        case "ndcg":
            return ratio(np.sum((gain * discount)[:n]), np.sum((np.sort(gain)[::-1] * discount)[:n]))
        case "binary_ndcg":
            best = np.sum(discount[: min(n, int(np.sum(relevant)))])
            return ratio(np.sum((relevant * discount)[:n]), best)
        case "mrr":
            return max((relevant / rank)[:n])
        case "hits":
            return max(relevant[:n])
        case "tfr_precision":
            return np.mean(relevant[:n])
        case "precision":
            return np.sum(relevant[:n]) / (int(cutoff) if cutoff else n)
        case "recall":
            return ratio(np.sum(relevant[:n]), np.sum(relevant))
        case "map":
            precision_at = np.cumsum(relevant) / rank
            return ratio(np.sum((precision_at * relevant)[:n]), np.sum(relevant))
        case "arp":
            return ratio(np.sum(rank * labels), np.sum(labels))
        case "ordered_pair_accuracy":
            pairs = [(i, j) for i in range(len(rank)) for j in range(len(rank)) if labels[i] > labels[j]]
            return ratio(sum(i < j for i, j in pairs), len(pairs))
        case "alpha_dcg":
            before = np.cumsum(covers, axis=0) - covers
            return np.sum((np.sum(covers * 0.5**before, axis=1) * discount)[:n])
        case "precision_ia":
            return ratio(np.sum(covers[:n]), n * np.sum(np.any(covers > 0, axis=0)))
    raise AssertionError(name)


def naive_order(scores, excluded):
    """The candidates of one query, best first."""
    candidates = [item for item in range(1, len(scores)) if item not in set(excluded)]
    usable = {item: scores[item] if scores[item] > LOWEST else LOWEST for item in candidates}
    return sorted(candidates, key=lambda item: (-usable[item], item))


def naive_ties(scores, items, excluded):
    """(best rank, number of tied candidates) of each item of one query; (0, 0) for item 0."""
    usable = np.where(scores > LOWEST, scores, LOWEST)
    ties = []
    for item in items:
        others = [o for o in range(1, len(scores)) if o != item and o not in set(excluded)]
        better, equal = (sum(compare(usable[o], usable[item]) for o in others) for compare in (np.greater, np.equal))
        ties.append((1 + better, 1 + equal) if item else (0, 0))
    return ties
