"""Weights stored in fewer bits: the published forms, each read as its definition says."""
