"""The names and types that cross module borders, said once.

Tables are Arrow tables; strings live only in them. Past `vocabulary` everything is an index.
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
"""One row a rating: stars in `rating`, seconds since 1970 in `timestamp`."""

ITEMS_SCHEMA = pa.schema([(ITEM_ID, pa.string()), (TITLE, pa.string()), (GENRES, pa.list_(pa.string()))])
"""One row an item."""

SPLITS = ("train", "validation", "test")
"""In the order in which their ratings may be known to a model."""

UNKNOWN_INDEX = 0
"""The index of every user or item that training has not seen."""

PADDING_LABEL = -1.0
"""The label of an entry that fills a list up to `list_size`: TF-Ranking ignores labels below 0."""

# The features of a batch of lists.
QUERY = "query"  # int32 [batch_size]: user index
ITEMS = "items"  # int32 [batch_size, list_size]: item indices, UNKNOWN_INDEX where padded
LABELS = "labels"  # float32 [batch_size, list_size]: relevance, PADDING_LABEL where padded
WEIGHTS = "weights"  # float32 [batch_size]: 1 for a list, 0 for a filler row
NUM_LISTS = "num_lists"  # float32 []: real lists in the whole global batch, the divisor of the loss
