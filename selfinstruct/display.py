"""Words for people: the summary of a run, its status, tasks and rejections with syntax colours.

What a model wrote is hostile until `printable` has made it harmless for a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from selfinstruct.records import JSON, Candidate
from selfinstruct.report import Entry, Report

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FENCE = re.compile(r"^```([\w+#.-]*)[^\n]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_LEXERS = {"csharp": "csharp", "make": "makefile", "regex": "text", "text": "text"}


def printable(text: str) -> str:
    """The text with everything a terminal would obey (escapes, controls, text direction) made visible."""
    return _UNSAFE.sub(lambda found: f"<{ord(found[0]):02X}>", text.replace("\r\n", "\n"))


def duration(seconds: float) -> str:
    """Minutes and seconds, as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def goal(rows: int, target: int | None) -> str:
    """`20 of 100 rows`, or `20 rows` where no number was asked for."""
    return f"{rows} rows" if target is None else f"{rows} of {target} rows"


def counts(table: Mapping[str, int]) -> str:
    """`too_similar 3, empty_output 1`."""
    return ", ".join(f"{name} {number}" for name, number in table.items())


def status_table(report: Report) -> RenderableType:
    """The report as a table of plain facts, the reasons with an example each."""
    facts = Table.grid(padding=(0, 2))
    state = "running" if report.running else "complete" if report.complete else "not complete"
    lines: list[tuple[str, str]] = [
        ("dataset", f"{report.dataset}: {goal(report.rows, report.target)} ({state})"),
        ("run directory", report.run_directory),
        (
            "model",
            f"{report.settings.get('backend')}: {', '.join(report.models) or report.settings.get('model')}",
        ),
        ("accepted", f"{report.accepted} of {report.accepted + report.rejected} candidates"),
    ]
    if report.inputs is not None:
        lines.append(("inputs", f"{report.indices} of {report.inputs} worked through by {report.job}"))
    if report.adopted or report.deleted:
        lines.append(("by hand", f"{report.adopted} rows taken over, {report.deleted} deleted"))
    if report.verification:
        lines.append(("verification", counts(report.verification)))
    if report.tests:
        lines.append(
            ("self-tests", f"of {report.tests['candidates']} candidates; {report.tests['tokens']} tokens")
        )
    if report.repair:
        lines.append(("repair", repair_line(report)))
    if report.languages:
        lines.append(("languages", counts(report.languages)))
        lines.append(("kinds", counts(report.kinds)))
    tokens = (
        f"{report.prompt_tokens} read ({report.cached_tokens} from cache), {report.completion_tokens} written"
    )
    lines.append(("requests", f"{report.requests} answered; tokens: {tokens}"))
    if report.pending:
        lines.append(("in batches", f"{sum(report.pending.values())} requests ({', '.join(report.pending)})"))
    if report.failures:
        lines.append(("failed calls", counts(report.failures)))
    if report.cost is not None:
        lines.append(("cost", f"${report.cost:.4f}"))
    if report.timings:
        lines.append(("seconds a reply", counts_of_times(report.timings)))
    for name, value in lines:
        facts.add_row(Text(name, style="bold"), Text(printable(value)))
    if not report.reasons:
        return facts
    reasons = Table("rejected", "number", "for example", title="Rejections", title_justify="left")
    for reason, number in report.reasons.items():
        example = report.examples[reason]
        shown = printable(example["text"]).replace("\n", " ")
        evidence = _evidence(example["evidence"])
        reasons.add_row(
            Text(printable(reason)), str(number), Text(shown + (f"\n{evidence}" if evidence else ""))
        )
    return Group(facts, Text(), reasons)


def repair_line(report: Report) -> str:
    """What `--repair` brought, and for how much."""
    repair = report.repair
    gain = report.as_json()["repaired_per_1000_tokens"]
    return (
        f"{repair['accepted']} of {repair['candidates']} candidates accepted; {repair['tokens']} tokens"
        + (f", {gain:g} accepted for 1,000" if gain is not None else "")
    )


def counts_of_times(times: Mapping[str, float]) -> str:
    """`median 2.1, p90 3.4`."""
    return ", ".join(f"{name} {value:g}" for name, value in times.items())


def _evidence(evidence: Mapping[str, JSON]) -> str:
    parts = []
    for name, value in evidence.items():
        shown = f"{value:.3f}" if isinstance(value, float) else str(value)
        parts.append(printable(f"{name}: {shown}")[:180])
    return "; ".join(parts)


def task_panel(candidate: Candidate, title: str, notes: str = "") -> RenderableType:
    """One task or rejected candidate: instruction, input, output, each as what it is."""
    parts: list[RenderableType] = []
    if candidate.system:
        parts += [Text("System", style="dim"), Text(printable(candidate.system))]
    parts.append(Text(printable(candidate.instruction) or "(no instruction)", style="bold"))
    if candidate.input:
        parts += [Text("Input", style="dim"), *_body(candidate.input, candidate.language)]
    if candidate.output:
        parts += [Text("Output", style="dim"), *_body(candidate.output, candidate.language)]
    elif candidate.raw:
        parts += [Text("As it came", style="dim"), Text(printable(candidate.raw))]
    if notes:
        parts += [Text(), Text(printable(notes), style="italic")]
    return Panel(Group(*parts), title=Text(printable(title)), title_align="left")


def rejection_notes(entry: Entry) -> str:
    """The reason and its evidence in a line, with index and seeds."""
    rejection = entry.decision.rejection
    where = f"index {entry.k}; shown: {', '.join(entry.seeds)}"
    if rejection is None:
        return where
    evidence = _evidence(rejection.evidence)
    return f"{rejection.reason}{f' ({evidence})' if evidence else ''}; {where}"


def _body(text: str, language: str | None) -> list[RenderableType]:
    """Fenced parts with the colours of their language, prose as it is."""
    parts: list[RenderableType] = []
    end = 0
    for fence in _FENCE.finditer(text):
        if before := text[end : fence.start()].strip("\n"):
            parts.append(Text(printable(before)))
        parts.append(_code(fence[2], fence[1] or language))
        end = fence.end()
    if rest := text[end:].strip("\n"):
        parts.append(Text(printable(rest)) if parts or not language else _code(rest, language))
    return parts


def _code(text: str, language: str | None) -> RenderableType:
    lexer = _LEXERS.get(language or "text", language or "text")
    return Syntax(printable(text).rstrip("\n"), lexer, background_color="default", word_wrap=True)


def console(*, stderr: bool = False) -> Console:
    """A console that keeps to the terminal it finds; markup in texts is not obeyed."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=False)
