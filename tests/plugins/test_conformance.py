"""Every method that comes with mbench passes the checks that it has for those of others.

And those of which it is clear what they must do with planted experts do that: drop what is never
chosen, or gives next to nothing, and keep what is chosen often and gives much.
"""

from mbench.testing import conformance_tests

CLEAR = {"loud": True, "quiet": False, "never": False}
USED = {"never": False}

test_conformance = conformance_tests(
    "mbench_plugins",
    planted={
        **dict.fromkeys(("reap", "mean", "weighted-ean", "ean", "global-reap"), CLEAR),
        **dict.fromkeys(("expert-frequency", "gate-sum", "seer", "m-smoe-uniform"), USED),
        "reap-guarded": {**CLEAR, "super": True},
        "msan": {**CLEAR, "super": True},
        "expert-sparsity": {"loud": True, "never": False},
    },
)
