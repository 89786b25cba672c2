"""Listwise: a training job for learning to rank. The listing of this folder is the architecture."""
