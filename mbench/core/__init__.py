"""The types that all parts share: those of methods, suites, evaluations and results."""
