from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended
from hypothesis import given
from hypothesis import strategies as st

import selfinstruct
from selfinstruct.errors import InputError
from selfinstruct.openai_wire import OFFICIAL_URL
from selfinstruct.prices import Price, find_price, look_up
from selfinstruct.settings import Settings, make_settings

Cli = Callable[..., Ended]
OPENAI = {"backend": "openai", "model": "gpt-4o-mini"}


def made(**given: Any) -> Settings:
    return make_settings({**OPENAI, **given})


def test_a_known_model_has_the_price_of_the_table() -> None:
    from genai_prices import Usage, calc_price

    price = look_up("gpt-4o-mini", OFFICIAL_URL)
    assert price is not None
    assert price.source == "genai-prices: openai/gpt-4o-mini"
    theirs = calc_price(
        Usage(input_tokens=1000, cache_read_tokens=400, output_tokens=300),
        "gpt-4o-mini",
        provider_id="openai",
    )
    assert price(1000, 300, 400) == pytest.approx(float(theirs.total_price))


def test_every_price_of_the_table_is_read_as_the_table_counts_it() -> None:
    """All providers and models: ours is never less than theirs, and the same where it does not depend on the hour."""
    from genai_prices import Usage, calc_price, data_snapshot

    addresses = {
        "openai": OFFICIAL_URL, "deepseek": "https://api.deepseek.com/v1", "mistral": "https://api.mistral.ai/v1",
        "google": "https://generativelanguage.googleapis.com/v1beta/openai", "groq": "https://api.groq.com/openai/v1",
        "anthropic": "https://api.anthropic.com/v1", "x-ai": "https://api.x.ai/v1",
        "openrouter": "https://openrouter.ai/api/v1", "together": "https://api.together.xyz/v1",
    }  # fmt: skip
    rng = random.Random(3)
    compared = unknown = 0
    for provider in data_snapshot.get_snapshot().providers:
        url = addresses.get(provider.id)
        for model in provider.models if url else []:
            assert url is not None
            price = look_up(model.id, url)
            if price is None:
                unknown += 1
                continue
            for size in (10, 3000, 150_000, 300_000):
                prompt, completion = rng.randrange(size), rng.randrange(size)
                cached = rng.randrange(prompt + 1)
                used = Usage(input_tokens=prompt, cache_read_tokens=cached, output_tokens=completion)
                try:
                    moments = [
                        datetime.now(tz=timezone.utc) + timedelta(hours=hour) for hour in range(0, 24, 5)
                    ]
                    theirs = [
                        float(
                            calc_price(
                                used, model.id, provider_api_url=url, genai_request_timestamp=moment
                            ).total_price
                        )
                        for moment in moments[: 5 if isinstance(model.prices, list) else 1]
                    ]
                except (LookupError, ValueError):
                    continue
                ours = price(prompt, completion, cached)
                assert ours >= max(theirs) - 1e-9, model.id
                if not isinstance(model.prices, list):
                    assert ours == pytest.approx(theirs[0], abs=1e-9), model.id
                compared += 1
    assert compared > 500
    assert unknown < compared / 4


@pytest.mark.parametrize(
    ("model", "url"),
    [
        ("no-such-model", OFFICIAL_URL),
        ("ft:gpt-4o-mini:my-org::abc", OFFICIAL_URL),  # costs more than what it was made from
        ("gpt-4o-mini", "http://localhost:8000/v1"),  # another machine's model of the same name
        ("gpt-4o-mini", "https://gateway.example.org/v1"),
        ("gpt-4o-mini", "https://user:api.openai.com@gateway.example.org/v1"),
        ("whisper-1", OFFICIAL_URL),  # is not paid by the token
        ("", OFFICIAL_URL),
    ],
)
def test_no_price_is_ever_guessed(model: str, url: str) -> None:
    assert look_up(model, url) is None


def test_a_login_in_the_address_does_not_hide_the_provider() -> None:
    assert look_up("gpt-4o-mini", "https://me:secret@api.openai.com/v1") is not None


def test_prices_of_the_settings_win() -> None:
    price = find_price(made(prices={"input": 2.0, "output": 8.0, "cached": 0.5}))
    assert price is not None
    assert price(1000, 100, 400) == pytest.approx((600 * 2 + 400 * 0.5 + 100 * 8) / 1e6)
    plain = find_price(made(prices={"input": 2.0, "output": 8.0}))
    assert plain is not None
    assert plain(1000, 100, 400) == pytest.approx((1000 * 2 + 100 * 8) / 1e6)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_cached_token_never_costs_more(prompt: int, completion: int, cached: int, more: int) -> None:
    for price in (look_up("gpt-4o-mini", OFFICIAL_URL), find_price(made(prices={"input": 1, "output": 2}))):
        assert isinstance(price, Price)
        cached = min(cached, prompt)
        assert 0 <= price(prompt, completion, cached) <= price(prompt, completion) + 1e-12
        assert price(prompt, completion) <= price(prompt + more, completion + more) + 1e-12


def test_a_limit_in_dollars_without_a_price_is_an_error() -> None:
    with pytest.raises(InputError, match=r"--max-cost: the price of 'mine' .*\[prices\] input = DOLLARS"):
        find_price(made(model="mine", max_cost=1.0))
    with pytest.raises(InputError, match="not known"):
        find_price(made(base_url="http://127.0.0.1:1/v1", max_cost=1.0))
    assert find_price(made(model="mine")) is None
    assert find_price(make_settings({"backend": "local", "max_cost": 1.0})) is None
    assert find_price(make_settings({"backend": "replay", "model": "x", "max_cost": 1.0})) is None


def test_the_address_of_the_environment_tells_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_price(made()) is not None
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert find_price(made()) is None


def test_an_unknown_price_ends_the_command_with_status_2_and_no_file(cli: Cli, tmp_path: Path) -> None:
    output = tmp_path / "x.json"
    ended = cli("generate", "--backend", "openai", "--model", "mine", "--max-cost", 1, "-o", output)
    assert ended.status == 2
    assert ended.err.startswith("selfinstruct: --max-cost: the price of 'mine'")
    assert list(tmp_path.iterdir()) == []


def test_the_dry_run_tells_dollars_when_the_price_is_known(cli: Cli, tmp_path: Path) -> None:
    words = ("generate", "--dry-run", "-n", 1000, "-o", tmp_path / "x.json")
    ended = cli(*words, "--backend", "openai", "--model", "gpt-4o-mini")
    assert ended.status == 0, ended.err
    usual, worst = (
        float(part.split()[0].rstrip(",")) for part in ended.out.split("--- estimate ---")[1].split("$")[1:3]
    )
    assert 0 < usual < worst < 2
    assert "about 100 requests for 1000 tasks" in ended.out
    assert "estimates" in ended.out
    unknown = cli(*words, "--backend", "openai", "--model", "mine")
    assert "cost: not known, for the price of 'mine' at this server is not" in unknown.out
    assert "cost: none" in cli(*words).out
    assert list(tmp_path.iterdir()) == []


def test_the_table_is_read_without_a_network_and_only_when_needed() -> None:
    code = (
        "import socket, sys\n"
        "def no(*_): raise AssertionError('a connection')\n"
        "socket.socket.connect = socket.getaddrinfo = no\n"
        "from selfinstruct.prices import look_up\n"
        "assert look_up('gpt-4o-mini', 'http://127.0.0.1:1') is None and 'genai_prices' not in sys.modules\n"
        "assert look_up('gpt-4o-mini', 'https://api.openai.com/v1')(10**6, 0) > 0\n"
    )
    folder = Path(selfinstruct.__file__).parents[1]
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
