"""Profiles, training, evaluation, the pipeline of notebooks, and result files."""
