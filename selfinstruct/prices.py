"""What tokens cost: from the settings, or from the table of the package genai-prices; and the estimate of a run.

The table is the one bundled with the package: nothing is asked of the network. A model that is not in it has no
price; none is guessed. Nothing is counted here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from selfinstruct.calls import estimate_tokens
from selfinstruct.errors import InputError
from selfinstruct.http_pool import LOOPBACK
from selfinstruct.openai_wire import OFFICIAL_URL
from selfinstruct.records import Request
from selfinstruct.settings import RunSettings

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice

MILLION = 1_000_000
BYTES_PER_TOKEN = 4  # of prompts in English with code, about
# What one reply of a recipe usually takes, in tokens written; seen in trials with models of all sizes.
USUAL_REPLY = {"code-alpaca": 1800, "staged": 220, "self-instruct": 130}
USUAL_ANSWER = 250  # of a job over given data: a critique, a short program
CALLS_PER_INDEX = {"code-alpaca": 1.0, "staged": 2.5, "self-instruct": 5.0}  # with 2 instances
TEXT_PRICES = {"input_mtok", "output_mtok", "cache_read_mtok", "requests_kcount", "output_reasoning_mtok"}
# Prices of things that this project never asks for; a model with any other price is left alone.
OTHER_PRICES = (
    "cache_write", "cache_audio", "cache_image", "web_searches", "storage_searches", "audio", "image", "video",
    "document", "annotated", "citation",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tier:
    """Dollars per million tokens, for prompts longer than `above` tokens."""

    above: int
    input: float
    output: float
    cached: float


@dataclass(frozen=True, slots=True)
class Price:
    """The price of a model: `price(prompt, completion, cached)` gives dollars for token counts.

    `tiers` are in order of length, the first one above -1; `cached` counts tokens that are among `prompt`.
    """

    tiers: tuple[Tier, ...]
    request: float = 0.0  # dollars for each
    source: str = "[prices] of the settings"

    def __call__(self, prompt: int, completion: int, cached: int = 0) -> float:
        """Dollars for a request."""
        tier = next(tier for tier in reversed(self.tiers) if prompt > tier.above)
        tokens = (prompt - cached) * tier.input + cached * tier.cached + completion * tier.output
        return self.request + tokens / MILLION


def find_price(settings: RunSettings) -> Price | None:
    """The price of what the settings ask for; None where it is not known or nothing is paid.

    Raises:
        InputError: there is a limit in dollars, and no price.
    """
    if settings.backend != "openai":
        return None  # this machine's own work, or replies that were paid before
    given = settings.prices
    if given is not None:
        cached = given.input if given.cached is None else given.cached
        return Price((Tier(-1, given.input, given.output, cached),))
    price = look_up(
        settings.model or "", settings.base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL_URL
    )
    if price is None and settings.max_cost is not None:
        raise InputError(
            f"--max-cost: the price of {settings.model!r} at this server is not known; give it in the --config "
            "file: [prices] input = DOLLARS, output = DOLLARS, each for a million tokens"
        )
    return price


def look_up(model: str, url: str) -> Price | None:
    """The price of a model at a provider in the bundled table, or None.

    Args:
        model: its name as the server knows it.
        url: the server; only its host and path tell the provider, so a copy of a model elsewhere has no price.
    """
    try:
        if urlsplit(url).hostname in LOOPBACK:
            return None  # spares the reading of a large table
    except ValueError:
        return None  # no address at all: that is told when it is used
    from genai_prices import data_snapshot
    from genai_prices.types import ModelPrice

    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    try:
        provider, found = data_snapshot.get_snapshot().find_provider_model(
            model, None, None, f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
        )
    except LookupError:
        return None
    if isinstance(found.prices, ModelPrice):
        valid: list[ModelPrice] = [found.prices]
    else:
        # A price by the hour of the day changes while a run goes on: the dearest is counted.
        now = datetime.now(tz=timezone.utc)
        valid = [found.get_prices(now)]
        valid += [
            entry.prices
            for entry in found.prices
            if type(entry.constraint).__name__ == "TimeOfDateConstraint"
        ]
    tables = [_read(price) for price in valid]
    known = [table for table in tables if table is not None]
    if len(known) < len(tables):
        return None
    edges = sorted({tier.above for tiers, _ in known for tier in tiers})
    tiers = tuple(_dearest(edge, [tiers for tiers, _ in known]) for edge in edges)
    return Price(tiers, max(fee for _, fee in known), f"genai-prices: {provider.id}/{found.id}")


def _read(price: ModelPrice) -> tuple[list[Tier], float] | None:
    """(tiers, dollars for each request), or None when text is not all of what is counted."""
    told = {name: value for name, value in vars(price).items() if value is not None and name[0] != "_"}
    odd = [
        name for name in told if name not in TEXT_PRICES and not any(part in name for part in OTHER_PRICES)
    ]
    if odd or "input_mtok" not in told or "output_mtok" not in told:
        return None
    names = ["input_mtok", "output_mtok", "cache_read_mtok", "output_reasoning_mtok"]
    edges = {-1} | {step.start for name in names for step in getattr(told.get(name), "tiers", ())}

    def at(name: str, edge: int) -> float:
        value: Any = told.get(name, told["input_mtok"] if name == "cache_read_mtok" else told["output_mtok"])
        steps = [step.price for step in getattr(value, "tiers", ()) if edge >= step.start]
        return float(steps[-1] if steps else getattr(value, "base", value))

    tiers = [
        Tier(
            edge,
            at("input_mtok", edge),
            max(at("output_mtok", edge), at("output_reasoning_mtok", edge)),
            at("cache_read_mtok", edge),
        )
        for edge in sorted(edges)
    ]
    fee: Any = told.get("requests_kcount", 0)
    return tiers, float(getattr(fee, "base", fee)) / 1000


def _dearest(edge: int, tables: list[list[Tier]]) -> Tier:
    valid = [next(tier for tier in reversed(table) if edge >= tier.above) for table in tables]
    return Tier(
        edge,
        max(tier.input for tier in valid),
        max(tier.output for tier in valid),
        max(tier.cached for tier in valid),
    )


def estimate(
    settings: RunSettings, indices: float, rows: float, requests: Sequence[Request], price: Price | None
) -> Iterator[str]:
    """Lines that tell what the whole run may take.

    Args:
        settings: of the run.
        indices: how many it is expected to take.
        rows: how many it is expected to bring.
        requests: those of the first index, as far as they are known; the others are about as long.
        price: of the model, where it is known.
    """
    calls = indices * CALLS_PER_INDEX.get(getattr(settings, "recipe", ""), len(requests))
    worst = [estimate_tokens(request) for request in requests]
    most_prompt = round(sum(prompt for prompt, _ in worst) / len(worst))
    most_completion = round(sum(completion for _, completion in worst) / len(worst))
    prompt = most_prompt / BYTES_PER_TOKEN
    usual = USUAL_REPLY.get(getattr(settings, "recipe", ""), USUAL_ANSWER) * requests[-1].n
    completion = float(min(most_completion, usual))
    share = 0.5 if settings.batch else 1.0
    yield (
        f"about {calls:.0f} requests for {rows:.0f} tasks, with {round(calls * prompt)} tokens read and "
        f"{round(calls * completion)} written"
    )
    yield f"at worst {round(calls * most_prompt)} tokens read and {round(calls * most_completion)} written by these"
    if settings.verify == "tests":
        yield "not in these: a request for tests, of at most 400 tokens written, for each candidate that runs"
    if settings.repair:
        yield f"not in these: up to {settings.repair} requests for each candidate that fails its verification"
    if settings.backend != "openai":
        yield "cost: none"
    elif price is None:
        yield f"cost: not known, for the price of {settings.model!r} at this server is not; see [prices] in --config"
    else:
        likely = calls * price(round(prompt), round(completion)) * share
        dearest = calls * price(most_prompt, most_completion) * share
        batch = ", at the half price of batches" if settings.batch else ""
        yield f"cost: about ${likely:.2f}, at worst ${dearest:.2f}{batch} ({price.source})"
    yield "these are estimates from a usual run; --max-cost, --max-tokens and --max-requests are limits"
