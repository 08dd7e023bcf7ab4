"""The Python API: suites planned and run by a call, as the command line does with the same code."""
