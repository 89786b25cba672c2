"""Models that turn features into scores."""
