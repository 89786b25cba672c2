"""A trained model → metrics with baselines and standard errors."""
