"""Export a trained model as a SavedModel, and recommend items from it."""
