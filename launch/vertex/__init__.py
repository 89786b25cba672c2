"""Runs the trainer as a Vertex AI job. The job is checked before it costs money."""
