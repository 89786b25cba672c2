"""Recommends items from the exported model of a run, scores given pairs of users and items, and finds similar items."""
