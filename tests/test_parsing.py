"""The tolerant parser: shapes it must read, nothing lost, never a crash, linear time."""

from __future__ import annotations

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.parsing import RAW_LIMIT, no_input, parse, strip_fence
from selfinstruct.records import Candidate

Triple = tuple[str, str, str]
PLAIN = (
    " Write A now\n4. Input:\n<noinput>\n4. Output:\ncode()\n"
    "###\n5. Instruction: Do B\n5. Input:\nx = 3\n5. Output:\ny = 4\n"
)
BOTH = [("Write A now", "", "code()"), ("Do B", "x = 3", "y = 4")]


def triple(candidate: Candidate) -> Triple:
    return candidate.instruction, candidate.input, candidate.output


def reason(candidate: Candidate) -> str | None:
    return None if candidate.rejection is None else candidate.rejection.reason


READ = {
    "as asked": PLAIN,
    "first label repeated": "4. Instruction:" + PLAIN,
    "first label repeated twice": "\nInstruction:\n4. Instruction:" + PLAIN,
    "numbering restarts": PLAIN.replace("5.", "1."),
    "numbering skips": PLAIN.replace("5.", "17."),
    "first number wrong": "1. Instruction:" + PLAIN.replace("4. ", "1. ").replace("5. ", "2. "),
    "no numbering": "Instruction:" + PLAIN.replace("4. ", "").replace("5. ", ""),
    "only instructions numbered": re.sub(r"\d\. (Input|Output)", r"\1", PLAIN),
    "no separators": PLAIN.replace("###\n", ""),
    "blank lines for separators": PLAIN.replace("###\n", "\n\n"),
    "rules for separators": PLAIN.replace("###\n", "\n---\n\n"),
    "separator at the end": PLAIN + "###\n",
    "next number at the end": PLAIN + "###\n6.",
    "Windows line ends": PLAIN.replace("\n", "\r\n"),
    "old Mac line ends": PLAIN.replace("\n", "\r"),
    "byte order mark": "\ufeff" + PLAIN,
    "bold": re.sub(r"(\d\. \w+:)", r"**\1**", f"4. Instruction:{PLAIN}"),
    "bold without numbers": "**Instruction:** Write A now\n**Input:** None\n**Output:**\ncode()\n\n"
    "**Instruction**: Do B\n**Input**: x = 3\n**Output**: y = 4",
    "bold around the line": "**Instruction: Write A now**\n**Input:** n/a\n"
    "**Output:** code()\n**Instruction: Do B**\n"
    "**Input:** x = 3\n**Output:** y = 4",
    "italic": "*Instruction:* Write A now\n*Input:* (none)\n*Output:* code()\n"
    "_Instruction:_ Do B\n_Input:_ x = 3\n_Output:_ y = 4",
    "bracketed": "[Instruction] Write A now\n[Input] -\n[Output]\ncode()\n"
    "[Instruction] Do B\n[Input]\nx = 3\n[Output] y = 4",
    "second label without its number": "4. Instruction:" + PLAIN.replace("5. ", ""),
    "lower case, bold": re.sub(
        r"(\d\. \w+:)", lambda label: f"**{label[1].lower()}**", f"4. Instruction:{PLAIN}"
    ),
    "headings": "## Instruction\nWrite A now\n## Input\nNo input\n## Output\ncode()\n\n"
    "## Instruction\nDo B\n## Input\nx = 3\n## Output\ny = 4",
    "task titles": "### Task 4: the first\n**Instruction:** Write A now\n"
    "**Output:** code()\n\n### Task 5: the second\n"
    "**Instruction:** Do B\n**Input:** x = 3\n**Output:** y = 4",
    "titles are the instruction": "Task 4: Write A now\nInput: None\nOutput: code()\n\n"
    "Task 5: Do B\nInput: x = 3\nOutput: y = 4",
    "task in the label": "Task 3 - Instruction: Write A now\nTask 3 - Input:\nTask 3 - Output: code()\n"
    "Task 4 - Instruction: Do B\nTask 4 - Input: x = 3\nTask 4 - Output: y = 4",
    "capitals": "INSTRUCTION: Write A now\nINPUT: NONE\nOUTPUT: code()\n"
    "INSTRUCTION: Do B\nINPUT: x = 3\nOUTPUT: y = 4",
    "Alpaca's training form": "### Instruction:\nWrite A now\n\n### Response:\ncode()\n\n"
    "### Instruction:\nDo B\n\n"
    "### Input:\nx = 3\n\n### Response:\ny = 4",
    "space before the colon": PLAIN.replace("4. Input:", "4. Input :").replace(
        "5. Output:", "**5. Output** :"
    ),
    "bullets": "- Instruction: Write A now\n- Input: none\n- Output: code()\n"
    "- Instruction: Do B\n- Input: x = 3\n- Output: y = 4",
    "chat around": "Sure, here are 2 tasks:\n\n4. Instruction:" + PLAIN + "\nLet me know if you need more!",
    "one fence around all": "```\n4. Instruction:" + PLAIN + "```",
    "a fence around each": "```text\n4. Instruction:" + PLAIN.replace("###\n", "```\n\n```text\n") + "```\n",
    "output fenced": PLAIN.replace("code()", "```python\ncode()\n```").replace("y = 4", "~~~\ny = 4\n~~~"),
    "fence on the label's line": PLAIN.replace("Output:\ncode()", "Output: ```python\ncode()\n```"),
    "item fenced, output fenced": "```\n4. Instruction:"
    + PLAIN.replace("code()", "```c\ncode()\n```")
    + "```",
    "no label for the next instruction": PLAIN.replace("5. Instruction: Do B", "5. Do B"),
    "neither label nor number": PLAIN.replace("5. Instruction: Do B", "Do B"),
    "one line": " ".join(PLAIN.split()),
    "JSON array": json.dumps([{"instruction": i, "input": n, "output": o} for i, n, o in BOTH]),
    "JSON lines": "\n".join(json.dumps({"instruction": i, "input": n, "output": o}) for i, n, o in BOTH),
    "JSON, indented": json.dumps([{"Instruction": i, "INPUT": n, "Output": o} for i, n, o in BOTH], indent=4),
    "JSON tasks": json.dumps(
        {"tasks": [{"prompt": i, "input": n or None, "response": o} for i, n, o in BOTH]}
    ),
    "JSON by name": json.dumps(
        {f"task {k}": {"question": i, "answer": o, "input": n} for k, (i, n, o) in enumerate(BOTH)}
    ),
    "JSON fenced, with chat": "Here they are:\n\n```json\n"
    + json.dumps({"tasks": [{"instruction": i, "input": n or "<noinput>", "output": o} for i, n, o in BOTH]})
    + "\n```\nI hope this helps!",
    "JSON numbered": "4. "
    + "\n5. ".join(json.dumps({"instruction": i, "input": n, "output": o}) for i, n, o in BOTH),
}


@pytest.mark.parametrize("name", READ)
def test_reads(name: str) -> None:
    found = parse(READ[name])
    assert [triple(c) for c in found] == BOTH
    assert [reason(c) for c in found] == [None, None]


INSIDE = {
    "separator in a fence": "```python\na\n###\nb\n```",
    "number in a fence": "```\na\n20. b\n20.\n```",
    "labels in a fence": "```\n4. Instruction: x\nInput: y\n## Output\n5. Instruction: z\n```\nand more",
    "labels in an indented block": "It prints:\n\n    4. Instruction: x\n    Input: y\n"
    "    ###\n    20. z\n\nand more",
    "separator in bare code": "###\n# Title\n###\na = 1",
    "20. in bare code": "a = 20.\nb = 20. * a\n20. is a float",
    "an example with plain labels": "def f(x): ...\n\nExample:\nInput: 3\nOutput: 4\n# Output: 5\n## Output\n6",
    "YAML": "input: a\noutput: b\ninstruction: c",
    "C++ scope": "Output::write();\nInput input = 3;",
    "a rule at the end": "a\n\n---",
    "a number at the end": "The sum is\n20.",
    "a banner and a heading": "###\nx = 1\n# Output\n6",
    "a pattern": "#\n##\n###",
    "JSON": '{"instruction": "x", "output": "y"}',
    "a Markdown fence in tildes": "~~~md\n```\n5. Instruction: x\n```\n~~~\nand more",
}


STYLES = {
    "numbered": "{n}. {label}:",
    "in parentheses": "({n}) {label}:",
    "plain": "{label}:",
    "bold": "**{label}:**",
    "bold and numbered": "**{n}. {label}**:",
    "headings": "## {label}",
    "numbered headings": "### {n}. {label}",
    "brackets": "[{label}]",
    "titles": "Task {n} - {label}:",
    "number behind": "{label} {n}:",
}


def written(rows: list[Triple], style: str, separator: str = "###\n", first: int = 4) -> str:
    """A reply that holds the rows, with its own first label."""
    items = []
    for n, (instruction, input_, output) in enumerate(rows, first):
        label = [STYLES[style].format(n=n, label=name) for name in ("Instruction", "Input", "Output")]
        space = "\n" if "#" in STYLES[style] else " "
        items.append(
            f"{label[0]}{space}{instruction}\n{label[1]}\n{input_ or '<noinput>'}\n{label[2]}\n{output}\n"
        )
    return separator.join(items)


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("style", STYLES)
def test_what_stands_inside_an_output_stays_there(name: str, style: str) -> None:
    found = parse(written([("Write A now", "", INSIDE[name]), BOTH[1]], style))
    inside, _ = strip_fence(INSIDE[name])
    assert [triple(c) for c in found] == [("Write A now", "", inside), BOTH[1]]


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("style", [style for style in STYLES if style != "plain"])
def test_what_stands_inside_an_input_stays_there(name: str, style: str) -> None:
    found = parse(written([("Write A now", INSIDE[name], "code()"), BOTH[1]], style))
    inside, _ = strip_fence(INSIDE[name])
    if style == "headings" and "\n## Output" in INSIDE[name] and "```" not in INSIDE[name]:
        assert len(found) == 2  # `## Output` inside and outside: nobody could tell which is the label
    else:
        assert [triple(c) for c in found] == [("Write A now", inside, "code()"), BOTH[1]]


def test_labels_in_another_style_are_content() -> None:
    for style in ("numbered", "bold", "brackets", "titles"):
        for inside in (
            "Fill in the form.\nInstruction: {x}\nInput: {y}\nResponse: {z}",
            "1. Input: a\n2. Output: b",
            "Answer: 42",
            "Output::write(3);",
        ):
            for row in (("Write A now", inside, "code()"), ("Write A now", "x", inside)):
                found = parse(written([row, BOTH[1]], style))
                assert [triple(c) for c in found] == [row, BOTH[1]], style
    (found_one,) = parse("Instruction: Do B\nInput:\nAnswer: 42\nOutput::write();\nOutput:\nx")
    assert triple(found_one) == ("Do B", "Answer: 42\nOutput::write();", "x")


def test_hopeless_json_is_tried_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A try may cost the length of the text, so their number is what keeps the time linear."""
    tries = 0
    whole = json.JSONDecoder.raw_decode

    def counted(self: json.JSONDecoder, text: str, start: int) -> object:
        nonlocal tries
        tries += 1
        return whole(self, text, start)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", counted)
    for unit in ('{"a":', '\\"{"'):
        tries = 0
        assert parse('[{"instruction": ' + unit * 100_000)
        assert tries < 20_000


WORDS = st.text(st.characters(codec="utf-8", categories=["L", "Nd"]), min_size=1, max_size=8)
LINES = st.lists(st.lists(WORDS, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=5).map("\n".join)
CODE = st.sampled_from(
    [
        "def f(x):\n    return x",
        "```python\nprint(1)\n###\n```",
        "* a\n* b",
        "SELECT 1;",
        *(text for text in INSIDE.values() if not text.endswith("---")),
    ]
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(LINES, st.just("") | LINES, LINES | CODE), min_size=1, max_size=6),
    st.sampled_from(sorted(STYLES)),
    st.sampled_from(["###\n", "\n", "\n---\n", "###\n\n"]),
    st.integers(1, 30),
)
def test_what_was_written_is_read(rows: list[Triple], style: str, separator: str, first: int) -> None:
    rows = [(f"Do {i}", n and f"x {n}", o) for i, n, o in rows]
    found = parse(written(rows, style, separator, first), first=first)
    assert [triple(c) for c in found] == [(i, n, strip_fence(o)[0]) for i, n, o in rows]
    assert parse(written(rows, style, separator, first).replace("\n", "\r\n"), first=first) == found


PIECES = st.sampled_from(
    [
        *[
            "4. Instruction:",
            "Input:",
            "**Output:**",
            "```",
            "```python",
            "~~~",
            "###",
            "20.",
            "{",
            "[",
            "}",
            "]",
            ",",
            ":",
        ],
        *[
            '"instruction":',
            '"output": "',
            "\n",
            "\n",
            "    ",
            "Task 5",
            "5. ",
            "<noinput>",
            "- ",
            "\ud800",
            "\x00",
            "word",
        ],
        *["\r\n", "Sure, here"],
    ]
)
ANYTHING = st.lists(PIECES | st.text(max_size=5) | st.text(st.characters(), max_size=5)).map("".join)


@settings(max_examples=500, deadline=None)
@given(ANYTHING | st.text(), st.sampled_from(["stop", "length", "content_filter", ""]), st.integers(0, 99))
def test_never_raises(text: str, finish_reason: str, first: int) -> None:
    found = parse(text, finish_reason, first)
    assert found
    for candidate in found:
        json.dumps([candidate.row, candidate.raw], ensure_ascii=False).encode()
        assert "\r" not in candidate.raw
        assert candidate.rejection is None or candidate.rejection.evidence["why"]
        assert reason(candidate) in {None, "unreadable", "cut_off", "empty_reply"}
    assert (not text.strip()) == (reason(found[0]) == "empty_reply") or text.strip("\ufeff\n ") == ""


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(STYLES)))
def test_loses_no_task_of_a_mangled_reply(seed: int, style: str) -> None:
    """Each field holds a word of its own; whatever lines go missing, the words that stay are handed on."""
    rng = random.Random(seed)
    rows = [(f"Explain alpha{n}", f"beta{n}", f"gamma{n}") for n in range(5)]
    lines = written(rows, style).split("\n")
    label = STYLES[style].format(n=4, label="Instruction")
    for _ in range(rng.randrange(4)):
        del lines[rng.randrange(1, len(lines))]
    for _ in range(rng.randrange(3)):
        lines.insert(rng.randrange(1, len(lines)), rng.choice(["```", "###", "", "20.", "Input:", label]))
    text = "\n".join(lines)
    kept = json.dumps([[triple(c), c.raw] for c in parse(text)])
    missing = [word for word in text.split() if word[:4] in {"alph", "beta", "gamm"} and word not in kept]
    assert not missing


UNITS = [
    *[
        "Instruction:\n",
        "4. Instruction: a\n4. Output:\n",
        "###\n",
        "```\n",
        "```a\nInstruction:\n",
        "`",
        "#",
        "{",
        '{"a":',
    ],
    *[
        '{"instruction":',
        '"instruction":',
        '\\"{"',
        " ",
        "\n",
        "Output:\n",
        "Input: x ",
        "5. a\n",
        "Task 5\n",
        "----\n",
    ],
    *["Output: ```\n", "[", "1", "###\n5. a\n"],
]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("head", ["", '[{"instruction": ', "Instruction: a\nInput: b\n", "```\n"])
def test_time_is_linear(unit: str, head: str) -> None:
    """What is quadratic in 60,000 characters would take minutes over all of these."""
    assert parse(head + unit * (60_000 // len(unit)))


def test_a_very_long_reply() -> None:
    rows = [(f"Explain number {n}", "", "word " * 100) for n in range(4000)]
    assert len(parse(written(rows, "numbered"))) == 4000
    (one,) = parse("x" * 2_000_000)
    assert reason(one) == "unreadable"
    assert len(one.raw) == RAW_LIMIT
    assert one.rejection is not None
    assert one.rejection.evidence["characters"] == 2_000_000


def test_cut_by_length_costs_the_last_candidate_only() -> None:
    for text in (PLAIN, PLAIN + "###\n6. Instruction: Wri", PLAIN + "###\n6. Wri"):
        found = parse(text, "length")
        last = found.pop()
        assert reason(last) == "cut_off"
        assert last.raw
        assert [triple(c) for c in found] == BOTH[: len(found)]
        assert len(found) >= 1
    assert [reason(c) for c in parse(PLAIN + "###\n6. Instruction: Wri")] == [None, None, "unreadable"]
    assert reason(parse("Just some words", "length")[0]) == "cut_off"


def test_cut_json() -> None:
    whole = json.dumps({"tasks": [{"instruction": i, "input": n, "output": o} for i, n, o in BOTH]})
    for end in range(len(whole)):
        found = parse(whole[:end], "length")
        good = [triple(c) for c in found if c.rejection is None]
        assert good == BOTH[: len(good)]
        assert [reason(c) for c in found[len(good) :]] in ([], ["cut_off"], ["empty_reply"])
        assert len(good) == whole[:end].count('"}')
    assert [reason(c) for c in parse(whole, "length")] == [None, None]


def test_broken_json_costs_one_task() -> None:
    bad = '{"instruction": "B "q"", "output": "y"}'
    text = f'[{{"instruction": "A", "output": "x"}}, {bad}, {{"instruction": "C", "output": "z"}}]'
    found = parse(text)
    assert [triple(c) for c in found] == [("A", "", "x"), ("", "", ""), ("C", "", "z")]
    assert reason(found[1]) == "unreadable"
    assert found[1].raw == bad


def test_json_values_that_are_no_text() -> None:
    text = (
        '{"instruction": "A", "input": [1, {"b": null}], "output": 12345678901234567890, "language": "Rust"}'
    )
    (found,) = parse(text)
    assert triple(found) == ("A", '[1, {"b": null}]', "12345678901234567890")
    assert found.language == "rust"
    assert triple(parse('{"instruction": "A", "output": "a\nb\\ud800"}')[0]) == ("A", "", "a\nb\ufffd")
    assert [reason(c) for c in parse('{"instruction": "A", "input": "b"}')] == ["unreadable"]
    assert parse('{"instruction": "A", "output": ' + "9" * 6000 + "}")[0].output == "9" * 6000


def test_json_in_a_field_is_no_reply_in_json() -> None:
    text = ' Write JSON like {"instruction": "a"}\n4. Output:\n{"instruction": "b", "output": "c"}\n'
    assert [triple(c) for c in parse(text)] == [
        ('Write JSON like {"instruction": "a"}', "", '{"instruction": "b", "output": "c"}')
    ]


def test_a_fence_that_is_never_closed_does_not_swallow_the_rest() -> None:
    for fence in ("```python", "```"):
        for other in ("y = 4", "```python\ny = 4\n```", "```\ny = 4\n```"):
            text = PLAIN.replace("code()", f"{fence}\ncode()").replace("y = 4", other)
            assert [triple(c) for c in parse(text)] == [("Write A now", "", f"{fence}\ncode()"), BOTH[1]]


def test_an_instruction_without_its_label_at_the_start_is_kept() -> None:
    found = parse(" Write A\n###\n5. Instruction: B\n5. Output:\n4")
    assert [reason(c) for c in found] == ["unreadable", None]
    assert found[0].raw.strip() == "Write A"


def test_chat_is_no_candidate() -> None:
    for chat in (
        "Sure! Here are some tasks:",
        "Thank you for the examples.",
        "## Tasks",
        "Certainly.\n\n---",
    ):
        assert [triple(c) for c in parse(f"{chat}\n\n4. Instruction:{PLAIN}")] == BOTH


def test_indentation_of_code_is_kept() -> None:
    (found,) = parse(" Write A\n4. Input:\n        x\n    y\n4. Output:\n    def f():\n        return 1\n")
    assert found.input == "    x\ny"
    assert found.output == "def f():\n    return 1"


def test_decoration_of_a_field_is_not_the_labels() -> None:
    for label in ("Output:", "[Output] ", "**Output:** ", "**Output**: ", "Output :"):
        for output in ("`a` and `b`", "**a** and **b**", "_a_", "[a]"):
            (found,) = parse(f" `x` does what?\n{label}{output}")
            assert triple(found) == ("`x` does what?", "", output)
    for label in ("[Instruction] ", "**4. Instruction:** ", "4. Instruction:", "## Instruction\n"):
        assert parse(f"{label}`x` and `y`\nOutput: 1")[0].instruction == "`x` and `y`"


def test_languages_of_fences() -> None:
    found = parse(PLAIN.replace("code()", "```Python\ncode()\n```").replace("y = 4", "```{.js}\ny\n```"))
    assert [c.language for c in found] == ["python", "js"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```py\na\n\n  b\n```", ("a\n\n  b", "py")),
        ("\n````\n```\na\n```\n````\n", ("```\na\n```", None)),
        ("~~~c++ title=x\na\n~~~", ("a", "c++")),
        ("```\n```", ("", None)),
        ("```py\na\n```\nmore", None),
        ("```py\na\n```\n```py\nb\n```", None),
        ("```py\na", None),
        ("```", None),
        ("``` a ```", None),
        ("a", None),
        ("", None),
    ],
)
def test_strip_fence(text: str, expected: tuple[str, str | None] | None) -> None:
    assert strip_fence(text) == (expected or (text, None))


NONE = [
    *[
        "<noinput>",
        "< noinput >",
        "<NoInput>",
        "<no input>",
        "No input",
        "no input.",
        "No Input Required",
        "<noinput/>",
    ],
    *[
        "(No input needed)",
        "N/A",
        "n/a",
        "NA",
        "None",
        "none.",
        "(none)",
        "[None]",
        "`None`",
        "*None*",
        "-",
        "\u2014",
        "",
    ],
    *[" \n", "<empty>", "(empty)", "No input is provided for this task.", "Not applicable", "no_input"],
]
REAL = [
    *[
        "[]",
        '""',
        "0",
        "null",
        "{}",
        "()",
        "nil",
        "empty",
        "None of the above",
        "Nonesuch",
        "-1",
        "no",
        "None, None",
        "n",
    ],
    *["<input>x", "input", "x = None", "No input validation is done here", "'None'", "<br>", "[[]]", "nan"],
]


@pytest.mark.parametrize("text", NONE)
def test_no_input(text: str) -> None:
    assert no_input(text) == ""
    assert parse(PLAIN.replace("<noinput>", text))[0].input == ""


@pytest.mark.parametrize("text", REAL)
def test_a_real_input_stays(text: str) -> None:
    assert no_input(text) == text
    assert parse(PLAIN.replace("<noinput>", text))[0].input == text
