"""A search over fields of the config. Each trial is a training run, and is judged by its validation split."""
