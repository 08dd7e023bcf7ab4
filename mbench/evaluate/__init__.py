"""Evaluation of a masked model in memory: lm-eval tasks and perplexity."""
