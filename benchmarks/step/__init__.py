"""Compares the time of a training step with that of peers, at the size of the TF-Ranking tutorial, in one run.

    python -m benchmarks.step [--data_dir=DIR] [--rounds=3] [--sides=ours,c]

Every side trains the same model: embeddings of 64 numbers of users and items, whose dot product is the score; lists of
up to 100 items in batches of 32; softmax loss; Adagrad with a learning rate of 0.5. The ratings are MovieLens 100K if
--data_dir has it as TensorFlow Datasets prepares it, and otherwise the embedded ratings, which have the same size.

What is fair about it:

- The sides run in turn, each in a process of its own, in several rounds. The time of a side in a round is that of its
  fastest epoch, because other processes can only slow one down. A ratio is the median of the ratios of the rounds, so
  a slow minute of the machine hits both of its sides.
- All sides start from the same tables and take the same lists in the same order, which are exchanged as .npy files. If
  the loss of a side differs from ours by more than 1e-3 after one or two epochs, or if its loss falls by another
  amount, the benchmark stops and prints no table.
- No time includes what happens once: imports, tracing, compilation, the first two epochs. The lists are in memory. Our
  input pipeline is timed on its own; it runs beside the steps.
- Keras, PyTorch and JAX are used as their documentation shows, and with the fastest of the obvious choices: `einsum`
  for the scores in JAX and PyTorch, and one compiled `scan` over an epoch in JAX. C is one thread without intrinsics.
  It knows the length of a list, and so computes nothing for padding, which takes a third of a batch. `touched rows`
  updates only the rows with a gradient, which gives the same result as the update of all rows.
- The tutorial is TensorFlow Ranking's own code. It cuts its own lists from a stream of ratings and so has no loss to
  compare. It measures NDCG and MRR, and is therefore compared with ours with both.

On a machine with a GPU, all sides but C use it, JAX if it was installed with CUDA.

It takes two to three minutes a round on 2 CPU cores with all sides.
"""
