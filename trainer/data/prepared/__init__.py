"""A data set that was read and split once, on disk: memory-mapped arrays in shards, and a manifest.

    manifest.json                           format, description, fields of the config, shards, sizes and SHA-256 digests
    vocabulary/                             as in a workdir
    features/OWNER.NAME.npy                 the values of a feature of all users or items
    shards/00000-of-00002/                  the ratings of a range of users, with a shard for every SHARD_BYTES of them
        SPLIT.{offsets,items,ratings,timestamps}.npy, SPLIT.feature.NAME.npy
                                            a `RatingsByUser`, in the order of the lists
        history.SPLIT+SPLIT.{offsets,items,ratings}.npy
                                            the histories of these splits, in time order and without unknown items

A history of the training split is left out where it is the same as the split itself. A shard depends only on the
ratings of its users, so shards can be written in parallel. Neither the size of a list nor that of a history is part of
the data: lists are cut from the offsets when the data is opened.
"""
