"""The words that all parts share: what a method, a suite, an evaluation and a result are."""
