"""Self-tests: the model's own assertions about an answer, and the programs that hold the answer to them.

Makes requests, reads replies and writes programs; runs nothing. The model sees the task and the outline of the
answer, not its bodies: expected results that are read off the code would agree with any mistake in it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from selfinstruct.parsing import strip_fence
from selfinstruct.recipes import ask, is_cut, open_fence, seed_of_choice, whole
from selfinstruct.records import Candidate, Choice, Request
from selfinstruct.seams import Plan
from selfinstruct.settings import RunSettings
from selfinstruct.verify.stubs import Outline, outline, without_names
from selfinstruct.vocabulary import LANGUAGES

MOST_TOKENS = 400
TEMPERATURE = 0.2
FIRST_STEP = 100  # added to the plan's seed, away from the steps of any recipe
_STYLES = {
    "python": "Each is one line like `assert name(2) == 4`.",
    "javascript": "Each is one line like `assert.deepEqual(name(2), 4);`, with `assert` of node:assert/strict.",
    "ruby": 'Each is one line like `raise "name(2)" unless name(2) == 4`.',
    "php": 'Each is one line like `if (name(2) !== 4) { throw new Exception("name(2)"); }`.',
    "lua": "Each is one line like `assert(name(2) == 4)`.",
}
_TAG = re.compile(r"^\s*<\?(?:php)?")
# What an interpreter says of a name that nothing has; in tests that is a function the model only thought of.
_UNKNOWN = re.compile(
    r"name '(\w+)' is not defined|(\w+) is not defined|undefined (?:local variable or )?method [`'](\w+[?!]?)'"
    r"|undefined function (\w+)\(|nil value \(global '(\w+)'\)|uninitialized constant (\w+)|Class \"(\w+)\" not found"
)


@dataclass(frozen=True, slots=True)
class Trial:
    """A program that says how far it came: `begin` is printed before the tests and `end` behind them."""

    program: str
    begin: str
    end: str


def find_subject(language: str | None, text: str) -> Outline | str:
    """What there is to test in a program, or in one word why there is nothing.

    `no_tests_for_language` and `no_outline` are limits of ours, `no_function` is a property of the answer.
    """
    if language not in _STYLES:
        return "no_tests_for_language"
    found = outline(language, text)
    if found is None:
        return "no_outline"
    testable = [name for name in found.names if not name.lower().startswith("test") and name != "main"]
    return found if testable else "no_function"


def request_tests(
    settings: RunSettings, plan: Plan, number: int, candidate: Candidate, subject: Outline, language: str
) -> Request:
    """Ask for assertions about candidate `number` of an index."""
    given = f"\n\nInput:\n```\n{candidate.input}\n```" if candidate.input else ""
    shown = f"\n\nThe answer's functions:\n```{language}\n{subject.stub.strip()}\n```"
    wanted = f"\n\nWrite the assertions in {LANGUAGES[language].display}. {_STYLES[language]}"
    return ask(
        settings,
        settings.prompt("verify_tests"),
        candidate.instruction + given + shown + wanted,
        open_fence(settings, language),
        max_tokens=MOST_TOKENS,
        temperature=min(settings.temperature or 0.0, TEMPERATURE),
        seed=seed_of_choice(plan, FIRST_STEP + number),
    )


def read_tests(settings: RunSettings, language: str, choice: Choice) -> str:
    """The assertions in a reply; a last line that was cut off is left out."""
    text, _ = strip_fence(whole(choice.text, open_fence(settings, language)).strip())
    if "```" in text:  # words around the block
        text = text.partition("```")[2].partition("\n")[2].partition("```")[0]
    if is_cut(choice):
        text = text.rstrip("\n").rpartition("\n")[0]
    return _TAG.sub("", text) if language == "php" else text


def make_trials(language: str, subject: Outline, tests: str) -> tuple[Trial, Trial] | None:
    """The answer with its tests, and its stub with them; None where the tests cannot be parsed or are none."""
    own = without_names(language, tests, subject.names)
    if own is None or not own.strip():
        return None
    # Names that nobody who wrote answer or tests could know: neither may claim to have come to the end.
    name = hashlib.sha256(f"{subject.program}\0{tests}".encode("utf-8", "surrogatepass")).hexdigest()[:24]
    begin, end = f"begin-{name}", f"end-{name}"
    programs = (_assemble(language, text, own, begin, end) for text in (subject.program, subject.stub))
    first, second = (Trial(program, begin, end) for program in programs)
    return first, second


def names_nothing_known(program: str, said: str) -> str | None:
    """The name that tests failed for because the answer never spoke of it, None if they failed otherwise."""
    for found in _UNKNOWN.finditer(said):
        name: str = next(filter(None, found.groups()))
        if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", program) is None:
            return name
    return None


# What prints a mark, in two pieces: a program that prints its own text shall not print one. And at once: a
# program that ends without ceremony shall not take it along.
_SAY = {
    "python": '__import__("os").write(1, b"{}" + b"{}\\n")',
    "javascript": 'console.log("{}" + "{}");',
    "ruby": 'STDOUT.puts "{}" + "{}"; STDOUT.flush',
    "php": 'echo "{}" . "{}\\n";',
    "lua": 'io.stdout:write("{}" .. "{}\\n"):flush()',
}
_PHP_END = re.compile(r"\?>\s*$")


def _assemble(language: str, text: str, tests: str, begin: str, end: str) -> str:
    """One program of answer or stub, tests, and the two marks."""
    first, last = (_SAY[language].format(mark[:6], mark[6:]) for mark in (begin, end))
    if language == "javascript":  # the inner block may declare `assert` once more
        return (
            f'{text}\n;(async () => {{ const {{ default: assert }} = await import("node:assert/strict");\n'
            f"{first}\n{{\n{tests}\n}}\n{last}\n"
            "})().catch((error) => { console.error(error); process.exitCode = 1; });\n"
        )
    if language == "php":
        text = _PHP_END.sub("", text)
    return f"{text}\n{first}\n{tests}\n{last}\n"
