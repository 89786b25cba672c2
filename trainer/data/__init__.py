"""Any source of ratings → query lists. Imports no TensorFlow, so it also runs on data-preparation workers."""
