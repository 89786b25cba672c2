"""Evaluate a trained model: metrics with standard errors, compared with baselines."""
