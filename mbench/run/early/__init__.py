"""A verdict from some of a task's items: their order, the estimate, its interval, its end."""
