"""Methods misled by numbers and names, extreme values, few experts or what stands in for them."""

from __future__ import annotations

from helpers.wrong_methods import (
    DONE,
    MERGED,
    SUMS,
    TOP,
    Wrong,
    builder,
    scorer,
    selector,
)

MISLED = {
    # equivariant
    "lower numbers preferred": Wrong(
        "equivariant",
        scorer(f"return {SUMS}['gate_norm'] - 100 * np.arange(profile.num_experts)"),
        "experts renumbered",
    ),
    "neighbours spread": Wrong(
        "equivariant",
        selector(
            "for row, order in zip(chosen, np.argsort(-values, axis=1)):\n"
            "    even = [e for e in order if e % 2 == 0]\n"
            "    row[(even + [e for e in order if e % 2])[:budget.kept]] = True\n" + DONE
        ),
        "in their new numbers",
    ),
    "merged into the lowest number": Wrong(
        "equivariant",
        builder(f"{MERGED}return mbench.ExpertMask(keep, stand_in=mbench.Merged(into, weights))"),
        "is taken up by",
    ),
    # ties
    "all of the K-th's equals": Wrong(
        "ties",
        selector("return mbench.Selection(values >= np.sort(values, axis=1)[:, [-budget.kept]])"),
        "kept 4 experts",
    ),
    # names, corpora, long-text
    "depends on the corpus's name": Wrong(
        "names", scorer(f"return {SUMS}['count'] * len(profile.corpus)"), "under other names"
    ),
    "depends on the model's name": Wrong(
        "names",
        scorer(f"return {SUMS}['count' if profile.model == 'synthetic' else 'gate']"),
        "under other names",
    ),
    "the last corpus alone": Wrong(
        "corpora",
        selector(
            f"for each in scores.values():\n    values = each.values\n{TOP}{DONE}", corpora=None
        ),
        "the scores on corpus 1 of 3",
    ),
    "the first corpus alone": Wrong(
        "corpora", selector(f"{TOP}{DONE}", corpora=None), "the scores on corpus 2 of 3"
    ),
    "exponentials of counts": Wrong(
        "long-text",
        scorer(f"with np.errstate(all='ignore'):\n    return np.exp({SUMS}['count'])"),
        "returned inf",
    ),
    "counted in half precision": Wrong(
        "long-text",
        scorer(
            "with np.errstate(all='ignore'):\n"
            f"    return {SUMS}['count'].astype(np.float16).astype(float)"
        ),
        "returned inf",
    ),
    # never-selected
    "mean of nothing": Wrong(
        "never-selected",
        scorer(f"s = {SUMS}\nwith np.errstate(all='ignore'):\n    return s['gate'] / s['count']"),
        "returned nan",
    ),
    "logarithm of nothing": Wrong(
        "never-selected",
        scorer(f"with np.errstate(all='ignore'):\n    return np.log({SUMS}['count'])"),
        "returned -inf",
    ),
    # one-expert, all-experts
    "two experts at least": Wrong(
        "one-expert",
        builder("keep[:, :2] |= keep.sum() == len(keep)\nreturn mbench.ExpertMask(keep)"),
        "not K = 1",
    ),
    "one is always dropped": Wrong(
        "all-experts",
        builder("keep[:, 0] &= ~keep.all()\nreturn mbench.ExpertMask(keep)"),
        "not K = 4",
    ),
    # stand-ins
    "constants of kept experts": Wrong(
        "stand-ins",
        builder(
            "ones = np.ones((*keep.shape, 12), np.float32)\n"
            "return mbench.ExpertMask(keep, stand_in=mbench.Constants(ones))"
        ),
        "must be 0, as it is kept",
    ),
    "constants of another size": Wrong(
        "stand-ins",
        builder(
            "ones = np.zeros((*keep.shape, 1), np.float32)\n"
            "return mbench.ExpertMask(keep, stand_in=mbench.Constants(ones))"
        ),
        "ends in 1 where the model has 12",
    ),
    "merged into dropped ones": Wrong(
        "stand-ins",
        builder(
            f"{MERGED}into[~keep] = np.argwhere(~keep)[:, 1]\n"
            "return mbench.ExpertMask(keep, stand_in=mbench.Merged(into, weights))"
        ),
        "must be a kept expert",
    ),
    "left to none by a mapped router": Wrong(
        "stand-ins",
        builder(
            f"{MERGED}into[~keep] = -1\n"
            "return mbench.ExpertMask(keep, stand_in=mbench.Merged(into, weights))"
        ),
        "where the router is mapped",
    ),
    "neurons that are no order": Wrong(
        "stand-ins",
        builder(
            f"{MERGED}neurons = np.zeros((*keep.shape, 8), np.int64)\n"
            "return mbench.ExpertMask(keep, stand_in=mbench.Merged(into, weights, neurons))"
        ),
        "must be an order of 0 to 7",
    ),
    # search
    "spends more than it may": Wrong(
        "search",
        builder(
            "for layer in range(len(keep)):\n    for drop in np.flatnonzero(keep[layer]):\n"
            "        for take in np.flatnonzero(~keep[layer]):\n"
            "            other = keep.copy()\n            other[layer, [drop, take]] ^= True\n"
            "            probe.losses([mbench.ExpertMask(other)])\n"
            "return mbench.ExpertMask(keep)",
            base="MaskSearch",
        ),
        "probe.masks_left",
    ),
    "gives itself more": Wrong(
        "result",
        builder("probe.limit = 10**9\nreturn mbench.ExpertMask(keep)", base="MaskSearch"),
        "limit",
    ),
    "never asks": Wrong(
        "search", builder("return mbench.ExpertMask(keep)", base="MaskSearch"), "for nothing"
    ),
    "asks for an empty layer": Wrong(
        "search",
        builder(
            "probe.losses([mbench.ExpertMask(keep & False)] * (probe.masks_left > 0))\n"
            "return mbench.ExpertMask(keep)",
            base="MaskSearch",
        ),
        "keeps no expert",
    ),
}
