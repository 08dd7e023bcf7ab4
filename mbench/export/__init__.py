"""Pruned checkpoints of finished runs, as stock transformers loads them."""
