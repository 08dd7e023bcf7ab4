"""What is found out about a run's inputs, and what is refused, before any weights are loaded."""
