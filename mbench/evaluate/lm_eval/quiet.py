"""Keeps lm-eval and its libraries off the terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import datasets
import lm_eval.api.task
import lm_eval.models.huggingface
from transformers.utils import logging as transformers_logging

from mbench.core.replaced import replaced


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the messages, warnings and progress bars of lm-eval and its libraries off the terminal.

    Errors that they log still show.
    """
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    verbosity = transformers_logging.get_verbosity()
    bars = datasets.utils.logging.is_progress_bar_enabled()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        # Neither module has a switch for its bars.
        for module in (lm_eval.api.task, lm_eval.models.huggingface):
            silent = partial(module.tqdm, disable=True)
            stack.enter_context(replaced(module, "tqdm", silent))
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        transformers_logging.set_verbosity_error()
        datasets.disable_progress_bars()
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            transformers_logging.set_verbosity(verbosity)
            if bars:
                datasets.enable_progress_bars()
