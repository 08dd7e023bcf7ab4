"""The suites that come with mbench, which `mbench run` knows by name."""
