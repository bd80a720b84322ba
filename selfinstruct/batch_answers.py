"""The answers of one batch, line by line, into the replies log. Fetches nothing and knows no other batch.

What is read here comes from a server: lines may be missing, double, broken, of unknown requests, and in any
order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from selfinstruct.backend_openai import OpenAIBackend
from selfinstruct.batch_log import Batch, Sent
from selfinstruct.errors import RequestRefused, SelfInstructError, Transient
from selfinstruct.openai_wire import read_usage
from selfinstruct.records import JSON, Reply, Usage
from selfinstruct.reply_log import ReplyLog


class Answers:
    """Takes the lines of a batch's files; the same line may come again.

    Args:
        backend: reads an answer as it reads one of its own.
        run: `stored` gets every reply and every refusal.
        batch: what was asked.
        cost: the dollars of some usage, or None where no price is known.
    """

    def __init__(
        self, backend: OpenAIBackend, run: ReplyLog, batch: Batch, cost: Callable[[Usage], float | None]
    ) -> None:
        self._backend, self._run, self._batch, self._cost = backend, run, batch, cost
        self._looked_at: set[str] = set()
        self.unknown = 0  # lines that belong to no request of this batch
        self.to_ask_anew: set[str] = set()  # keys: without a field that the server does not take
        self.failure: SelfInstructError | None = None  # of a kind that ends the run
        self.tokens = 0

    def take(self, line: bytes) -> None:
        """Keep what one line tells; a request without any line stays unanswered."""
        if not line.strip():
            return
        try:
            told = json.loads(line)
            key, _, digest = told["custom_id"].rpartition("-")
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            self.unknown += 1
            return
        sent = self._batch.requests.get(key)
        if sent is None or sent.digest != digest:
            self.unknown += 1
        elif key not in self._run.stored and key not in self._looked_at:
            self._looked_at.add(key)
            self._keep(key, sent, told)

    def _keep(self, key: str, sent: Sent, told: JSON) -> None:
        response = told.get("response")
        body = response.get("body") if isinstance(response, dict) else None
        usage = read_usage(body.get("usage") if isinstance(body, dict) else None)
        try:
            reply = self._read(key, told, response)
            if reply is None:
                self.to_ask_anew.add(key)
                return
            kept = Reply(reply.choices, reply.usage, reply.model, reply.seconds, self._cost(usage))
            self._run.stored[key] = self._run.keep_reply(key, sent.digest, kept)
            self.tokens += usage.prompt + usage.completion
        except Transient as error:
            self._run.keep_failure(key, sent.digest, error, self._cost(usage) or 0.0)
        except RequestRefused as error:
            self._run.stored[key] = self._run.keep_failure(key, sent.digest, error, 0.0)

    def _read(self, key: str, told: JSON, response: Any) -> Reply | None:
        """The reply of a line; None if it is to be asked for anew.

        Raises:
            Transient: it may come in another batch.
            RequestRefused: it will never come.
        """
        status = response.get("status_code") if isinstance(response, dict) else None
        if not isinstance(status, int):
            error = told.get("error")
            code, message = (
                (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, None)
            )
            kind = re.sub(r"\W+", "_", str(code or "bad_reply"))[:40]
            raise Transient(self._backend.clean(str(message or "no answer in the batch")), kind)
        content = json.dumps(response.get("body")).encode()
        left_out = self._batch.left_out
        try:
            return self._backend.read(self._batch.request(key), status, content, left_out)
        except (Transient, RequestRefused):
            raise
        except SelfInstructError as error:  # key, model, credit: the others of the batch are kept first
            self.failure = self.failure or error
            raise Transient(str(error), f"http_{status}") from None
