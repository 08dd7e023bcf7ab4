"""A plan's protocol and methods in sentences, as `mbench plan` and the report show them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from mbench.core.admission import Finding
from mbench.core.chat import ChatSpec
from mbench.core.interfaces import RouterMode
from mbench.core.provenance import MethodSettings
from mbench.core.results import ProtocolEntry
from mbench.core.suite import LmEvalTask, PerplexityTask, Suite
from mbench.core.suite_inputs import TextSource
from mbench.moe.corpus import Corpus
from mbench.plan.plan import Plan


def protocol_in_words(suite: Suite, corpora: Mapping[str, Corpus]) -> list[ProtocolEntry]:
    """The suite's choices that decide its figures, one short sentence each."""
    sliced = "retained experts only: router rows of dropped experts are removed (sliced)"
    preserved = "retained experts keep the gate values of the full model (preserved)"
    router = ProtocolEntry(
        "Router after pruning", sliced if suite.router == "sliced" else preserved
    )
    return [
        router,
        *_models_in_words(suite),
        *(
            ProtocolEntry(f"Calibration corpus {name}", _corpus_in_words(corpus))
            for name, corpus in corpora.items()
        ),
        *(
            ProtocolEntry(f"Perplexity {name}", _perplexity_in_words(text))
            for name, text in suite.perplexity.items()
        ),
        *(
            ProtocolEntry(f"Task {name}", _task_in_words(name, task, suite.chat_for(task.chat)))
            for name, task in suite.tasks.items()
        ),
        *_average_and_efficiency_in_words(suite),
    ]


def _corpus_in_words(corpus: Corpus) -> str:
    amount = f"{corpus.sequences} sequences of {corpus.length} tokens"
    names = [part.name for part in corpus.parts]
    if names != [corpus.name]:
        counts = ", ".join(f"{part.spec.sequences} of {part.name}" for part in corpus.parts)
        return f"{amount}: {counts}, interleaved evenly"
    spec = corpus.parts[0].spec
    source = f"{_source_in_words(spec.source)}, {spec.packing}, seed {spec.seed}"
    if spec.chat is None:
        return f"{amount} of {source}{_bos_in_words(spec.bos)}"
    bos = _bos_in_words(spec.bos) or ", BOS where the template prints it"
    words = _template_in_words(spec.chat, " where there is none")
    return f"{amount} of conversations in {source}{bos}; {words}"


def _template_in_words(chat: ChatSpec, added: str) -> str:
    """`added` says where the system message stands."""
    filled = [f"system message {chat.system!r}{added}"] if chat.system else []
    filled += [f"{name} {json.dumps(value)}" for name, value in chat.options.items()]
    filled += [f"date {chat.date}"] if chat.date else []
    return ", ".join(["put into the model's chat template", *filled])


def _models_in_words(suite: Suite) -> Iterator[ProtocolEntry]:
    for name, model in suite.models.items():
        words = ["code that comes with it is run (trust_remote_code)"] * model.trust_remote_code
        words += [f"computed in {model.dtype}"] * (model.dtype != "auto")
        words += [f"{model.attention} attention"] * (model.attention != "auto")
        if words:
            yield ProtocolEntry(f"Model {name}", "; ".join(words), models=(name,))


def _perplexity_in_words(text: PerplexityTask) -> str:
    window = f"window {text.window}" + (f", stride {text.stride}" if text.stride else "")
    limit = f", first {text.max_windows} windows" if text.max_windows else ""
    if text.windows_per_document:
        limit += f", {text.windows_per_document} of each document"
    bos = _bos_in_words(text.bos)
    kinds = {"records": "a document is a record", "wikitext": "a document is a WikiText article"}
    kinds |= {"whole": "all of it counts as one document"}
    documents = f"; {kinds[text.documents]}" if text.documents else ""
    source = _source_in_words(text.source)
    return f"{text.protocol}, {window}{limit}{bos}; {source}{documents}"


def _bos_in_words(bos: str | None) -> str:
    places = {"document": "before every document", "window": "before every sequence"}
    places |= {"text": "before the text", "none": "nowhere"}
    return f", BOS {places[bos]}" if bos else ""


def _task_in_words(name: str, task: LmEvalTask, chat: ChatSpec | None) -> str:
    shots = "the task's own shots" if task.num_fewshot is None else f"{task.num_fewshot}-shot"
    limit = f", first {task.limit} items" if task.limit else ""
    most = f", up to {task.max_gen_toks} tokens" if task.max_gen_toks else ""
    chosen = ", ".join(f"{option} {value}" for option, value in task.generation.items())
    most += f", {chosen}" if chosen else ""
    seed = f", seed {task.seed}" if task.seed is not None else ""
    code = "; functions of its files are run (trust_code)" if task.trust_code else ""
    words = f"lm-eval {task.lm_eval_name(name)}, {task.metric}, {shots}{limit}{most}{seed}"
    if chat is not None:
        words += f"; prompts are {_template_in_words(chat, '')}"
        if task.num_fewshot != 0:
            words += f", examples as {'turns' if chat.turns else 'one message'}"
    return words + code


def _average_and_efficiency_in_words(suite: Suite) -> Iterator[ProtocolEntry]:
    if suite.average is not None:
        listed = ", ".join(suite.average.tasks)
        yield ProtocolEntry(suite.average.name, f"unweighted mean of {listed}")
    if suite.efficiency is not None:
        spec = suite.efficiency
        yield ProtocolEntry(
            "Efficiency",
            f"{spec.batch_size} prompts of {spec.prompt_tokens or 'up to 512'} random tokens,"
            f" {spec.new_tokens} tokens generated after each; {spec.repetitions} repetitions"
            " after one to warm up, full and pruned model in turns; K experts spread evenly,"
            " as size depends on how many stay and not on which",
        )


def _source_in_words(source: TextSource) -> str:
    if source.files is not None:
        return "local files " + ", ".join(source.files)
    if source.plugin is not None:
        return f"{source.plugin} ({source.split})"
    # A single data file is a split of its own, whatever the library calls it.
    parts = [source.subset, source.data_files or source.split]
    parts += [f"revision {source.revision[:12]}"] if source.revision else []
    return f"{source.hub} ({', '.join(part for part in parts if part)})"


def answers_in_words(admission: Iterable[Finding]) -> Iterator[ProtocolEntry]:
    """How tasks generate their answers, where a reader should know it."""
    for found in admission:
        if (found.section, found.fact, found.level) == ("tasks", "answer", "note"):
            yield ProtocolEntry(f"Answers of {found.name}", found.words)


def methods_in_words(plan: Plan) -> list[ProtocolEntry]:
    """Every method's parts with all their parameters, by model where they differ."""
    texts: dict[tuple[str, bool], dict[str, list[str]]] = {}
    for cell in plan.cells:
        method = cell.method
        if method.problem:
            continue
        text = method_in_words(method.settings, plan.suite.router)
        if method.seeds != (None,):
            text += "; seeds " + ", ".join(map(str, method.seeds))
        by_text = texts.setdefault((method.name, method.evaluated), {})
        models = by_text.setdefault(text, [])
        if cell.model not in models:
            models.append(cell.model)
    entries = []
    for (name, evaluated), by_text in texts.items():
        heading = f"Method {name}" + ("" if evaluated else " (as a candidate only)")
        for text, models in by_text.items():
            where = "" if len(by_text) == 1 else f" on {', '.join(models)}"
            entries.append(
                ProtocolEntry(heading + where, text, "method", tuple(models), methods=(name,))
            )
    return [*entries, *_notes_in_words(plan)]


def _notes_in_words(plan: Plan) -> Iterator[ProtocolEntry]:
    """What components say of their budgets, once for all seeds and methods it is true of."""
    methods: dict[tuple[str, float, str], list[str]] = {}
    for cell in plan.cells:
        for note in cell.notes:
            names = methods.setdefault((cell.model, cell.budget.retain, note), [])
            if cell.method.name not in names:
                names.append(cell.method.name)
    for (model, retain, note), names in methods.items():
        yield ProtocolEntry(
            f"On {model}, {100 * (1 - retain):.4g} % pruned",
            f"{', '.join(names)}: {note}",
            "note",
            models=(model,),
            methods=tuple(names),
            retain=retain,
        )


def method_in_words(method: MethodSettings, router: RouterMode) -> str:
    """A method's parts with all their parameters, in a suite whose router mode is `router`."""
    words = [f"{kind} {part.label}" for kind, part in method.parts.items()]
    if method.checkpoint is not None:
        words.append(f"published checkpoint {method.checkpoint}")
    if method.corpora:
        words.append("corpora " + ", ".join(method.corpora))
    if method.candidate is not None:
        words.append(f"candidate {method.candidate}")
    if method.router != router:
        words.append(f"router {method.router}")
    return "; ".join(words)
