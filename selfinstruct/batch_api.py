"""The files and batches endpoints of the OpenAI API: write, upload, create, look, find, fetch.

Each function asks the server once at most. Nothing here knows a run, waits or tries again; see `batch.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from selfinstruct.backend_openai import OpenAIBackend
from selfinstruct.openai_wire import request_body
from selfinstruct.records import Request

if TYPE_CHECKING:
    import openai
    from openai.types import Batch

MOST_BYTES = 200_000_000  # in one batch, by the server's rules
TAG = "selfinstruct"  # the metadata field that holds our own name for a batch
ENDED = ("completed", "failed", "expired", "cancelled")
NO_BATCHES = "does not offer batches; leave --batch out for this server"


@dataclass(frozen=True, slots=True)
class BatchState:
    """What the server says of a batch. `files` hold its answers so far, one JSON line each."""

    id: str
    status: str  # validating, in_progress, finalizing, cancelling, or one of `ENDED`
    done: int = 0  # requests
    files: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()  # of the errors that concern the batch as a whole
    message: str = ""  # the first of them

    @property
    def ended(self) -> bool:
        """Whether nothing will be added any more."""
        return self.status in ENDED


def write(
    file: IO[bytes], model: str, requests: Mapping[str, tuple[str, Request]], left_out: frozenset[str]
) -> int:
    """Write the requests, (digest, request) by key, as the server reads them; all go to the same endpoint.

    Returns:
        How many of them fit into one batch.
    """
    for count, (key, (digest, request)) in enumerate(requests.items()):
        path, body = request_body(model, request, left_out)
        line = {"custom_id": f"{key}-{digest}", "method": "POST", "url": f"/v1{path}", "body": body}
        data = json.dumps(line).encode() + b"\n"
        if count and file.tell() + len(data) > MOST_BYTES:
            return count
        file.write(data)
    file.flush()
    return len(requests)


def upload(backend: OpenAIBackend, name: str, file: IO[bytes]) -> str:
    """Send the requests of a batch; returns the file's id at the server.

    Raises:
        SelfInstructError: see `OpenAIBackend.complete`; so do all functions below.
    """
    file.seek(0)
    return backend.ask(
        lambda client: client.files.create(file=(f"{name}.jsonl", file), purpose="batch"), NO_BATCHES
    ).id


def create(backend: OpenAIBackend, name: str, file: str, endpoint: str) -> BatchState:
    """Let the server begin. After a lost connection only `find` can tell whether it has."""
    path: Any = endpoint
    return state_of(
        backend.ask(
            lambda client: client.batches.create(
                completion_window="24h", endpoint=path, input_file_id=file, metadata={TAG: name}
            ),
            NO_BATCHES,
        )
    )


def look(backend: OpenAIBackend, identity: str) -> BatchState:
    """How a batch stands."""
    missing = f"does not know the batch {identity}; was it made with another key or at another address?"
    return state_of(backend.ask(lambda client: client.batches.retrieve(identity), missing))


def find(backend: OpenAIBackend, name: str, since: float) -> BatchState | None:
    """The batch that carries our name, if the server made one after `since` (its clock, seconds of 1970)."""

    def search(client: openai.OpenAI) -> Batch | None:
        for batch in client.batches.list(limit=100):  # the newest first
            if (batch.metadata or {}).get(TAG) == name:
                return batch
            if batch.created_at < since:
                break
        return None

    found = backend.ask(search, NO_BATCHES)
    return None if found is None else state_of(found)


def fetch(backend: OpenAIBackend, file: str, take: Callable[[bytes], None]) -> None:
    """Give each line of a file to `take` as it comes in; a line that the connection cut off is left out."""

    def read(client: openai.OpenAI) -> None:
        with client.files.with_streaming_response.content(file) as answer:
            rest = b""
            for part in answer.iter_bytes():
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    take(line)
            if rest:
                take(rest)

    backend.ask(read, f"does not have the file {file} any more")


def state_of(batch: Batch) -> BatchState:
    """The client's form of a batch as ours; what a server leaves out counts as nothing."""
    errors = [error for error in (batch.errors.data if batch.errors else None) or [] if error]
    return BatchState(
        batch.id,
        batch.status,
        batch.request_counts.completed + batch.request_counts.failed if batch.request_counts else 0,
        tuple(file for file in (batch.output_file_id, batch.error_file_id) if file),
        tuple(error.code or "" for error in errors),
        (errors[0].message or errors[0].code or "") if errors else "",
    )
