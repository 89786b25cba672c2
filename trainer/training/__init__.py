"""Lists and a model → a trained model."""
