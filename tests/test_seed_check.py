"""Every kind of bad seed is told, all at once, and our own seeds are found good."""

import base64
import json
import random
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct import seed_check, seeds
from selfinstruct.seed_secrets import find_secrets

GOOD = {
    "id": "a",
    "language": "python",
    "kind": "write",
    "instruction": "Add two numbers",
    "output": "x = a + b",
}
AWS = "AKIA" + "2E4GHQ7JZTRW3MNB"  # in two parts, so that no scanner takes this file for a leak
LETTERS = string.ascii_letters + string.digits


def told(folder: Path, *rows: object, name: str = "mine.jsonl") -> list[str]:
    """What `check` says of these rows, the folder left out."""
    file = folder / name
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    file.write_text(text, encoding="utf-8")
    return [str(problem).replace(f"{folder}/", "") for problem in seed_check.check(file)[1]]


def test_our_own_seeds_are_good() -> None:
    count, problems = seed_check.check(seeds.bundled())
    assert problems == []
    assert count == len(seeds.load())


def test_a_good_file_has_no_problem(tmp_path: Path) -> None:
    assert told(tmp_path, GOOD, {"instruction": "Name the days of a week", "output": "Monday, ..."}) == []


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{", "mine.jsonl:2: not JSON"),
        ("[1]", "mine.jsonl:2: not an object"),
        ({"output": "x"}, "mine.jsonl:2: `instruction` is missing or empty"),
        ({"instruction": "Do", "output": " \n"}, "mine.jsonl:2: `output` is missing or empty"),
        ({"instruction": "Do", "output": 5}, "mine.jsonl:2: `output` must be text, not int"),
        ({"instruction": "Do", "instances": [], "id": "b"}, "mine.jsonl:2: `instances` must be a list"),
        ({"instruction": "Do", "output": "x", "language": "klingon"}, 'unknown language "klingon"'),
        ({"instruction": "Do", "output": "x", "kind": "sing"}, 'unknown kind "sing"'),
        ({"instruction": "Do", "output": "x", "difficulty": "epic"}, 'unknown difficulty "epic"'),
        (
            {"instruction": "Reverse a text", "output": "x", "id": "a"},
            'the id "a" is already used at mine.jsonl:1',
        ),
        (
            {"instruction": "Reverse", "output": "def f(:", "language": "py", "kind": "fix"},
            "mine.jsonl:2: the code of `output` does not parse as python: line 1",
        ),
        (
            {"instruction": "Reverse a list", "output": "So:\n```json\n{'a': 1}\n```\n"},
            "mine.jsonl:2: the code of `output` does not parse as json",
        ),
        (
            {"instruction": "Reverse a list", "output": "token = 'k3Jx9Qm2Vb7Zt5Lp8Wn4'"},
            "mine.jsonl:2: `output` seems to hold the value of `token` in line 1 (k3Jx..., 20 characters)",
        ),
    ],
)
def test_each_kind_of_problem_is_told_once(tmp_path: Path, row: object, problem: str) -> None:
    (line,) = told(tmp_path, GOOD, row)
    assert problem in line
    assert line.startswith("mine.jsonl:2: ")


def test_every_problem_is_told_at_once_in_the_order_of_the_lines(tmp_path: Path) -> None:
    bad = GOOD | {
        "language": "klingon",
        "kind": "sing",
        "output": "```python\n(\n```\nKEY AKIA2E4GHQ7JZTRW3MNB",
    }
    lines = told(tmp_path, GOOD, "{", bad, {"id": "b", "instruction": "", "output": ""}, GOOD | {"id": "c"})
    assert [line.split(":")[1] for line in lines] == ["2", *["3"] * 6, "4", "4", "5"]
    third = "\n".join(lines[1:7])
    for word in ("klingon", "sing", "already used", "too much like", "does not parse", "AWS"):
        assert word in third
    assert 'mine.jsonl:5: "c" is too much like "a" at mine.jsonl:1: ROUGE-L 1.00' in lines[-1]


def test_files_of_a_folder_keep_their_order(tmp_path: Path) -> None:
    task = "\n[[task]]\nid = '{}'\ninstruction = 'Do'\n"
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text(
            "".join(task.format(f"{name}{at}") for at in range(12)), encoding="utf-8"
        )
    (tmp_path / "topics.toml").write_text("general = ['x']", encoding="utf-8")
    places = [(Path(p.where).name, p.what) for p in seed_check.check(tmp_path)[1] if "missing" in p.what]
    lines = [f"{name}:{2 + 4 * at}" for name in ("a.toml", "b.toml") for at in range(12)]
    assert [place for place, _ in places] == lines


def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    (problem,) = seed_check.check(tmp_path / "none.toml")[1]
    assert str(problem) == f"{tmp_path / 'none.toml'}: cannot be read (No such file or directory)"
    (problem,) = seed_check.check(tmp_path)[1]
    assert "no seed tasks in it" in str(problem)


# --- twins -------------------------------------------------------------------------------------------

SORT = "Sort the invoices of a customer by due date and put unpaid ones first"
FIX = {"instruction": "Fix it", "input": "for i in x: go"}


@pytest.mark.parametrize(
    ("first", "second", "twins"),
    [
        ({}, {"instruction": SORT.replace("Sort the", "Please sort all")}, True),
        ({}, {"instruction": "Find the longest word of a poem"}, False),
        ({"language": "python"}, {"language": "java"}, False),
        ({"language": "python"}, {"language": "python"}, True),
        (FIX, FIX | {"input": "SELECT now"}, False),
        (FIX, FIX, True),
    ],
)  # fmt: skip
def test_twins_follow_the_novelty_rule(
    tmp_path: Path, first: dict[str, str], second: dict[str, str], twins: bool
) -> None:
    rows = [
        {"id": "a", "instruction": SORT, "output": "1"} | first,
        {"id": "b", "instruction": SORT, "output": "2"} | second,
    ]
    lines = told(tmp_path, *rows)
    assert len(lines) == twins
    assert all('"b" is too much like "a" at mine.jsonl:1' in line for line in lines)


def test_equal_answers_are_twins(tmp_path: Path) -> None:
    answer = " ".join(f"word{number}" for number in range(40))
    rows = [
        {"instruction": "Tell a joke", "output": answer},
        {"instruction": "Count sheep", "output": answer},
    ]
    (line,) = told(tmp_path, *rows)
    assert '"seed-2" is too much like "seed-1"' in line
    assert "in the output" in line


# --- code --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"language": "python", "kind": "configure", "output": "[tool.x]\nname = 'a b'"},
        {"language": "python", "kind": "explain", "output": "It is (not) closed: ("},
        {"language": "python", "output": "It may be prose: no kind is told"},
        {"language": "r", "kind": "write", "output": "x <- ("},
    ],
)
def test_what_may_be_no_code_is_not_parsed(tmp_path: Path, row: dict[str, str]) -> None:
    assert told(tmp_path, {"instruction": "Do this"} | row) == []


# --- secrets -----------------------------------------------------------------------------------------


def of(alphabet: str, length: int, seed: int = 7) -> str:
    return "".join(random.Random(seed).choices(alphabet, k=length))


def pem(seed: int) -> str:
    body = base64.b64encode(random.Random(seed).randbytes(240)).decode()
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    return f"-----BEGIN RSA PRIVATE KEY-----\n{lines}\n-----END RSA PRIVATE KEY-----"


REAL: list[tuple[str, Callable[[int], str]]] = [
    ("AWS", lambda seed: "AKIA" + of(string.ascii_uppercase + "234567", 16, seed)),
    ("GitHub", lambda seed: "ghp_" + of(LETTERS, 36, seed)),
    ("GitHub", lambda seed: "github_pat_" + of(LETTERS + "_", 82, seed)),
    ("GitLab", lambda seed: "glpat-" + of(LETTERS, 20, seed)),
    ("OpenAI", lambda seed: "sk-proj-" + of(LETTERS, 48, seed)),
    ("Anthropic", lambda seed: "sk-ant-api03-" + of(LETTERS, 80, seed)),
    ("Google", lambda seed: "AIza" + of(LETTERS, 35, seed)),
    ("Slack", lambda seed: "xoxb-" + of(string.digits, 12, seed) + "-" + of(LETTERS, 24, seed)),
    ("Slack", lambda seed: "hooks.slack.com/services/T0AB/B0CD/" + of(LETTERS, 24, seed)),
    ("Stripe", lambda seed: "sk_live_" + of(LETTERS, 24, seed)),
    ("Hugging Face", lambda seed: "hf_" + of(string.ascii_letters, 34, seed)),
    ("npm", lambda seed: "npm_" + of(LETTERS, 36, seed)),
    ("PyPI", lambda seed: "pypi-AgEIcHlwaS5vcmc" + of(LETTERS, 100, seed)),
    ("SendGrid", lambda seed: f"SG.{of(LETTERS, 22, seed)}.{of(LETTERS, 43, seed)}"),
    ("Twilio", lambda seed: "SK" + of("0123456789abcdef", 32, seed)),
    ("DigitalOcean", lambda seed: "dop_v1_" + of("0123456789abcdef", 64, seed)),
    ("Telegram", lambda seed: "6" + of("23456789", 9, seed) + ":AA" + of(LETTERS, 33, seed)),
    ("Azure", lambda seed: "AccountName=a;AccountKey=" + of(LETTERS, 86, seed) + "=="),
    ("web token", lambda seed: f"eyJ{of(LETTERS, 33, seed)}.eyJ{of(LETTERS, 40, seed)}.{of(LETTERS, 43, seed)}"),
    ("private key", pem),
    ("private key", lambda seed: pem(seed).replace("\n", "\\n")),
    ("value of `DB_PASSWORD`", lambda _seed: "export DB_PASSWORD=tK9#vQ2m!xR7zL4p"),
    ("value of `apiKey`", lambda _seed: '{"apiKey": "9f8a7b2c4d1e6f305a7c8b9d2e4f6a1b"}'),
    ("value of `client_secret`", lambda _seed: "client_secret: Zx8mQ4tR9wLk2VbN7cJ5"),
    ("address", lambda _seed: "postgres://app:Tz7kQm4Xw9Rb@db.internal/shop"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make"), REAL, ids=range(len(REAL)))
def test_real_looking_secrets_are_found_and_not_repeated(name: str, make: Callable[[int], str]) -> None:
    # By chance a random text may spell a stand-in word ("test"); most must be found.
    found = [(secret, find_secrets(f"first line\n  x = 1 {secret}\n")) for secret in map(make, range(20))]
    hits = [(secret, lines) for secret, lines in found if lines]
    assert len(hits) >= 18
    for secret, lines in hits:
        assert len(lines) == 1
        assert name in lines[0]
        assert "in line 2 (" in lines[0]
        assert secret not in lines[0]
        assert max(map(len, lines[0].split("(")[-1].split())) < 12


@pytest.mark.parametrize(
    "text",
    [
        "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE",
        "api_key = 'your-api-key-0123'",
        "password = 'correct-horse-battery'",
        "password: changeme123456",
        "TOKEN=${GITHUB_TOKEN_2024_A1b2}",
        "token = os.environ['SERVICE_TOKEN_V2']",
        "token = secrets.token_urlsafe(32)",
        "const token = await fetchToken2(user, 15);",
        "auth_key = sha256Digest2Hex",
        "auth_key = 'release20240715candidate'",
        "auth_key = 'a1B2a1B2a1B2a1B2a1B2'",
        "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "if text.startswith('-----BEGIN PRIVATE KEY-----'):\n    raise ValueError",
        "-----BEGIN PUBLIC KEY-----\n" + of(LETTERS, 64),
        "sha256 = '9f8a7b2c4d1e6f305a7c8b9d2e4f6a1b9f8a7b2c4d1e6f305a7c8b9d2e4f6a1b'",
        "tokens = ['a1', 'b2'] * 10_000",
        "https://example.com:8443/a1b2c3d4e5@x",
        "postgres://app:${DB_PASSWORD}@db/shop",
        "max_tokens = 1234567890123",
    ],
)
def test_stand_ins_and_code_are_no_secrets(text: str) -> None:
    assert find_secrets(text) == []


def test_a_secret_that_is_found_in_two_ways_is_told_once() -> None:
    for form in ("github_token = 'ghp_{}'", 'key = "-----BEGIN PRIVATE KEY-----\ntoken={}\n"'):
        assert len(find_secrets(form.format(of(LETTERS, 64)))) == 1
    assert len(find_secrets(f"a_token = '{of(LETTERS, 30, 1)}'; b_token = '{of(LETTERS, 30, 2)}'")) == 2


def test_a_secret_in_a_check_is_found(tmp_path: Path) -> None:
    task = "[[task]]\nid = 'a'\ninstruction = 'Do'\noutput = 'x'\ncheck = '''\n\nkey " + AWS + "'''\n"
    (line,) = told(tmp_path, task, name="a.toml")
    assert line.startswith(
        "a.toml:1: `check` seems to hold an AWS access key in line 2 (AKIA..., 20 characters);"
    )


@given(st.text(max_size=300))
def test_any_text_can_be_searched(text: str) -> None:
    assert isinstance(find_secrets(f"token = {text}"), list)
