"""The stages of a run: profile, make masks, evaluate, measure, and gather the results."""
