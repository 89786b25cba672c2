"""What trainer and launch share: errors, flags, the typed config and TF_CONFIG. It imports neither of them."""
