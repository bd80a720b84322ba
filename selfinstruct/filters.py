"""The `code` profile: small rules that refuse a bad candidate, each with a name that is the reason.

They look at one candidate and at the seeds it was shown, at nothing else: likeness to other tasks is
`novelty`, whether code is valid is verification. A rule is a plain function; it returns what it found, and
`refuse` puts the rule's name on it. Doubt goes to the candidate: rules are tuned on real, mostly good data
to refuse hardly any of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, TypeAlias

from selfinstruct.parsing import no_input
from selfinstruct.records import JSON, Candidate, Rejection, Seed
from selfinstruct.repetition import loop_of

Evidence: TypeAlias = dict[str, JSON]
Filter: TypeAlias = Callable[[Candidate, Sequence[Seed]], Evidence | None]

MIN_WORDS: Final = 3
MAX_WORDS: Final = 300
MAX_INPUT: Final = 12_000  # characters
MAX_OUTPUT: Final = 16_000  # characters
EVIDENCE: Final = 200  # characters of what was found that a rejection keeps

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffd]")
# Thai, Lao, Burmese, Khmer, kana, Han: scripts that put no space between words.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_FENCE = re.compile(r"^[ ]{0,3}(?:`{3,}|~{3,})", re.MULTILINE)
_PLACEHOLDER = re.compile(
    r"<[ ]?no[ _-]?(?:input|output)[ ]?>|\[(?:insert|your)[ ][^\]\n]{0,40}\]"
    r"|\{\{?(?:instruction|input|output)\}?\}",
    re.IGNORECASE,
)
_PLACEHOLDER_MARKS = ("put>", "put >", "[insert", "[your", "{instruction", "{input", "{output")
_PROMPT = re.compile(
    r"list of 20 tasks"
    r"|<\|(?:im_start|im_end|endoftext|eot_id|begin_of_text|user|assistant|system|end)\|>|\[/?INST\]"
    r"|^\W{0,6}(?:\d{1,4}\W{1,4})?instruction(?:\W{0,3}:|\*\*)|^\#{3}[ ]response:"
    r"|\b\d{1,4}\.[ ](?:input|output|instruction):|\b\d{1,3}\.[ ]\[[^\[\]\n]{1,80},[^\[\]\n]{1,80}\][ ]\w"
    r"|about the code or data given below it",
    re.IGNORECASE | re.MULTILINE,
)
_PROMPT_MARKS = (
    "list of 20", "<|", "inst]", "instruction", "response:", "input:", "output:", ". [", "about the code",
)  # fmt: skip
_AM = r"i(?: a|['\u2019])m (?:just |only )?"
_CANNOT = (
    r"i(?: can(?:not|['\u2019]?t| not)| won['\u2019]?t| (?:do not|don['\u2019]?t)"
    r"|(?: a|['\u2019])m (?:unable|not able) to)"
)
_REFUSAL = re.compile(
    r"\W{0,3}(?:(?:as|being) an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    rf"|{_AM}(?:an? )?(?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|(?:i(?: a|['\u2019])m |i )?(?:very |really )?(?:sorry|apologi[sz]e|regret)\b[^\n]{0,60}?\b"
    rf"{_CANNOT}\b"
    rf"|(?:unfortunately,? )?{_CANNOT} (?:be able to )?(?:assist|help|provide|generate|create|complete"
    r"|fulfil|answer|write|access|see|view|do|have access)\w{0,3}\b)",
    re.IGNORECASE,
)
_CODE_NOUN = r"(?:code|snippet|program|script|query|pseudocode|html|css|json|xml|sql|markup|stylesheet)"
_NOUN = (
    rf"(?:{_CODE_NOUN}|function|method|class|loop|expression|statement|regex|regular expression|algorithm"
    r"|list|array|string|text|sentence|paragraph|table|data|dataset|schema|number|numbers|words?|input)"
)
_WORDS_BETWEEN = r"(?:[\w+#.-]{1,20} ){0,3}?"
_POINTS = re.compile(
    rf"\b(?:the following\b|following {_WORDS_BETWEEN}{_NOUN}\b"
    rf"|(?:given|shown|listed|provided|described|written|presented|{_NOUN}) below\b|below {_NOUN}\b"
    rf"|(?:the|this) (?:given|provided|supplied) {_WORDS_BETWEEN}{_CODE_NOUN}\b"
    rf"|you (?:are|were|have been) given an? (?:piece|block|part) of {_WORDS_BETWEEN}{_CODE_NOUN}\b)",
    re.IGNORECASE,
)
_POINTS_MARKS = ("following", "below", "given", "provided", "supplied", "this", "these")
_THIS = re.compile(rf"\b(?:this|these) {_WORDS_BETWEEN}(?P<noun>{_NOUN})\b", re.IGNORECASE)
# Anything that can be what the instruction speaks of: code, quotes, numbers, something after a colon.
_CONTENT = re.compile(r"[`\n\[\]{}=;<>\"\u201c\u2018]|\d\D+\d|:\s*\S|\w\(|(?<!\w)'[^']+'")
_ELSEWHERE = re.compile(
    r"\bprevious (?:task|instruction|question|exercise|example|problem|prompt|answer|response|step)s?\b"
    r"|\b(?:task|exercise|question) (?:number )?\d{1,2} above\b|\b(?:same )?as above\b|\bmentioned earlier\b"
    r"|\battached (?:\w+ )?(?:image|file|picture|screenshot|photo|document|diagram|spreadsheet)\b"
    r"|\bsee (?:the )?attach(?:ed|ment)\b"
    r"|\bthe (?:image|picture|screenshot|photo|figure|diagram) (?:above|below|shown|attached)\b"
    r"|\bin (?:this|the following) (?:image|picture|screenshot|photo|figure)\b",
    re.IGNORECASE,
)
_ELSEWHERE_MARKS = ("previous", "above", "earlier", "attach", "in this", "in the following", "below", "shown")
_ABOVE = re.compile(rf"\b(?:the above {_NOUN}|{_NOUN} above)\b", re.IGNORECASE)
_TODO = re.compile(
    r"\btodo\b|\b(?:your|the|rest of (?:your|the)|actual) (?:code|solution|implementation|answer|logic)"
    r"(?: goes| comes| belongs)? here\b"
    r"|\b(?:code|implementation|solution|logic|answer)(?: goes| comes) here\b"
    r"|\b(?:implement|fill|complete|insert|add|write) (?:me|this|it|in|code|your \w+|the \w+)"
    r"(?: (?:function|code|method))? here\b",
    re.IGNORECASE,
)
_TODO_MARKS = ("todo", "here")
# A line that does nothing: a comment, brackets, an empty return, an import, a signature.
_NO_CODE = re.compile(
    r"(?:#|//|/\*|\*|--|;|<!--|%).*|[\s(){}\[\];,.:\u2026]*|(?:pass|return(?: none| null| 0)?);?"
    r"|(?:import|from|using|package|require|include)\b.*"
    r"|(?:(?:public|private|static|async|export|default|pub|final)\s+)*"
    r"(?:def|class|function|func|fn|void|int|interface|module|namespace|struct)\b.*"
    r"[:{)]\s*(?:pass|\.\.\.|\})?",
    re.IGNORECASE,
)


def control_characters(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    r"""NUL, escape sequences and other control characters, and U+FFFD where a character was lost.

    Such text breaks terminals and trainers, and it comes from broken decoding: `"print(1)\x00"`.
    Tabs and newlines are fine.
    """
    for name, text in candidate.row.items():
        if match := _CONTROL.search(text):
            return _found(f"U+{ord(match[0]):04X}", name)
    return None


def empty_instruction(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """Nothing is asked: the instruction has no letter and no digit, like `""` or `"**"`."""
    return None if any(map(str.isalnum, candidate.instruction)) else _found(candidate.instruction)


def instruction_too_short(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """Fewer than three words tell too little, like `Sort it`.

    In scripts without spaces two characters count as a word.
    """
    return _found(candidate.instruction) if _words(candidate.instruction) < MIN_WORDS else None


def instruction_too_long(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """More than 300 words, or 6,000 characters, are a reply that ran on or was split wrongly."""
    text = candidate.instruction
    return _found(text) if _words(text) > MAX_WORDS or len(text) > 20 * MAX_WORDS else None


def empty_output(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """A task without an answer teaches nothing; two of the 2,017 rows of Code Alpaca are like that."""
    return None if candidate.output.strip() else _found(candidate.output)


def input_too_long(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """An input over `MAX_INPUT` characters swallowed something else, or is a loop."""
    return _found(candidate.input) if len(candidate.input) > MAX_INPUT else None


def output_too_long(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """An output over `MAX_OUTPUT` characters is mostly chatter, a loop, or many tasks read as one."""
    return _found(candidate.output) if len(candidate.output) > MAX_OUTPUT else None


def placeholder_leak(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """A word that stands for something is left in the text.

    Like an input `No input`, or one that ends in `<noinput>`, or an answer `[insert code here]`.
    """
    if candidate.input.strip() and not no_input(candidate.input).strip():
        return _found(candidate.input, "input")
    for name, text in candidate.row.items():
        if _marked(text, _PLACEHOLDER_MARKS) and (match := _PLACEHOLDER.search(_unfenced(text))):
            return _found(match[0], name)
    return None


def prompt_leak(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """Pieces of the prompt's own form inside a field, like `5. Instruction: ...` or `<|im_end|>`.

    They show that two tasks were read as one. Fenced code may hold them.
    """
    for name, text in candidate.row.items():
        if _marked(text, _PROMPT_MARKS) and (match := _PROMPT.search(_unfenced(text))):
            return _found(text[match.start() : match.start() + EVIDENCE], name)
    return None


def refusal(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """The model declines: the output begins `As an AI language model, ...` or `I'm sorry, but I can't ...`.

    Code that contains such a sentence does not begin with it.
    """
    return _found(candidate.output) if _REFUSAL.match(candidate.output) else None


def seed_echo(candidate: Candidate, shots: Sequence[Seed]) -> Evidence | None:
    """The instruction or the output of an example that was shown is given back.

    Outputs under 30 characters may agree by chance: `7`, `return x`.
    """
    instruction, output = _squeezed(candidate.instruction), _squeezed(candidate.output)
    for shot in shots:
        if instruction == _squeezed_shot(shot.instruction):
            return {"seed": shot.id, "field": "instruction"}
        if len(output) >= 30 and output == _squeezed_shot(shot.output):
            return {"seed": shot.id, "field": "output"}
    return None


def input_repeated_as_output(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """The output is the input again: `Fix the bug in this code`, and the code comes back as it was.

    Under 30 characters it can be right: the sorted form of `[1, 2, 3]`.
    """
    if not candidate.input:
        return None
    same = _squeezed(candidate.input) == _squeezed(candidate.output)
    return _found(candidate.output) if same and len(_squeezed(candidate.output)) >= 30 else None


def instruction_repeated_as_input(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """The input is the instruction again, at most as a comment or several times, instead of code or data."""
    if not candidate.input:
        return None
    asked, given = _letters(candidate.instruction), _letters(candidate.input)
    return _found(candidate.input) if len(asked) >= 10 and given.startswith(asked) else None


def instruction_repeated_as_output(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """The output only says the instruction again, at most as a comment, like `# Write a loop`.

    A small model also answers by first repeating a long instruction word for word, as plain text.
    """
    asked, head = _letters(candidate.instruction), _letters(candidate.output[:40])
    if not asked.startswith(head) and not head.startswith(asked):
        return None  # nearly always; spares the reading of the whole output
    given = _letters(candidate.output)
    plain = candidate.output.lstrip()[:1].isalpha() and len(asked) >= 30
    same = given.startswith(asked) if plain else given == asked
    return _found(candidate.output) if len(asked) >= 10 and same else None


def degenerate_repetition(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """The model is caught in a loop: the same words or lines ten times in a row, or one line again and again.

    Like `the value of the value of the value of ...`. A list of zeros, closing braces, a table or a
    row of test cases with different values is no loop.
    """
    for name, text in candidate.row.items():
        if len(text) >= 120 and (loop := loop_of(text)):
            return _found(loop, name)
    return None


def missing_input(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """The instruction points at something that is not there: `What does this code print?` without input.

    It is there if the instruction holds it itself (code, quotes, numbers, something after a colon) or
    speaks of the thing before it says `this`: `Write a class ... and use this class to ...`. A colon at the
    very end points at it, too.
    """
    text = candidate.instruction
    if candidate.input.strip():
        return None
    if text.rstrip().endswith(":"):
        return _found(text.rstrip()[-EVIDENCE:])
    if not _marked(text, _POINTS_MARKS) or _CONTENT.search(text):
        return None
    if match := _POINTS.search(text):
        return _found(match[0])
    for match in _THIS.finditer(text):
        if not re.search(rf"\b{re.escape(match['noun'])}", text[: match.start()], re.IGNORECASE):
            return _found(match[0])
    return None


def unfinished_code(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """A code fence that is opened and not closed: the output ended in the middle."""
    for name, text in candidate.row.items():
        if ("```" in text or "~~~" in text) and len(_FENCE.findall(text)) % 2:
            return _found(text[-EVIDENCE:], name)
    return None


def not_self_contained(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """The instruction needs another task, an attachment or an image, like `Do the previous task in Rust`.

    `The code above` is refused only where there is no input that it could mean.
    """
    if not _marked(candidate.instruction, _ELSEWHERE_MARKS):
        return None
    match = _ELSEWHERE.search(candidate.instruction)
    if match is None and not candidate.input.strip() and not _CONTENT.search(candidate.instruction):
        match = _ABOVE.search(candidate.instruction)
    return _found(match[0]) if match else None


def unanswered(candidate: Candidate, _: Sequence[Seed]) -> Evidence | None:
    """The output is a form without an answer: `# your code here`, `pass`, `...`, or a function of only that.

    Real code with a TODO in it is kept, and so is an empty class that was asked for.
    """
    output = candidate.output.strip()
    if output.lower().rstrip(";") in {"pass", "...", "\u2026", "todo", "tbd", "n/a"}:
        return _found(output)
    if (
        _marked(output, _TODO_MARKS)
        and _TODO.search(output)
        and all(_NO_CODE.fullmatch(line.strip()) or _TODO.match(line.strip()) for line in output.split("\n"))
    ):
        return _found(output)
    return None


# What needs the instruction only, so that a recipe can ask before it pays for the rest.
INSTRUCTION_FILTERS: Final[tuple[Filter, ...]] = (
    control_characters, empty_instruction, instruction_too_short, instruction_too_long, placeholder_leak,
    prompt_leak, not_self_contained, degenerate_repetition, unfinished_code,
)  # fmt: skip
FILTERS: Final[tuple[Filter, ...]] = (
    control_characters, empty_instruction, instruction_too_short, instruction_too_long, empty_output,
    input_too_long, output_too_long, placeholder_leak, prompt_leak, refusal, unanswered, seed_echo,
    input_repeated_as_output, instruction_repeated_as_input, instruction_repeated_as_output,
    degenerate_repetition, not_self_contained, missing_input, unfinished_code,
)  # fmt: skip


def refuse(candidate: Candidate, shots: Sequence[Seed] = ()) -> Rejection | None:
    """The first rule of `FILTERS` that refuses the candidate, by its name; None if all let it pass."""
    return first_of(FILTERS, candidate, shots)


def refuse_instruction(candidate: Candidate, shots: Sequence[Seed] = ()) -> Rejection | None:
    """Like `refuse`, with the rules that need no more than the instruction."""
    return first_of(INSTRUCTION_FILTERS, candidate, shots)


def first_of(rules: Sequence[Filter], candidate: Candidate, shots: Sequence[Seed]) -> Rejection | None:
    """The first of these rules that refuses the candidate, by its name; None if all let it pass."""
    for rule in rules:
        if (evidence := rule(candidate, shots)) is not None:
            return Rejection(rule.__name__, evidence)
    return None


def _found(text: str, field: str | None = None) -> Evidence:
    return ({} if field is None else {"field": field}) | {"found": text[:EVIDENCE]}


def _words(text: str) -> int:
    if text.isascii():
        return len(text.split())
    unspaced = len(_UNSPACED.findall(text))
    return len(_UNSPACED.sub(" ", text).split()) + (unspaced + 1) // 2


def _squeezed(text: str) -> str:
    return " ".join(text.split())


_squeezed_shot = lru_cache(4096)(_squeezed)  # the same seeds are shown again and again
_lowered = lru_cache(8)(str.lower)  # several rules look at the same texts


def _marked(text: str, marks: Sequence[str]) -> bool:
    """Whether a pattern that needs one of these marks can match: a quick look before a slow one."""
    if not text.isascii():
        return True
    lowered = _lowered(text)
    for mark in marks:  # noqa: SIM110 - a generator takes twice as long, and this is asked for every text
        if mark in lowered:
            return True
    return False


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def _unfenced(text: str) -> str:
    """The text without its fenced blocks; an open fence goes to the end."""
    return "\n".join(_FENCE.split("\n" + text)[::2]) if "```" in text or "~~~" in text else text
