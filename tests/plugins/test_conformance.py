"""Every method that comes with mbench passes the checks that it has for those of others."""

from mbench.testing import conformance_tests

test_conformance = conformance_tests("mbench_plugins")
