"""A training run as a Vertex AI job: described as data, checked before anything is paid for, then submitted."""
