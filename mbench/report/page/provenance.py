"""The provenance of the figures as the page shows it: rows of a name and a text."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from mbench.core.interfaces import RouterMode
from mbench.core.provenance import MethodSettings, ModelRecord, Provenance
from mbench.core.run_record import Forecast, RunRecord
from mbench.report.words import size, tokens


def commands(provenance: Provenance) -> str:
    """The command of each run, one a line."""
    return "\n".join(dict.fromkeys(shlex.join(run.command) for run in provenance.runs))


def changes(provenance: Provenance) -> tuple[str, ...]:
    """Options of the command line, by run, that changed what the suite file says."""
    return tuple(dict.fromkeys(shlex.join(run.changes) for run in provenance.runs if run.changes))


def commit(provenance: Provenance) -> str:
    """The commit of mbench if all runs used the same one without changes, else empty."""
    states = {run.mbench_checkout for run in provenance.runs}
    (state, *others) = states
    return state.commit if state.commit and not state.changed and not others else ""


def rows(provenance: Provenance) -> tuple[tuple[str, str], ...]:
    """Everything recorded except the command of a single run, as (path, text)."""
    parts: dict[str, object] = {}
    if len(provenance.runs) == 1:
        parts |= _run(provenance.runs[0])
    else:
        parts["versions in all runs"] = provenance.versions
        for number, run in enumerate(provenance.runs, 1):
            names = {"suite": run.suite, "title": run.title, "description": run.description}
            command = {"command": shlex.join(run.command)}
            parts[f"run {number}"] = names | command | _run(run)
    parts["models"] = {name: _model(model) for name, model in provenance.models.items()}
    parts["corpora"] = {name: vars(corpus) for name, corpus in provenance.corpora.items()}
    parts["mixes"] = {
        name: {part: vars(corpus) for part, corpus in mix.parts.items()}
        for name, mix in provenance.mixes.items()
    }
    parts["tasks"] = {
        name: {"text": task.text, "version of lm-eval": task.lm_eval, **task.settings}
        for name, task in provenance.tasks.items()
    }
    parts["router"] = provenance.router
    parts["methods"] = {
        model: {name: _method(method, provenance.router) for name, method in methods.items()}
        for model, methods in provenance.methods.items()
    }
    return tuple(_flat(parts))


def run_costs(provenance: Provenance) -> tuple[tuple[str, str], ...]:
    """The cost of a single run; for merged runs it is listed with each run in `rows`."""
    if len(provenance.runs) > 1:
        return ()
    cost = provenance.runs[0].cost
    return (
        ("Forward tokens", tokens(cost.forward_tokens)),
        *((f"Seconds, {stage}", f"{spent:.1f}") for stage, spent in cost.seconds.items()),
        *((f"Forecast for {each.model}", _checked(each)) for each in cost.forecasts),
        *((f"Peak memory, {where}", size(held, "B")) for where, held in cost.peak_memory.items()),
    )


def _checked(forecast: Forecast) -> str:
    """A forecast beside what came true."""
    said = (
        f"{forecast.seconds:.0f} s for the {forecast.evaluations} evaluations to come, made after"
        f" {forecast.after:.0f} s"
    )
    if forecast.took is None:
        return f"{said}; not checked, as not all of it was done"
    off = f", {100 * (forecast.took / forecast.seconds - 1):+.0f} %" if forecast.seconds else ""
    return f"{said}; took {forecast.took:.0f} s{off}"


def _run(run: RunRecord) -> dict[str, object]:
    cost = run.cost
    return {
        "suite changed by": shlex.join(run.changes),
        "suite file sha256": run.suite_sha256,
        "versions": run.versions,
        "code of mbench": run.code,
        "git": {"of the suite": run.suite_checkout.label, "of mbench": run.mbench_checkout.label},
        "hardware": vars(run.hardware),
        "plugins": {
            f"{part.kind} {part.name}": {
                "from": part.origin,
                "source sha256": part.source_sha256,
                "with": part.distributions,
            }
            for part in run.plugins
        },
        "cost": {
            "forward tokens": cost.forward_tokens,
            "seconds": cost.seconds,
            "peak memory": cost.peak_memory,
            "forecasts": {each.model: _checked(each) for each in cost.forecasts},
        },
        "log-likelihoods": cost.scoring,
        "batch tokens": cost.batch_tokens,
        "answers at once, where memory ran out": cost.answers_at_once,
        "interrupted": cost.interrupted,
        "profiles": {
            model: {
                corpus: {
                    "tokens": profile.tokens,
                    "experts never selected": profile.never_selected,
                    "top-k gate mass by layer": profile.gate_mass,
                }
                for corpus, profile in corpora.items()
            }
            for model, corpora in run.profiles.items()
        },
    }


def _model(model: ModelRecord) -> dict[str, object]:
    facts = {"stored in" if name == "dtype" else name: v for name, v in vars(model.facts).items()}
    return {
        "content": model.content,
        "source": f"{model.source.kind} {model.source.name}",
        "revision": model.revision,
        "trust_remote_code": model.trust_remote_code,
        **facts,
        "bytes as stored": None if model.size is None else size(model.size.bytes, "B"),
        "another stored form of": model.same_as,
        "computed in": model.dtype,
        "attention": model.attention,
    }


def _method(method: MethodSettings, router: RouterMode) -> dict[str, object]:
    return {
        **{kind: part.label for kind, part in method.parts.items()},
        "corpora": method.corpora,
        "candidate": method.candidate,
        "router": None if method.router == router else method.router,
        "published checkpoint": method.checkpoint,
        "its content": method.checkpoint_content,
    }


def _flat(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Nested values by path; no row for empty values."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _flat(entry, f"{path} › {key}" if path else str(key))
    elif isinstance(value, (list, tuple)) and any(isinstance(e, Mapping) for e in value):
        for index, entry in enumerate(value, 1):
            yield from _flat(entry, f"{path} › {index}")
    elif value not in (None, "", [], ()):
        yield path, _text(value)


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
