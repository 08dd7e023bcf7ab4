"""A recount of forward tokens at the model itself."""

from __future__ import annotations


class BodyTokens:
    """Counts the tokens that go through the body of a session's model."""

    def __init__(self, session):
        self.batches = []
        body = session.load().model.base_model
        body.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, body, args, kwargs):
        self.batches.append(kwargs["input_ids"].numel())

    @property
    def tokens(self):
        """Leaves out the few on which it is tried what can be shared and split."""
        return sum(tokens for tokens in self.batches if tokens > 16)
