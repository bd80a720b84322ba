"""Prompt templates: an example as the one text a model is trained on, and which parts of it are learned.

The built-in ones follow published formats to the letter, which is why their fixed texts are what they are.
Text of a row that looks like a template's own marks is found here, and refused or escaped; never rendered.
Templates in Jinja are the matter of `chat_templates`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from selfinstruct.data.rows import Example, FormError, Message, join

Control = Literal["refuse", "escape"]

# Stanford Alpaca's two forms (Taori et al. 2023); nothing stands between the last colon and the answer.
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
# LongLLaMA-Code 7B Instruct (Tworkowski et al. 2023), the settings it was published with.
LONGLLAMA_QUESTION = (
    "You are an AI assistant. User will you give you a task. "
    "Your goal is to complete the task as faithfully as you can."
)
LONGLLAMA_CHAT = (
    "A chat between a user (denoted as USER:) and an artificial intelligence assistant (denoted as ASSISTANT:). "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_OASST = {"system": "<|system|>", "user": "<|prompter|>", "assistant": "<|assistant|>"}
_ESCAPES = 100  # rounds after which escaping is given up


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the rendered text. `learn`: the loss counts here. `end`: the tokenizer's end of text goes here."""

    text: str
    learn: bool = False
    end: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """How an example becomes text.

    Attributes:
        name: as the user gives it.
        render: the pieces of an example; raises `FormError` where the template has no place for it.
        tokens: marks that may stand nowhere in a row's texts.
        labels: marks that may not begin a line of a row's texts.
        begin: whether the tokenizer's begin of text goes before it.
    """

    name: str
    render: Callable[[Example], list[Piece]]
    tokens: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    begin: bool = True
    _marks: re.Pattern[str] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tokens = [re.escape(mark) for mark in sorted(self.tokens, key=len, reverse=True)]
        labels = [f"^{re.escape(mark)}" for mark in self.labels]
        marks = re.compile("|".join([*tokens, *labels]), re.MULTILINE) if tokens or labels else None
        object.__setattr__(self, "_marks", marks)

    def find_mark(self, text: str) -> re.Match[str] | None:
        """The first of the template's marks that stands in the text."""
        return self._marks.search(text) if self._marks else None

    def guard(self, example: Example, control: Control) -> Example:
        """The example with no mark of the template in its texts.

        Args:
            example: what is to be rendered.
            control: `refuse` it if a mark stands in it; or `escape`: a blank goes before a label at the start
                of a line, and behind the first character of a token, so that both stay readable.

        Raises:
            FormError: a mark stands in it; says which and where.
        """
        if self._marks is None:
            return example
        texts = [*(message.content for message in example.messages), example.input]
        if not any(map(self._marks.search, texts)):
            return example
        if control == "refuse":
            raise FormError(_told(self, example))
        messages = tuple(Message(turn.role, self._escaped(turn.content)) for turn in example.messages)
        return replace(example, messages=messages, input=self._escaped(example.input))

    def _escaped(self, text: str) -> str:
        assert self._marks is not None  # noqa: S101 - `guard` has seen to it
        for _ in range(_ESCAPES):
            if not self._marks.search(text):
                return text
            text = self._marks.sub(self._escape, text)
        raise FormError("a control token cannot be escaped; use --control refuse")

    def _escape(self, mark: re.Match[str]) -> str:
        found = mark[0]
        return f" {found}" if found in self.labels and found not in self.tokens else f"{found[0]} {found[1:]}"


def _told(template: Template, example: Example) -> str:
    for place, message in enumerate(example.messages):
        if mark := template.find_mark(message.content):
            return _refusal(template, mark[0], f"the {message.role}'s text (turn {place})")
    mark = template.find_mark(example.input)
    return _refusal(template, mark[0] if mark else "", "the input")


def _refusal(template: Template, mark: str, where: str) -> str:
    return f"{where} holds {mark!r}, a control token of the template {template.name}; see --control"


def _turns(example: Example, template: str) -> tuple[Message, ...]:
    """The messages of a conversation in which only system, user and assistant speak, the last of them last."""
    messages = example.chat()
    if any(turn.role not in _OASST for turn in messages):
        odd = next(turn.role for turn in messages if turn.role not in _OASST)
        raise FormError(f"a turn of the role {odd!r}, for which the template {template} has no place")
    if messages[-1].role != "assistant":
        raise FormError("the assistant does not have the last word: nothing to learn")
    return messages


def _dialogue(example: Example, template: str) -> Example:
    if not example.is_dialogue:
        raise FormError(
            f"no dialogue of user and assistant, for which alone the template {template} has a place"
        )
    return example


def _document(example: Example) -> list[Piece]:
    return [Piece(example.messages[0].content, learn=True), Piece("", learn=True, end=True)]


def _alpaca(example: Example) -> list[Piece]:
    if example.is_document:
        return _document(example)
    if _dialogue(example, "alpaca").history:
        raise FormError(
            "a conversation of several turns, for which the template alpaca has no place; use alpaca-chat"
        )
    return _alpaca_pieces(example, example.instruction)


def _alpaca_pieces(example: Example, instruction: str) -> list[Piece]:
    """A system message takes the place of the opening sentences."""
    opening = example.system or (ALPACA_WITH_INPUT if example.input else ALPACA_WITHOUT_INPUT)
    given = f"### Input:\n{example.input}\n\n" if example.input else ""
    prompt = f"{opening}\n\n### Instruction:\n{instruction}\n\n{given}### Response:"
    return [Piece(prompt), Piece(example.output, learn=True), Piece("", learn=True, end=True)]


def flatten(example: Example) -> str:
    """The instruction with the history before it, each turn a line that begins with `Human:` or `Assistant:`.

    Without a history it is the instruction alone.

    Raises:
        FormError: it is no dialogue.
    """
    history = _dialogue(example, "alpaca-chat").history
    if not history:
        return example.instruction
    lines = [f"Human: {question}\nAssistant: {answer}" for question, answer in history]
    return "\n".join([*lines, f"Human: {example.instruction}"])


def _alpaca_chat(example: Example) -> list[Piece]:
    return _document(example) if example.is_document else _alpaca_pieces(example, flatten(example))


def _chatml(example: Example) -> list[Piece]:
    if example.is_document:
        return _document(example)
    pieces = []
    for turn in _turns(example, "chatml"):
        pieces += [Piece(f"<|im_start|>{turn.role}\n")]
        pieces += [Piece(f"{turn.content}<|im_end|>", learn=turn.role == "assistant"), Piece("\n")]
    return pieces


def _oasst(example: Example) -> list[Piece]:
    if example.is_document:
        return _document(example)
    pieces = []
    for turn in _turns(example, "oasst"):
        pieces += [Piece(_OASST[turn.role]), Piece(f"{turn.content}</s>", learn=turn.role == "assistant")]
    return pieces


def _longllama_qa(example: Example) -> list[Piece]:
    if example.is_document:
        return _document(example)
    if _dialogue(example, "longllama-qa").history:
        raise FormError(
            "a conversation of several turns, for which longllama-qa has no place; use longllama-chat"
        )
    question = join(example.instruction, example.input)
    prompt = f"{example.system or LONGLLAMA_QUESTION}\n\n{question}\nAnswer: "
    return [Piece(prompt), Piece(example.output, learn=True), Piece("", learn=True, end=True)]


def _longllama_chat(example: Example) -> list[Piece]:
    if example.is_document:
        return _document(example)
    turns = _turns(example, "longllama-chat")
    system = turns[0].role == "system"
    pieces = [Piece(f"{turns[0].content if system else LONGLLAMA_CHAT}\n\n")]
    for turn in turns[system:]:
        answer = turn.role == "assistant"
        if turn.role == "system":
            raise FormError("a second system message, for which the template longllama-chat has no place")
        pieces += [Piece("\nASSISTANT: " if answer else "\nUSER: "), Piece(turn.content, learn=answer)]
        pieces += [Piece("", learn=True, end=True)] if answer else []
    return pieces


_ALPACA_LABELS = ("### Instruction:", "### Input:", "### Response:")
TEMPLATES = {
    template.name: template
    for template in (
        Template("alpaca", _alpaca, labels=_ALPACA_LABELS),
        Template("alpaca-chat", _alpaca_chat, labels=(*_ALPACA_LABELS, "Human:", "Assistant:")),
        Template("chatml", _chatml, tokens=("<|im_start|>", "<|im_end|>"), begin=False),
        Template("oasst", _oasst, tokens=("</s>", *_OASST.values()), begin=False),
        Template("longllama-qa", _longllama_qa, labels=("Answer:",)),
        Template("longllama-chat", _longllama_chat, labels=("USER:", "ASSISTANT:")),
    )
}


def text_of(pieces: list[Piece]) -> str:
    """The rendered text as a trainer reads it; it adds the tokenizer's begin and end of text itself."""
    return "".join(piece.text for piece in pieces)


def split_answer(pieces: list[Piece]) -> tuple[str, str]:
    """The text before the last answer, and that answer with what is learned behind it.

    Raises:
        FormError: nothing is learned.
    """
    ends = [at for at, piece in enumerate(pieces) if piece.learn]
    if not ends:
        raise FormError("nothing to learn in it")
    last = first = ends[-1]
    while first > 0 and pieces[first - 1].learn:
        first -= 1
    return text_of(pieces[:first]), text_of(pieces[first : last + 1])


def learned(pieces: list[Piece]) -> Iterator[tuple[int, int]]:
    """The (start, end) places in the text where the loss counts."""
    at = 0
    for piece in pieces:
        if piece.learn and piece.text:
            yield at, at + len(piece.text)
        at += len(piece.text)
