"""Several runs at once: merged into one, or compared cell by cell."""
