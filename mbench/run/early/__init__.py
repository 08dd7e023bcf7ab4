"""A verdict from some of a task's items: their order, the estimate and its interval, when to end."""
