"""Prepares a data set on Apache Beam: the same files, byte for byte, as one machine writes.

The work is divided twice. First by file: each file is read and cleaned by one worker, so large data should come in many
files. Then by user: a *bucket* has all usable rows of the users whose ids have its hash. What is done with a bucket is
what one machine does with all ratings, by the same functions. At last the rows go to the shards of the data set, which
are ranges of users.

    files → blocks → buckets, without duplicates → split → with indices → shards
             │          │                           │       ↑               │
             ↓          ↓                           ↓       │               ↓
           totals     merged               users and items → plan        manifest

The upper line has the rows, and no worker ever has more than a file, a bucket or a shard of them. The lower line has
what depends on all rows. Each of these values is a function of the data alone, so neither the number of workers, nor
that of buckets, nor the order in which they finish changes a byte:

- The number of a row is its place in the order of sources, files and lines. Blocks carry their row numbers in their
  file, and the totals have the number of rows before each file. Ties in time are broken by this number. Where there are
  no times, the number of rows that were read before a row is its time.
- Equal ids in two spellings (42 and 42.0) have the same hash. Whether the point is dropped follows from all files.
- A random split needs the number of a row among the rows that are left without duplicates: its number minus that of the
  dropped rows before it. Each worker has the numbers of all dropped rows for this, 8 bytes each, and draws the random
  numbers of all rows, of which it keeps its own. This takes two seconds for a billion rows.
- The cuts of a split by time are ratings with certain ranks. Two histograms find them exactly: of periods of 2^16
  seconds, and of the seconds in the two periods that have the cuts.
- The order of users and items in the vocabulary follows from ids and counts. One worker makes the vocabularies and the
  plan of the shards, so they have to fit into its memory, as they have to in training.
- The features of users and items are encoded by the same worker, from the last training row of each.
- Digests of the whole data set are computed from the written shards, in their order, by one worker.

A source can be all that `ratings.load_ratings` reads but TensorFlow Datasets, whose reader needs TensorFlow. Every
field of the config is supported but config.data.features.example. See `job.build_job`.
"""
