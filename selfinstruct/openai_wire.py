"""The words of the OpenAI protocol: a request as JSON, an answer as a `Reply`, a refusal as an error.

No socket and no state; the clock is looked at only for a date in `retry-after`. What is read here was
written by strangers, so every field may be missing or of the wrong kind.
"""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timezone
from typing import Any

from selfinstruct.errors import BackendError, RequestRefused, SelfInstructError, Transient
from selfinstruct.records import Choice, Reply, Request, Usage

OFFICIAL_URL = "https://api.openai.com/v1"
SCHEMA_WORDS = re.compile(r"response[_ ]format|json[_ ]schema|structured|guided|grammar")
REFUSING_WORDS = re.compile(
    r"un(supported|recogni[sz]ed|known|expected|available)|not (supported|permitted|allowed|available)"
    r"|does(n't| not) (support|accept|take)|extra (inputs|fields)|only the default|too (long|many)|invalid"
)
LENGTH_WORDS = re.compile(
    r"context[_ ](length|size|window)|maximum (context|sequence|prompt)|reduce (your|the) (prompt|length)"
    r"|(prompt|input|request) (is )?too (long|large)|too many tokens|max_(completion_)?tokens\W+is too large"
    r"|exceeds? the (available|maximum)|string_above_max_length"
)
CONTENT_WORDS = re.compile(
    r"content[_ ](filter|policy|management)|moderation|flagged|safety (system|policy)|responsible ?ai"
)
MODEL_WORDS = re.compile(
    r"model.{0,120}(not[_ ]found|not exist|not a valid model)|(unknown|no such|invalid)[_ ]model"
)
QUOTA_WORDS = re.compile(
    r"insufficient[_ ](quota|balance|credit|funds)|billing_hard_limit|billing_not_active"
)
KEY_WORDS = re.compile(r"api[_ ]?key")
LOOKS_LIKE_KEY = re.compile(r"\b(?:sk|pk|gsk|hf|xai)[-_][\w*.-]{8,}|\bBearer\s+\S+", re.IGNORECASE)

FINISH_REASONS = {  # what other servers call the reasons of OpenAI
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
}
# Fields that only help: a server that refuses one is asked without it.
DISPENSABLE = ("response_format", "json_schema", "seed", "stop")
SAMPLING = ("temperature", "top_p")


def request_body(model: str, request: Request, left_out: frozenset[str]) -> tuple[str, dict[str, Any]]:
    """The endpoint and the JSON for a request, without the fields that the server refused before."""
    body: dict[str, Any] = {"model": model}
    if request.messages:
        path = "/chat/completions"
        body["messages"] = [{"role": role, "content": content} for role, content in request.messages]
    else:
        path = "/completions"
        body["prompt"] = request.prompt or ""
    body |= {"temperature": request.temperature, "top_p": request.top_p, "max_tokens": request.max_tokens}
    if request.n != 1:
        body["n"] = request.n
    if request.stop:
        body["stop"] = list(request.stop)
    if request.seed is not None:
        body["seed"] = request.seed
    if request.schema is not None and request.messages:
        is_closed = request.schema.get("additionalProperties") is False  # OpenAI's condition for `strict`
        schema = {"name": "reply", "schema": request.schema, "strict": is_closed}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif request.schema is not None:
        body["json_schema"] = request.schema  # llama.cpp's own field: there it ignores response_format
    for field in left_out & body.keys():
        if field in SAMPLING and body[field] != 1.0:
            continue  # only the default may be left unsaid
        value = body.pop(field)
        if field == "max_tokens":
            body["max_completion_tokens"] = value
    return path, body | request.extra


# --- refusals ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no answer: `message` is fit to be shown, `words` is all of it in lower case."""

    status: int
    message: str
    words: str
    param: str = ""
    is_json: bool = True

    @classmethod
    def read(cls, status: int, content: bytes, secrets: Collection[str]) -> Refusal:
        """Read the error bodies of OpenAI, FastAPI (`detail`) and servers that send plain text."""
        try:
            data = json.loads(content)
        except (ValueError, RecursionError):
            text = content[:4096].decode("utf-8", "replace")
            is_page = "<html" in text.lower() or "<!doctype" in text.lower()
            message = clean_line("a web page" if is_page else text, secrets)
            return cls(status, message or "no reason given", message.lower(), is_json=False)
        error = data.get("error", data) if isinstance(data, dict) else data
        told: object = error
        codes: list[str] = []
        if isinstance(error, dict):
            told = error.get("message") or error.get("detail") or error.get("error") or error
            codes = [str(error.get(name) or "") for name in ("code", "type", "param")]
        if isinstance(told, list):  # FastAPI: one entry per bad field; its "input" repeats the request
            entries = [entry for entry in told if isinstance(entry, dict)]
            told = "; ".join(f"{entry.get('loc')}: {entry.get('msg')}" for entry in entries)
        text = told if isinstance(told, str) else "a reason of an unknown form"
        message = clean_line(text, secrets) or "no reason given"
        param = codes[2] if codes else ""
        return cls(status, message, " ".join([*codes, *text[:4096].split()]).lower(), param)


def refused_field(refusal: Refusal, body: Mapping[str, Any], request: Request) -> str | None:
    """The field of `body` to leave out from now on, or None when that is not what is wrong.

    A field the user set himself through `request.extra` is never left out.
    """
    words = refusal.words
    if refusal.status not in (400, 422):
        return None
    sent = [field for field in body if field not in request.extra]
    if "max_tokens" in sent and "max_completion_tokens" in words and REFUSING_WORDS.search(words):
        return None if LENGTH_WORDS.search(words) else "max_tokens"
    if LENGTH_WORDS.search(words) or CONTENT_WORDS.search(words):
        return None
    for field in DISPENSABLE + SAMPLING:
        if field not in sent or (field in SAMPLING and body[field] != 1.0):
            continue
        if refusal.param.split(".")[0] == field:
            return field
        if field in ("response_format", "json_schema"):
            if SCHEMA_WORDS.search(words):
                return field
        elif re.search(rf"\b{field}\b", words) and REFUSING_WORDS.search(words):
            return field
    return None


def error_of_status(
    refusal: Refusal, headers: Mapping[str, str], url: str, model: str, *, has_key: bool
) -> SelfInstructError:
    """The error that an HTTP status other than 200 stands for.

    Args:
        refusal: what the server said.
        headers: of its answer; names in any case if the mapping allows, else lower-case.
        url: the address to show, without login.
        model: the model that was asked for.
        has_key: whether the user gave a key.
    """
    status, told, words = refusal.status, refusal.message, refusal.words
    said = f"HTTP {status}: {told}"
    if status == 402 or QUOTA_WORDS.search(words):
        return BackendError(f"the account at {url} is out of credit ({said}); top it up, then run again")
    if status in (408, 409, 425, 429) or (status >= 500 and status not in (501, 505)):
        if status == 500 and LENGTH_WORDS.search(words):
            return RequestRefused(f"the request is too long ({said})", "context_length")
        return Transient(f"{url} answered {said}", f"http_{status}", retry_after(headers))
    if status in (400, 403, 413, 422):
        if status == 413 or LENGTH_WORDS.search(words):
            return RequestRefused(f"the request is too long ({said})", "context_length")
        if CONTENT_WORDS.search(words):
            return RequestRefused(f"the server refuses this content ({said})", "content_filter")
    if status in (401, 403) or (status == 400 and KEY_WORDS.search(words)):
        advice = "check OPENAI_API_KEY" if has_key else "set OPENAI_API_KEY"
        return BackendError(f"{url} refuses the key ({said}); {advice}")
    if status in (400, 404, 422) and MODEL_WORDS.search(words):
        return BackendError(f"{url} has no model {model!r} ({said}); check --model")
    if status < 400 or status in (404, 405, 406, 410, 415, 501, 505):
        leads = clean_line(str(headers.get("location", "")).split("?")[0].rpartition("@")[2], ())
        where = f", it leads to {leads}" if leads else ""
        return BackendError(
            f"{url} does not offer the OpenAI API here ({said}{where});"
            " check --base-url, which often ends in /v1, and that the model takes this kind of request"
        )
    for field in SAMPLING:
        if refusal.param == field or (re.search(rf"\b{field}\b", words) and REFUSING_WORDS.search(words)):
            flag = "--" + field.replace("_", "-")
            return BackendError(f"model {model!r} does not take this {field} ({said}); set {flag} 1")
    return RequestRefused(f"the server refuses the request ({said})")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds (never below 0) the server asks to wait, or None.

    They stand in `retry-after-ms`, or in `retry-after` as a number or as a date.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    at = http_date(headers.get("retry-after", ""))
    # Against the server's own clock where it tells it: ours may be wrong.
    now = http_date(headers.get("date", "")) or time.time()
    return None if at is None else max(0.0, at - now)


def http_date(text: str) -> float | None:
    """Seconds since 1970 of an HTTP date, or None if it is none."""
    try:
        at = email.utils.parsedate_to_datetime(text)
        return (at if at.tzinfo else at.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def clean_line(text: str, secrets: Collection[str]) -> str:
    """A stranger's text as one short line: no control signs, no secrets, at most 300 characters."""
    text = "".join(" " if unicodedata.category(sign)[0] in "CZ" else sign for sign in text[:8192])
    text = " ".join(text.split())
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = LOOKS_LIKE_KEY.sub("***", text)
    return text if len(text) <= 300 else text[:297] + "..."


# --- answers ----------------------------------------------------------------------------------------


def read_reply(
    content: bytes, request: Request, left_out: Collection[str], *, seconds: float, secrets: Collection[str]
) -> Reply:
    """The reply in the body of a 200 answer.

    Raises:
        Transient: of kind `bad_reply`, when the body is not what the protocol promises.
    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = None
    if data is None:
        told = Refusal.read(200, content, secrets).message
        raise Transient(
            f"the answer is not JSON ({told[:80]}); is this an OpenAI-compatible server?", "bad_reply"
        )
    found = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(found, list) or not found:
        told = Refusal.read(200, content, secrets).message
        raise Transient(f"the answer holds no choices ({told[:200]})", "bad_reply")
    usage = read_usage(data.get("usage"))
    choices = [read_choice(choice, request, left_out) for choice in found]
    untold = "length" if usage.completion >= request.max_tokens * len(choices) else "stop"
    model = data.get("model")
    return Reply(
        choices=tuple(Choice(choice.text, choice.finish_reason or untold) for choice in choices),
        usage=usage,
        model=clean_line(model, secrets) if isinstance(model, str) else "",
        seconds=seconds,
    )


def read_choice(data: Any, request: Request, left_out: Collection[str]) -> Choice:
    """One choice in the chat or the completion form; its finish reason is "" where none is told."""
    shown = data if isinstance(data, dict) else {}
    message = shown.get("message")
    text = message.get("content") if isinstance(message, dict) else shown.get("text")
    if isinstance(text, list):  # content in parts
        parts = [part.get("text") for part in text if isinstance(part, dict)]
        text = "".join(part for part in parts if isinstance(part, str))
    reason = shown.get("finish_reason")
    reason = FINISH_REASONS.get(reason, reason) if isinstance(reason, str) else ""
    has_place = isinstance(message, dict) or "text" in shown
    if not has_place or not isinstance(text, str | None) or reason == "error":
        raise Transient("a choice in the answer holds no text", "bad_reply")
    if isinstance(message, dict) and message.get("refusal") and not text:
        reason = "content_filter"
    text = (text or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if "stop" in left_out:
        ends = [at for stop in request.stop if (at := text.find(stop)) >= 0]
        if ends:
            return Choice(text[: min(ends)], "stop")
    return Choice(text, reason)


def read_usage(data: Any) -> Usage:
    """Token counts; 0 for each that is missing or no count."""

    def count(where: Any, name: str) -> int:
        value = where.get(name) if isinstance(where, dict) else None
        if not isinstance(value, int) or isinstance(value, bool):
            return 0
        return value if 0 <= value < 10**12 else 0

    prompt = count(data, "prompt_tokens")
    details = data.get("prompt_tokens_details") if isinstance(data, dict) else None
    return Usage(prompt, count(data, "completion_tokens"), min(prompt, count(details, "cached_tokens")))
