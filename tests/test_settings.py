from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from selfinstruct.errors import InputError
from selfinstruct.settings import (
    DEFAULT_LOCAL_MODEL,
    LOCAL_KINDS,
    SHAPING,
    STAGED_KINDS,
    Settings,
    make_settings,
    read_config,
)
from selfinstruct.vocabulary import KINDS

OPENAI: dict[str, Any] = {"backend": "openai", "model": "m"}


def told(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def refusal(flags: dict[str, Any], config: Path | None = None) -> str:
    with pytest.raises(InputError) as error:
        make_settings(flags, config)
    return told(error)


def toml(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            {},
            {
                "backend": "local", "model": DEFAULT_LOCAL_MODEL, "recipe": "staged", "verify": "syntax",
                "endpoint": "completions", "temperature": 0.8, "top_p": 0.95,
                "lookahead": 8, "concurrency": 4, "num": 100, "output": Path("output/code_alpaca.json"),
                "shots": 3, "machine_shots": 0, "seed": 0, "profile": "code",
            },
        ),
        (
            OPENAI,
            {
                "recipe": "code-alpaca", "verify": "syntax", "endpoint": "chat", "temperature": 1.0, "top_p": 1.0,
                "max_output_tokens": 3072, "lookahead": 2000, "concurrency": 16,
            },
        ),
        (
            {**OPENAI, "recipe": "staged"},
            {"temperature": 0.8, "top_p": 0.95, "max_output_tokens": 2048, "endpoint": "chat"},
        ),
        ({"backend": "replay", "model": "r.jsonl"}, {"recipe": "code-alpaca", "lookahead": 256, "concurrency": 1}),
        ({"recipe": "code-alpaca"}, {"temperature": 0.8, "endpoint": "completions"}),
        ({"profile": "alpaca"}, {"recipe": "code-alpaca", "verify": "off", "lookahead": 8}),
        ({"profile": "alpaca", "verify": "syntax"}, {"verify": "syntax"}),
        (
            {**OPENAI, "recipe": "self-instruct"},
            {"instances": 2, "shots": 6, "machine_shots": 2, "lookahead": 256, "temperature": 0.8},
        ),
        ({"recipe": "self-instruct", "instances": 5, "machine_shots": 0}, {"instances": 5, "machine_shots": 0}),
        ({**OPENAI, "temperature": 0.0, "lookahead": 1, "concurrency": 64}, {"temperature": 0.0, "lookahead": 1}),
        ({"only_language": ["py", "sql"]}, {"only_language": ("py", "sql")}),
        ({**OPENAI, "batch": True}, {"batch": True, "lookahead": 2000}),
        ({**OPENAI, "batch": True, "lookahead": 5}, {"lookahead": 5}),
    ],
    ids=range(13),
)  # fmt: skip
def test_what_is_not_given_follows_from_backend_and_recipe(
    flags: dict[str, Any], expected: dict[str, Any]
) -> None:
    made = make_settings(flags)
    assert {name: getattr(made, name) for name in expected} == expected
    assert None not in {
        made.recipe,
        made.verify,
        made.endpoint,
        made.temperature,
        made.lookahead,
        made.concurrency,
        made.top_p,
        made.max_output_tokens,
    }


FIX: dict[str, dict[str, float]] = {"kind": {"fix": 2.0}}
PYTHON: dict[str, dict[str, float]] = {"language": {"python": 2.0}}


@pytest.mark.parametrize(
    ("flags", "weights"),
    [
        ({}, {"kind": LOCAL_KINDS}),
        ({**OPENAI, "recipe": "staged"}, {"kind": STAGED_KINDS}),
        ({"only_language": ["go"], "only_kind": []}, {"kind": LOCAL_KINDS}),
        ({"weights": {}}, {"kind": LOCAL_KINDS}),
        ({"weights": PYTHON}, {"kind": LOCAL_KINDS, **PYTHON}),
        ({"weights": FIX}, FIX),  # a table of the user's is the whole table
        ({"weights": {**FIX, **PYTHON}}, {**FIX, **PYTHON}),
        ({"only_kind": ["review"]}, {}),
        ({"only_kind": ["review"], "weights": FIX}, FIX),
        (OPENAI, {}),
        ({"recipe": "code-alpaca"}, {}),
        ({"recipe": "code-alpaca", "weights": PYTHON}, PYTHON),
        ({"profile": "alpaca"}, {}),
    ],
)
def test_staged_asks_less_often_for_the_kinds_that_small_models_fail_at(
    flags: dict[str, Any], weights: dict[str, Any]
) -> None:
    made = make_settings(flags)
    assert made.weights == weights
    assert made.fingerprint()["weights"] == weights


def test_the_table_of_staged_lowers_kinds_that_there_are() -> None:
    assert set(STAGED_KINDS) <= set(LOCAL_KINDS) <= set(KINDS)
    assert all(0 < weight < 1 for weight in LOCAL_KINDS.values())


def test_flags_that_were_not_given_change_nothing() -> None:
    nothing: dict[str, Any] = dict.fromkeys(Settings.model_fields)
    assert make_settings({**nothing, "only_language": [], "only_kind": []}) == make_settings({})


def test_a_file_is_read_with_dashes_or_underscores_and_a_flag_wins(tmp_path: Path) -> None:
    config = toml(
        tmp_path,
        'backend = "openai"\nmodel = "m"\nmax-cost = 2.5\nmax_tokens = 5000\nonly-language = ["python", "c++"]\n'
        "temperature = 0.3\n[weights.language]\npython = 2\n[prices]\ninput = 1\noutput = 4\n",
    )
    made = make_settings({"temperature": 0.9, "max_cost": None, "only_kind": []}, config)
    assert (made.backend, made.max_cost, made.max_tokens, made.temperature) == ("openai", 2.5, 5000, 0.9)
    assert made.only_language == ("python", "c++")
    assert made.weights == {"language": {"python": 2.0}}
    assert made.prices is not None
    assert (made.prices.input, made.prices.output, made.prices.cached) == (1.0, 4.0, None)
    assert make_settings({"backend": "local"}, toml(tmp_path, 'backend = "replay"')).recipe == "staged"


def test_the_file_has_to_be_there_and_to_be_toml(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    for data, words in [
        (None, "cannot read the settings"),
        (b"num = = 3", "not a TOML file"),
        (b"\xff\xfe", "not a TOML file"),
        (b"num = " + b"[" * 100_000, "not a TOML file"),
        (b"num = 3\nnum = 4", "not a TOML file"),
    ]:
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(InputError) as error:
            read_config(path)
        assert told(error).startswith(f"{path}: {words}")
    with pytest.raises(InputError, match="cannot read the settings"):
        read_config(tmp_path)


def test_an_unknown_name_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    message = refusal({}, toml(tmp_path, 'max-token = 3\napi_key = "sk-secret"\nnum = 3\n'))
    assert "no such setting: api_key, max_token;" in message
    assert "max-tokens" in message
    assert "sk-secret" not in message


def test_every_problem_is_in_the_one_line() -> None:
    message = refusal({"num": 0, "temperature": 7, "shots": "many", "profile": "llama", "rpm": -1})
    assert message.startswith("settings: ")
    for words in ("num: ", "temperature: ", "shots: ", "profile: ", "rpm: ", "(given: 0)", "(given: 'many')"):
        assert words in message
    assert message.count("; ") == 4


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"backend": "openai"}, "model: the backend openai needs it: --model with the model's name"),
        ({"backend": "replay"}, "model: the backend replay needs it: --model with the replies file"),
        ({"backend": "claude", "model": "m"}, "backend: "),
        ({"backend": ["openai"]}, "backend: "),
        ({"recipe": ["staged"]}, "recipe: "),
        ({"profile": {}}, "profile: "),
        ({"base_url": "http://127.0.0.1:1"}, "base_url: only the backend openai has one"),
        ({**OPENAI, "base_url": "localhost:1"}, "base-url: must begin with http"),
        ({"profile": "alpaca", "recipe": "staged"}, "--recipe code-alpaca only"),
        ({**OPENAI, "profile": "alpaca", "answer": "json"}, "--recipe code-alpaca only"),
        ({"weights": {"language": {"python": -1}}}, "no weight may be negative"),
        ({"weights": {"kind": {"fix": 0}}}, "one must be above 0"),
        ({"weights": {"language": {"python": float("nan")}}}, "weights.language.python: "),
        ({"weights": {"language": {"python": float("inf")}}}, "weights.language.python: "),
        ({"weights": {"topic": {}}}, "weights.topic"),
        ({**OPENAI, "prices": {"input": float("nan"), "output": 1}}, "prices.input: "),
        ({**OPENAI, "prices": {"input": 1}}, "prices.output: "),
        ({"max_cost": float("nan")}, "max-cost: "),
        ({"max_minutes": float("inf")}, "max-minutes: "),
        ({"temperature": float("nan")}, "temperature: "),
        ({**OPENAI, "shots": 15, "machine_shots": 5}, "at most 19"),
        ({**OPENAI, "shots": 20}, "at most 19"),
        ({"output": "."}, "output: "),
        ({"output": "/"}, "output: "),
        ({"output": "data.run"}, "output: "),
        ({"no_such_name": 1}, "no-such-name: "),
        ({"batch": True}, "batch: only the backend openai has batches"),
        ({**OPENAI, "wait": True}, "wait: it waits for batches"),
        ({"heartbeat": 0}, "heartbeat: "),
        ({"heartbeat": float("inf")}, "heartbeat: "),
        ({"weights": True}, "weights: "),  # weights of staged, which has a table of its own
        ({"weights": 0}, "weights: "),
        ({"weights": "fix"}, "weights: "),
        ({"weights": {"kind": {"fix": -1}}}, "no weight may be negative"),
        ({"instances": 2}, "instances: only the recipe self-instruct has them, this is staged"),
        ({"recipe": "self-instruct", "choices": 2}, "choices: the recipe self-instruct has one answer"),
    ],
    ids=range(36),
)
def test_what_does_not_fit_together_is_refused_in_one_line(flags: dict[str, Any], words: str) -> None:
    message = refusal(flags)
    assert message.startswith("settings: ")
    assert words in message


def test_the_most_shots_that_leave_room_for_a_task() -> None:
    assert make_settings({**OPENAI, "shots": 19}).shots == 19
    assert make_settings({"recipe": "staged", "shots": 20, "machine_shots": 20}).machine_shots == 20


@pytest.mark.parametrize(
    "flags",
    [
        {**OPENAI, "base_url": "ftp://user:pa55word@host/v1"},
        {**OPENAI, "base_url": "user:pa55word@host"},
        {**OPENAI, "base_url": ["https://user:pa55word@host"]},
        {"base_url": "https://user:pa55word@host"},
        {**OPENAI, "api_key": "pa55word"},
        {**OPENAI, "headers": {"authorization": "pa55word"}},
        {**OPENAI, "prices": {"input": 1, "output": 1, "key": "pa55word"}, "base_url": "pa55word"},
    ],
)
def test_no_secret_is_repeated(flags: dict[str, Any]) -> None:
    assert "pa55word" not in refusal(flags)


@given(
    st.dictionaries(
        st.sampled_from(sorted(Settings.model_fields)) | st.from_regex("[a-z_]{1,8}", fullmatch=True),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
        | st.lists(st.text(max_size=3), max_size=2)
        | st.dictionaries(st.sampled_from(["kind", "input", "output"]), st.integers() | st.floats(), max_size=2),
        max_size=5,
    )
)  # fmt: skip
def test_anything_is_settings_or_one_line(flags: dict[str, Any]) -> None:
    try:
        made = make_settings(flags)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - any values may be settings
    else:
        assert make_settings({name: getattr(made, name) for name in Settings.model_fields}) == made


def test_the_fingerprint_has_what_the_data_depends_on_and_nothing_else() -> None:
    # Batches bring a lookahead of their own, and that one does shape the data.
    base: dict[str, Any] = {**OPENAI, "base_url": "http://127.0.0.1:1", "lookahead": 256}
    fingerprint = make_settings(base).fingerprint()
    assert set(fingerprint) == set(SHAPING) <= set(Settings.model_fields)
    assert len(SHAPING) == len(set(SHAPING))
    free: dict[str, Any] = {
        "num": 7, "output": "other.json", "seeds": "seeds", "base_url": "https://user:pw@other/v1", "concurrency": 3,
        "rpm": 1, "tpm": 1, "timeout": 1, "max_requests": 1, "max_tokens": 1, "max_cost": 1, "max_minutes": 1,
        "stall": 1, "prices": {"input": 1, "output": 1}, "log_format": "json", "batch": True, "wait": True,
        "heartbeat": 1, "metrics_file": "run.prom", "sandbox": "none",
    }  # fmt: skip
    changed = make_settings({**base, **free})
    assert changed.fingerprint() == fingerprint
    assert all(getattr(changed, name) != getattr(make_settings(base), name) for name in free)
    assert not set(free) & set(SHAPING)
    shaping: dict[str, Any] = {
        "model": "n", "recipe": "staged", "profile": "alpaca", "threshold": 0.6, "language_cap": 2,
        "verify": "off", "against": ["humaneval"], "seed": 1, "shots": 2,
        "machine_shots": 1, "temperature": 0.1, "top_p": 0.1, "max_output_tokens": 100, "choices": 2, "answer": "json",
        "endpoint": "completions", "lookahead": 3, "only_language": ["c"], "only_kind": ["fix"],
        "weights": {"kind": {"fix": 2}}, "repair": 2, "require_verification": True,
    }  # fmt: skip
    assert set(shaping) | {"backend", "instances"} == set(SHAPING)
    for name, value in shaping.items():
        assert make_settings({**base, name: value}).fingerprint()[name] != fingerprint[name]
    one, two = (make_settings({**base, "recipe": "self-instruct", "instances": n}) for n in (1, 2))
    assert one.fingerprint()["instances"] != two.fingerprint()["instances"]


def test_a_fingerprint_survives_json() -> None:
    fingerprint = make_settings({"only_language": ["c"], "weights": {"kind": {"fix": 2}}}).fingerprint()
    assert json.loads(json.dumps(fingerprint)) == fingerprint


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        make_settings({}).num = 3
