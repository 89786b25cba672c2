"""Names and types that several modules use.

Tables are Arrow tables. Only tables contain strings: `vocabulary` turns ids into indices.
"""

import pyarrow as pa

USER_ID = "user_id"
ITEM_ID = "item_id"
RATING = "rating"
TIMESTAMP = "timestamp"
TITLE = "title"
GENRES = "genres"
INDEX = "index"

RATINGS_SCHEMA = pa.schema(
    [(USER_ID, pa.string()), (ITEM_ID, pa.string()), (RATING, pa.float32()), (TIMESTAMP, pa.int64())]
)
"""One row per rating, with stars in `rating` and seconds since 1970 in `timestamp`."""

ITEMS_SCHEMA = pa.schema([(ITEM_ID, pa.string()), (TITLE, pa.string()), (GENRES, pa.list_(pa.string()))])
"""One row per item."""

SPLITS = ("train", "validation", "test")
"""The splits, in the order in which a model may use their ratings."""

UNKNOWN_INDEX = 0
"""The index of every user or item that is not in the training split."""

PADDING_LABEL = -1.0
"""The label of a padded entry of a list. TF-Ranking ignores labels below 0."""

# The features of a batch of lists.
QUERY = "query"  # int32 [batch_size]: user index
HISTORY = "history"  # int32 [batch_size, history_size]: items of the query, oldest first, UNKNOWN_INDEX where padded
HISTORY_RATINGS = "history_ratings"  # float32 [batch_size, history_size]: their ratings, 0 where padded, 1 for events
ITEMS = "items"  # int32 [batch_size, list_size]: item indices, UNKNOWN_INDEX where padded
LABELS = "labels"  # float32 [batch_size, list_size]: relevance, PADDING_LABEL where padded
NEGATIVES = "negatives"  # int32 [num_negatives]: sampled items, the same for the whole global batch
WEIGHTS = "weights"  # float32 [batch_size]: 1 for a list, 0 for a padding row
NUM_LISTS = "num_lists"  # float32 []: the lists of the global batch, without padding rows; the divisor of the loss
ROWS = "rows"  # int32 [batch_size]: the row of each list in the global batch

TITLES = "titles and genres"
"""The name of the fingerprint of how items are described."""
