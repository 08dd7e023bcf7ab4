"""Looks at every input of a plan once; what was found is stored, so that it is not looked at again.

Each kind of input has a module here with a function that gives its checks. A check is keyed by all
that its findings depend on and is run only where the store does not know them.
"""

from __future__ import annotations

from collections.abc import Iterator

from mbench.core.admission import Finding
from mbench.core.errors import AdmissionError
from mbench.plan.admission.budgets import budget_checks, budget_findings
from mbench.plan.admission.chats import chat_checks
from mbench.plan.admission.check import Check, RefusedElsewhere
from mbench.plan.admission.lengths import sequence_checks, window_checks
from mbench.plan.admission.models import model_checks
from mbench.plan.admission.published import published_checks
from mbench.plan.admission.sources import source_checks
from mbench.plan.admission.tasks import task_checks
from mbench.plan.admission.texts import text_checks
from mbench.plan.plan import Plan
from mbench.plan.yaml_source import YamlSource
from mbench.storage.records import from_plain, to_plain
from mbench.storage.store import Store


def admit(plan: Plan, store: Store) -> tuple[Finding, ...]:
    """Everything that was found, refusals included, in the order of the suite's inputs."""
    return tuple(finding for check in _checks(plan) for finding in _findings(check, store))


def admit_what_is_here(plan: Plan, store: Store) -> tuple[Finding, ...]:
    """The same for plans, which fetch nothing: of a suite that takes something from the hub, only
    what is to be known of its budgets."""
    texts = [*plan.texts_used().values(), *(task.text for task in plan.tasks)]
    here = (
        not plan.inputs.pins().repositories
        and all(checkpoint.files_available for checkpoint in plan.checkpoints)
        and not any(task.out_of_reach for task in plan.tasks)
        and not any(text.source.hub for text in texts if text is not None)
    )
    return admit(plan, store) if here else tuple(budget_findings(plan))


def refuse(findings: tuple[Finding, ...], source: YamlSource) -> None:
    """Raise an `AdmissionError` that has a line for each refused input, if there is one."""
    refused = [finding for finding in findings if finding.level == "refused"]
    if refused:
        lines = (
            source.error((f.section, f.name), f"{f.subject}: {f.fact}: {f.words}") for f in refused
        )
        raise AdmissionError("\n".join(map(str, lines)))


def _checks(plan: Plan) -> Iterator[Check]:
    yield from source_checks(plan)
    yield from model_checks(plan)
    yield from published_checks(plan)
    yield from text_checks(plan)
    yield from sequence_checks(plan)
    yield from window_checks(plan)
    yield from chat_checks(plan)
    yield from task_checks(plan)
    yield from budget_checks(plan)


def _findings(check: Check, store: Store) -> tuple[Finding, ...]:
    stored = None if check.key is None else store.read_json(check.key)
    if check.also is not None and store.read_json(check.also) is None:
        stored = None
    if stored is not None:
        return tuple(from_plain(Finding, finding) for finding in stored)
    try:
        findings = tuple(check.run())
    except RefusedElsewhere:
        return ()
    # A refusal may name what is not part of the key, such as the line of a file.
    if check.key is not None and all(finding.level != "refused" for finding in findings):
        store.write_json(check.key, to_plain(findings))
    return findings
