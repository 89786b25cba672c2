"""A trained model → a SavedModel and recommendations."""
