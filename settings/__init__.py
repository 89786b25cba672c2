"""Shared by trainer and launch, and imports neither: errors, flags, the typed config and TF_CONFIG."""
