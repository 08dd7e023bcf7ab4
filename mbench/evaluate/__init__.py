"""One masked model on one task: perplexity, and the forward passes that all tasks share."""
