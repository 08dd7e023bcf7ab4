"""A plan's protocol and methods in sentences, as `mbench plan` and the report show them."""

from __future__ import annotations

from mbench.core.interfaces import RouterMode
from mbench.core.provenance import MethodSettings
from mbench.core.suite import Suite, TextSource
from mbench.plan.cells import Plan


def protocol_in_words(suite: Suite) -> list[tuple[str, str]]:
    """The suite's choices that decide its figures, one short sentence each."""
    sliced = "retained experts only: router rows of dropped experts are removed (sliced)"
    preserved = "retained experts keep the gate values of the full model (preserved)"
    words = [("Router after pruning", sliced if suite.router == "sliced" else preserved)]
    for name, model in suite.models.items():
        own = ["code that comes with it is run (trust_remote_code)"] * model.trust_remote_code
        own += [f"computed in {model.dtype}"] * (model.dtype != "auto")
        if own:
            words.append((f"Model {name}", "; ".join(own)))
    for name, corpus in suite.corpora.items():
        words.append(
            (
                f"Calibration corpus {name}",
                f"{corpus.sequences} sequences of {corpus.length} tokens of"
                f" {_source_in_words(corpus.source)}, {corpus.packing}, seed {corpus.seed}",
            )
        )
    for name, text in suite.perplexity.items():
        window = f"window {text.window}" + (f", stride {text.stride}" if text.stride else "")
        limit = f", first {text.max_windows} windows" if text.max_windows else ""
        words.append(
            (
                f"Perplexity {name}",
                f"{text.protocol}, {window}{limit}; {_source_in_words(text.source)}",
            )
        )
    for name, task in suite.tasks.items():
        shots = "the task's own shots" if task.num_fewshot is None else f"{task.num_fewshot}-shot"
        limit = f", first {task.limit} items" if task.limit else ""
        words.append(
            (f"Task {name}", f"lm-eval {task.lm_eval_name(name)}, {task.metric}, {shots}{limit}")
        )
    if suite.average is not None:
        listed = ", ".join(suite.average.tasks)
        words.append((suite.average.name, f"unweighted mean of {listed}"))
    if suite.efficiency is not None:
        spec = suite.efficiency
        words.append(
            (
                "Efficiency",
                f"{spec.batch_size} prompts of {spec.prompt_tokens or 'up to 512'} random tokens,"
                f" {spec.new_tokens} tokens generated after each; {spec.repetitions} repetitions"
                " after one to warm up, full and pruned model in turns; K experts spread evenly,"
                " as size depends on how many stay and not on which",
            )
        )
    return words


def _source_in_words(source: TextSource) -> str:
    if source.files is not None:
        return "local files " + ", ".join(source.files)
    if source.plugin is not None:
        return f"{source.plugin} ({source.split})"
    # A single data file is a split of its own, whatever the library calls it.
    parts = [source.subset, source.data_files or source.split]
    parts += [f"revision {source.revision[:12]}"] if source.revision else []
    return f"{source.hub} ({', '.join(part for part in parts if part)})"


def methods_in_words(plan: Plan) -> list[tuple[str, str]]:
    """Every method's parts with all their parameters, by model where they differ."""
    words: dict[str, dict[str, list[str]]] = {}
    for cell in plan.cells:
        method = cell.method
        candidate_only = "" if method.evaluated else " (as a candidate only)"
        texts = words.setdefault(f"Method {method.name}{candidate_only}", {})
        text = method_in_words(method.settings, plan.suite.router)
        if method.seeds != (None,):
            text += "; seeds " + ", ".join(map(str, method.seeds))
        models = texts.setdefault(text, [])
        if cell.model not in models:
            models.append(cell.model)
    return [
        *(
            (name if len(texts) == 1 else f"{name} on {', '.join(models)}", text)
            for name, texts in words.items()
            for text, models in texts.items()
        ),
        *_notes_in_words(plan),
    ]


def _notes_in_words(plan: Plan) -> list[tuple[str, str]]:
    """What components say of their budgets, once for all seeds and methods it is true of."""
    said: dict[tuple[str, str], list[str]] = {}
    for cell in plan.cells:
        for note in cell.notes:
            where = f"{cell.model} at {100 * cell.budget.retain:g} %"
            methods = said.setdefault((where, note), [])
            if cell.method.name not in methods:
                methods.append(cell.method.name)
    return [(f"On {where}", f"{', '.join(m)}: {note}") for (where, note), m in said.items()]


def method_in_words(method: MethodSettings, router: RouterMode) -> str:
    """A method's parts with all their parameters, in a suite whose router mode is `router`."""
    words = [f"{kind} {part.label}" for kind, part in method.parts.items()]
    if method.corpora:
        words.append("corpora " + ", ".join(method.corpora))
    if method.candidate is not None:
        words.append(f"candidate {method.candidate}")
    if method.router != router:
        words.append(f"router {method.router}")
    return "; ".join(words)
