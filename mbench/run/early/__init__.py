"""A verdict from some of a task's items: the estimate, its interval, and when it is enough."""
