"""Repositories of the Hugging Face hub: resolved to a commit, fetched, verified, read from disk."""
