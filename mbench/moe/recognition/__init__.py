"""A pruned checkpoint beside the full one: which experts it holds, and what else differs."""
