"""Each rule of the `code` profile: what it refuses, what it must let pass, and how it fares on real data."""

from __future__ import annotations

import inspect
from collections import Counter
from pathlib import Path

import pytest
from alpaca_oracle import real_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct import filters, seeds
from selfinstruct.records import Candidate, Seed

GOOD = Candidate("Write a Python function that doubles a number.", "", "def double(x):\n    return 2 * x")
SEED = Seed(
    "double", "Write a  function to add numbers.", "", "def add(a, b):\n    total = a + b\n    return total"
)
LOOPS = {
    "a word": "data " * 60,
    "a phrase": "and the value of the variable is " * 12,
    "a path": "std::list::tail::" * 20,
    "a path with variations": "::".join(
        f"List::{'Tail' if n * n % 7 < 3 else 'Lists::Fli'}" for n in range(120)
    ),
    "lines in turn": "x = next_value(x)\nif x is None: break\n" * 15,
    "a line again and again": "\n".join(
        f"{n % 7}\n" + "print('the same line again')\n" * 2 for n in range(40)
    ),
}
NO_LOOPS = {
    "zeros": "arr = [" + ", ".join(["0"] * 200) + "]",
    "a matrix": "\n".join(["0 0 0 0 0 0 0 0 0 0"] * 10),
    "a table": "| a | b |\n| --- | --- |\n" + "\n".join(f"| row {n} | {n * n} |" for n in range(60)),
    "CSS": "\n".join(f".c{n} {{\n  color: red;\n  margin: {n}px;\n}}" for n in range(40)),
    "CSS with a common line": "\n".join(
        f".c{n} {{\n  border: 1px solid black;\n  margin: {n}px;\n}}" for n in range(40)
    ),
    "flags in a row": "grid = [[" + ", ".join(["true"] * 11) + "], " + ", ".join(map(str, range(40))) + "]",
    "test cases": "\n".join(f"assert double({n}) == {2 * n}" for n in range(60)),
    "HTML": "<tr>\n" + "  <td></td>\n" * 40 + "</tr>",
    "bits": "\n".join(" ".join(str(n * m % 2) for m in range(20)) for n in range(20)),
    "many test cases": "\n".join(f"assert is_even({n % 90}) is True" for n in range(120)),
    "braces": "}\n" * 60,
    "a chain": "".join(f"elif n == {n}:\n    return '{n}th value'\n" for n in range(40)),
}

REFUSED: dict[str, list[Candidate]] = {}
KEPT: dict[str, list[Candidate]] = {}


def case(rule: str, kept: bool = False, *, instruction: str = "", input_: str = "", output: str = "") -> None:
    candidate = Candidate(instruction or GOOD.instruction, input_, output or GOOD.output)
    (KEPT if kept else REFUSED).setdefault(rule, []).append(candidate)


for text in ("a\x00b", "\x1b[31mred", "a\x07", "a\x0bb", "lost \ufffd", "\x85", "\x7f"):
    case("control_characters", output=text)
    case("control_characters", instruction="Print this text: " + text)
    case("control_characters", input_="ab" + text)
case("control_characters", kept=True, output="a\tb\n\u00e9 \U0001f600 \u202f \u200d")
REFUSED["empty_instruction"] = [Candidate(t, "", "x") for t in ("", " \n", "**", "...")]
for text in ("Sort it", "Sort", "\u6392\u5e8f"):
    case("instruction_too_short", instruction=text)
for text in (
    "Sort the list",
    "\u53cd\u8f6c\u5b57\u7b26\u4e32",
    "\u5199\u4e00\u4e2aPython\u51fd\u6570",
    "Was ist REST?",
):
    case("instruction_too_short", kept=True, instruction=text)
case("instruction_too_long", instruction="word " * 301)
case("instruction_too_long", instruction="Print the word: " + "x" * 7000)
case("instruction_too_long", instruction="\u5199\u4e00" * 301)
case("instruction_too_long", kept=True, instruction=" ".join(f"word{n}" for n in range(300)))
REFUSED["empty_output"] = [Candidate(GOOD.instruction, "", t) for t in ("", " \n\t", "\u00a0")]
case("input_too_long", input_=" ".join(map(str, range(5000))))
case("output_too_long", output="\n".join(f"line {n} of many" for n in range(2000)))
for text in ("No input", "<noinput>", "x: int\n\n<noinput>", "N/A", "< noinput >"):
    case("placeholder_leak", input_=text)
for text in ("[insert code here]", "[Your answer]", "{output}", "<nooutput>"):
    case("placeholder_leak", output=text)
for text in ("[]", "null", "0", "<input type='text'>"):
    case("placeholder_leak", kept=True, input_=text)
case("placeholder_leak", kept=True, output="```python\nif text == '<noinput>': pass\n```")
for text in (
    "x = 1\n5. Instruction: Write B\n5. Input: y",
    "a\n\nInstruction: Write B",
    "**Instruction:** B",
    "a 5. Output: b",
):
    case("prompt_leak", output=text)
for text in (
    "How do strings work? 5. [YAML, review, keys] What is a key?",
    "Explain it, about the code or data given below it",
):
    case("prompt_leak", instruction=text)
for text in ("List of 20 tasks:\nDo B", "Do this thing. 5. Input: x", "Do this thing<|im_end|>"):
    case("prompt_leak", instruction=text)
for text in (
    "print(x)\n# Output:\n# 3",
    "## Output\n3",
    "Input: 3\nOutput: 4",
    "Follow the instructions: press a key.",
):
    case("prompt_leak", kept=True, output=text)
case("prompt_leak", kept=True, output="```\n5. Instruction: Write B\n```")
for text in (
    "As an AI language model, I cannot run code.",
    "I'm sorry, but I can't help with that.",
    "I\u2019m sorry, but as the task is unclear I cannot answer.",
    "Sorry, I am unable to see the image.",
    "I am an AI and have no access to files.",
    "Unfortunately, I cannot provide that.",
    "I don't have access to your files.",
    "I apologize, but I am not able to do that.",
):
    case("refusal", output=text)
for text in (
    'print("As an AI language model, I cannot")',
    "# I'm sorry Dave\nraise SystemExit",
    "Sorry, no results were found.",
    "I would use a dictionary here.",
    "Unfortunately, the loop never ends: `i` is not changed.",
    "It prints: I'm sorry, I can't do that.",
    "I do not think that the index helps.",
):
    case("refusal", kept=True, output=text)
for text in (
    "# your code here",
    "pass",
    "...",
    "TODO",
    "// TODO: implement",
    "def f(x):\n    # your code here\n    pass",
    "function f(x) {\n  // Add your code here\n}",
    "import os\n\ndef main():\n    # Write your code here\n    return None",
    "public static int f(int x) {\n    // implementation goes here\n    return 0;\n}",
):
    case("unanswered", output=text)
for text in (
    "class Foo:\n    pass",
    "def f(x):\n    # TODO: faster\n    return sorted(x)",
    '<input placeholder="Your code here">',
    "todo = [1, 2]\nprint(todo)",
    "The `pass` statement does nothing.",
    "It prints ...",
    "A TODO comment marks what is left to do.",
):
    case("unanswered", kept=True, output=text)
case("seed_echo", instruction="Write a function to  add numbers.")
case("seed_echo", output="def add(a, b):\n  total = a + b\n  return total\n")
case("seed_echo", kept=True, output="def add(a, b):\n    return a + b")
case("seed_echo", kept=True, output="return a + b")
case(
    "input_repeated_as_output",
    input_="for i in range(10):\n    print(i, i * i)",
    output="for i in range(10):\n  print(i, i * i)",
)
case("input_repeated_as_output", kept=True, input_="[1, 2, 3]", output="[1, 2, 3]")
case("instruction_repeated_as_output", output="# Write a Python function that doubles a number")
case("instruction_repeated_as_output", output="write a python function that doubles a number")
case("instruction_repeated_as_output", output=GOOD.instruction + "\n\nThis is done with a function.")
case(
    "instruction_repeated_as_output",
    kept=True,
    output="# " + GOOD.instruction + "\ndef f(x):\n    return 2 * x",
)
case("instruction_repeated_as_input", input_="# Write a Python function that doubles a number.\n" * 3)
case("instruction_repeated_as_input", kept=True, input_="# Write a function that doubles a number.")
case(
    "instruction_repeated_as_output", kept=True, output="A Python function that doubles a number:\nf = lambda"
)
for text in LOOPS.values():
    case("degenerate_repetition", output=text)
    case("degenerate_repetition", input_="x\n" + text)
for text in NO_LOOPS.values():
    case("degenerate_repetition", kept=True, output=text)
for text in (
    "As above, but in Rust.",
    "Do the previous task in Rust.",
    "Describe the attached image in words.",
    "Use the function from the previous exercise.",
    "What does the code above print?",
    "Explain the above function in words.",
    "What is wrong in the screenshot shown?",
):
    case("not_self_contained", instruction=text)
for text in (
    "Print the previous element of a linked list.",
    "Crop an image to its upper half.",
    "Keep values above 10.",
    "Attach a file to a mail in Python.",
    "What does `a[1]` in the code above print?",
):
    case("not_self_contained", kept=True, instruction=text)
case("not_self_contained", kept=True, instruction="What does the code above print?", input_="print(1)")
for text in (
    "Fix the bug in the following code.",
    "What does this code print?",
    "Optimize this SQL query.",
    "Explain the code below.",
    "Refactor the given code.",
    "Sort the list given below.",
    "Which of the following is faster?",
    "Modify the following loop to run 3 times.",
    "What does this Python snippet do?",
    "You have been given a piece of Python code that checks a status. Write a function that returns it.",
    "Write a function that turns JSON into objects. For example, given the string `x`:",
):
    case("missing_input", instruction=text)
for text in (
    "Write a function that reverses a given string.",
    "Create a class with the following fields: name and age.",
    "What does this code print? `print(1)`",
    "Convert the following numbers to binary 3, 5 and 12.",
    "Write a Python class for a stack and use this class to reverse a word.",
    "Keep all the values below 10.",
    "Explain how this differs: a list and a tuple.",
    "Fix the following code\nprint(1",
    "Is 'level' in the following list",
    "Find the average of the given array.",
    "Write a query that follows a link.",
    "Write a function that, given a piece of code, counts its lines.",
):
    case("missing_input", kept=True, instruction=text)
case("missing_input", kept=True, instruction="Fix the bug in the following code.", input_="print(1")
case("missing_input", kept=True, instruction="Give the type of this value:", input_="print(1")
case("unfinished_code", output="Like this:\n```python\nprint(1)")
case("unfinished_code", kept=True, output="Like this:\n```python\nprint(1)\n```\nor\n~~~\nx\n~~~")


@pytest.mark.parametrize("rule", filters.FILTERS, ids=lambda rule: rule.__name__)
def test_each_rule_refuses_its_cases_by_its_name(rule: filters.Filter) -> None:
    for candidate in REFUSED[rule.__name__]:
        assert rule(candidate, [SEED]) is not None, candidate
        rejection = filters.refuse(candidate, [SEED])
        assert rejection is not None
        assert rejection.reason == rule.__name__, candidate
        assert 0 < len(rejection.evidence) <= 2
        assert all(len(value) <= filters.EVIDENCE for value in rejection.evidence.values())


@pytest.mark.parametrize("rule", list(KEPT))
def test_each_rule_lets_its_neighbours_pass(rule: str) -> None:
    for candidate in KEPT[rule]:
        assert getattr(filters, rule)(candidate, [SEED]) is None, candidate


def test_every_rule_has_both_kinds_of_cases_and_says_what_it_does() -> None:
    names = [rule.__name__ for rule in filters.FILTERS]
    assert len(set(names)) == len(names)
    assert set(names) == set(REFUSED)
    assert set(names) - set(KEPT) == {
        "empty_instruction",
        "empty_output",
        "input_too_long",
        "output_too_long",
    }
    assert all(len(inspect.getdoc(rule) or "") > 60 for rule in filters.FILTERS)
    assert filters.refuse(GOOD, [SEED]) is None


def test_short_outputs_of_seeds_may_come_again() -> None:
    assert filters.seed_echo(GOOD, [Seed("a", "Another one.", "", GOOD.output[:25])]) is None
    short = Candidate(GOOD.instruction, "", "return 7")
    assert filters.refuse(short, [SEED, Seed("a", "Another one.", "", "return 7")]) is None
    assert filters.seed_echo(short, [SEED, Seed("a", GOOD.instruction, "", "")]) == {
        "seed": "a",
        "field": "instruction",
    }


def test_instruction_alone() -> None:
    assert set(filters.INSTRUCTION_FILTERS) < set(filters.FILTERS)
    for candidate in (GOOD, Candidate("Fix the bug in the following code.")):
        assert filters.refuse_instruction(Candidate(candidate.instruction)) is None
    rejection = filters.refuse_instruction(Candidate("As above, but in Rust."))
    assert rejection is not None
    assert rejection.reason == "not_self_contained"


@settings(max_examples=150, deadline=None)
@given(st.text(), st.text(), st.text() | st.sampled_from(list(LOOPS.values())))
def test_never_raises(instruction: str, input_: str, output: str) -> None:
    candidate = Candidate(instruction, input_, output)
    rejection = filters.refuse(candidate, [SEED])
    assert rejection is None or rejection.reason in {rule.__name__ for rule in filters.FILTERS}
    if filters.refuse_instruction(Candidate(instruction)) is not None:
        assert rejection is not None


@pytest.mark.parametrize(
    "unit",
    [
        "a ",
        "the the ",
        "`",
        "```\n",
        "# ",
        "1 ",
        "1",
        " ",
        "\n",
        "this code ",
        "int f(",
        "i am ",
        "[your ",
        "{",
    ],
)
def test_long_texts_cost_linear_time(unit: str) -> None:
    """What is quadratic in these would hang."""
    text = unit * (100_000 // len(unit))
    for candidate in (
        Candidate(text, "", "x"),
        Candidate("Do the thing.", text, "x"),
        Candidate("Do the thing.", "", text),
    ):
        filters.refuse(candidate, [SEED])
        for rule in filters.FILTERS:
            if rule is not filters.degenerate_repetition:  # its texts are short: the length rules go first
                rule(candidate, [SEED])


def test_no_seed_task_is_refused() -> None:
    tasks = seeds.load(Path(__file__).resolve().parents[1] / "seed_tasks")
    assert len(tasks) >= 30
    for task in tasks:
        assert filters.refuse(Candidate(task.instruction, task.input, task.output)) is None, task.id


@pytest.mark.skipif(not real_rows(), reason="Code Alpaca's file is not on this machine")
def test_few_real_rows_are_refused_and_the_known_bad_ones_are() -> None:
    refused = [
        filters.refuse(Candidate(row["instruction"], row["input"], row["output"])) for row in real_rows()
    ]
    counts = Counter(rejection.reason for rejection in refused if rejection is not None)
    # All read by hand: the inputs are missing, the output is the input unchanged, and so on.
    assert counts == {
        "missing_input": 7,  # two of them end with a colon
        "placeholder_leak": 2,
        "empty_output": 2,
        "input_repeated_as_output": 1,
    }
