"""Chat templates in Jinja, from a file or a tokenizer's folder, as one of our templates.

They run in Jinja's sandbox, without clock or files and for a bounded time (`bounded_jinja`). What is learned is
told by the template's own `{% generation %}` blocks; where it has none, by rendering the conversation up to each
answer and comparing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfinstruct.data.rows import Example, FormError
from selfinstruct.data.templates import TEMPLATES, Piece, Template
from selfinstruct.errors import InputError
from selfinstruct.records import JSON

if TYPE_CHECKING:
    from jinja2 import Template as Compiled

    from selfinstruct.data.bounded_jinja import Bounded

# What looks like a control token in a template's own texts: <|x|>, </s>, <start_of_turn>, [INST], <<SYS>>.
_MARK = re.compile(
    r"<{1,2}[|/]?[A-Za-z_][^<>\s]{0,40}>{1,2}|<[|\uff5c][^<>\s]{1,40}[|\uff5c]>|\[/?[A-Z_]{2,30}\]"
)
# Around what a `generation` block gives. Private-use characters: a row that holds them is refused.
_BEGIN, _END = "\ue0f0", "\ue0f1"
_FILES = ("tokenizer_config.json", "chat_template.jinja")


def find_template(name: str) -> Template:
    """A built-in template by its name, or a Jinja chat template from a file or a tokenizer's folder.

    Raises:
        InputError: there is none; the file cannot be read; the template is broken.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        if path.suffix == ".json":
            return _from_config(path, _read(path))
        return make_template(name, _read(path), {})
    known = ", ".join(TEMPLATES)
    raise InputError(f"{name}: no such template; known are {known}, a Jinja file, or a tokenizer's folder")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot read the template: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; convert the file") from None


def _from_folder(folder: Path) -> Template:
    config, own = (folder / name for name in _FILES)
    if own.is_file():  # the newer place, which wins
        special = _special_tokens(_config(config)) if config.is_file() else {}
        return make_template(str(folder), _read(own), special)
    if config.is_file():
        return _from_config(config, _read(config))
    raise InputError(f"{folder}: neither {_FILES[1]} nor {_FILES[0]} in this folder")


def _config(path: Path) -> dict[str, JSON]:
    try:
        config = json.loads(_read(path))
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not JSON; restore the file") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: no JSON object; restore the file")
    return config


def _from_config(path: Path, _: str) -> Template:
    config = _config(path)
    source = config.get("chat_template")
    if isinstance(source, list):  # several, by name
        named = {each.get("name"): each.get("template") for each in source if isinstance(each, dict)}
        source = named.get("default")
    if not isinstance(source, str):
        raise InputError(f"{path}: has no chat_template; name a Jinja file, or a template by its name")
    return make_template(str(path), source, _special_tokens(config))


def _special_tokens(config: dict[str, JSON]) -> dict[str, JSON]:
    """The special tokens by their names (`bos_token`, ...), and all of them under `all`."""
    found: dict[str, JSON] = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    added = config.get("added_tokens_decoder")
    more = (
        [each.get("content") for each in added.values() if each.get("special")]
        if isinstance(added, dict)
        else []
    )
    found["all"] = sorted({*found.values(), *(text for text in more if isinstance(text, str) and text)})
    return found


def make_template(name: str, source: str, special: dict[str, JSON]) -> Template:
    """A template out of Jinja text.

    Args:
        name: for messages.
        source: the text, as transformers has it (trimmed blocks, `messages`, `raise_exception`, `tojson`).
        special: the tokenizer's special tokens by name, all of them in the list `all`.

    Raises:
        InputError: the package jinja2 is missing; the text is no template.
    """
    try:
        import jinja2
        from jinja2 import meta, nodes
    except ImportError:
        raise InputError(
            "templates in Jinja need the package jinja2: pip install 'selfinstruct[data]'"
        ) from None
    environment = _environment()
    try:
        tree = environment.parse(source)
        texts = [node.data for node in tree.find_all(nodes.TemplateData)]
        texts += [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
        used = meta.find_undeclared_variables(tree)
        compiled = environment.compiled(tree)
    except jinja2.TemplateError as error:
        raise InputError(f"{name}: not a Jinja template: {error}") from None
    if "messages" not in used:
        raise InputError(f"{name}: a template that does not use `messages`")
    marks = {mark for text in texts for mark in _MARK.findall(text)} | set(special.get("all", ()))
    values = {key: value for key, value in special.items() if key != "all"}

    def render(example: Example) -> list[Piece]:
        if example.is_document:
            return [Piece(example.messages[0].content, learn=True), Piece("", learn=True, end=True)]
        return list(_pieces(compiled, example, values))

    return Template(name, render, tokens=tuple(sorted({*marks, _BEGIN, _END} - {""})), begin=False)


def _environment() -> Bounded:
    """Jinja as transformers sets it up, but with no clock."""
    from jinja2 import nodes
    from jinja2.ext import Extension

    from selfinstruct.data.bounded_jinja import Bounded

    class Generation(Extension):
        """`{% generation %}...{% endgeneration %}` around what the assistant says."""

        tags = {"generation"}  # noqa: RUF012 - jinja2's own way

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

        def _marked(self, caller: Any) -> str:
            return f"{_BEGIN}{caller()}{_END}"

    environment = Bounded(Generation)
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _refuse
    return environment


def _tojson(value: JSON, indent: int | None = None, **_: JSON) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: JSON) -> None:
    raise FormError(f"the template refuses it: {str(message)[:200]}")


def _pieces(compiled: Compiled, example: Example, values: dict[str, JSON]) -> Iterator[Piece]:
    messages = [{"role": turn.role, "content": turn.content} for turn in example.chat()]
    if messages[-1]["role"] != "assistant":
        raise FormError("the assistant does not have the last word: nothing to learn")
    whole = _render(compiled, messages, values)
    if _BEGIN in whole:
        yield from _marked(whole)
        return
    at = 0
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _render(compiled, messages[:place], values, prompt=True)
        behind = _render(compiled, messages[: place + 1], values)
        if not (whole.startswith(behind) and behind.startswith(before) and at <= len(before)):
            raise FormError(
                f"the template writes the turns before turn {place} otherwise when more follow, so what is "
                "learned cannot be told; use a template with generation blocks"
            )
        yield Piece(whole[at : len(before)])
        yield Piece(whole[len(before) : len(behind)], learn=True)
        at = len(behind)
    yield Piece(whole[at:])


def _marked(whole: str) -> Iterator[Piece]:
    rest = whole
    while rest:
        plain, _, rest = rest.partition(_BEGIN)
        yield Piece(plain)
        answer, _, rest = rest.partition(_END)
        yield Piece(answer, learn=True)


def _render(compiled: Compiled, messages: JSON, values: dict[str, JSON], *, prompt: bool = False) -> str:
    import jinja2

    from selfinstruct.data import bounded_jinja

    try:
        return bounded_jinja.render(compiled, messages=messages, add_generation_prompt=prompt, **values)
    except (jinja2.TemplateError, bounded_jinja.TooManySteps) as error:
        raise FormError(f"the template fails on it: {error}") from None
    except MemoryError:
        raise FormError("the template fails on it: it takes more memory than there is") from None
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise FormError(f"the template fails on it: {type(error).__name__}: {error}") from None
