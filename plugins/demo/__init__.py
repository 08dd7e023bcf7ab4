"""The embedded demo: a small trained Mixture-of-Experts model, real text, and tasks made of it."""
