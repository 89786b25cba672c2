"""Writes the purchases of a made-up shop as a CSV file: PATH with the reviews, and columns named as in many shops.

python examples/write_shop.py PATH
"""

import datetime
import pathlib
import sys

import pyarrow as pa
import pyarrow.csv

from trainer.data.synthetic import generate_ratings


def shop() -> pa.Table:
    """Returns 12,000 reviews by 300 customers of 400 products. The order of the rows is that of time."""
    drawn = generate_ratings(seed=7, num_users=300, num_items=400, num_ratings=12_000)
    names = dict(zip(drawn.items["item_id"].to_pylist(), drawn.items["title"].to_pylist(), strict=True))
    products = drawn.ratings["item_id"].to_pylist()
    times = (datetime.datetime.fromtimestamp(t, datetime.timezone.utc) for t in drawn.ratings["timestamp"].to_pylist())
    return pa.table(
        {
            "Customer": [f"c{user_id}" for user_id in drawn.ratings["user_id"].to_pylist()],
            "Product": [f"p{item_id}" for item_id in products],
            "Product Name": [names[item_id] for item_id in products],
            "Stars": drawn.ratings["rating"],
            "Date": [time.strftime("%Y-%m-%dT%H:%M:%SZ") for time in times],
            "Channel": ["web"] * len(products),
        }
    )


if __name__ == "__main__":
    path = pathlib.Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.csv.write_csv(shop(), str(path))
    print(f"Wrote {path}")
