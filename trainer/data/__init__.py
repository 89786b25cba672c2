"""Turns any source of ratings into query lists. Only `ratings.tensorflow_datasets` needs TensorFlow."""
