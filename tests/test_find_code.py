"""What code an answer holds, and in which language."""

from __future__ import annotations

from collections import Counter

import pytest
from code_labels import PAGE, page_with_table, read_examples
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.records import Candidate
from selfinstruct.seeds import load
from selfinstruct.verify.code import LONGEST, PROSE_KINDS, find_code
from selfinstruct.verify.fences import split_fences
from selfinstruct.verify.mentions import FOREIGN, read_wish
from selfinstruct.verify.passages import cut_passages
from selfinstruct.verify.syntax import syntax_verdict
from selfinstruct.verify.verdict import Verdict
from selfinstruct.vocabulary import LANGUAGES


def test_the_labelled_answers_cover_all_languages_and_are_enough() -> None:
    examples = read_examples()
    assert len(examples) >= 150
    per_language = Counter(example.language for example in examples)
    assert {name for name in LANGUAGES if name != "text" and per_language[name] < 3} == set()


def test_the_labelled_answers_are_found_as_the_page_says() -> None:
    assert page_with_table(PAGE.read_text(encoding="utf-8")) == PAGE.read_text(encoding="utf-8")
    for what in ("language", "code", "prose"):
        examples = read_examples()
        assert sum(example.right(example.find())[what] for example in examples) >= 0.95 * len(examples), what


def test_the_seeds_show_their_language_without_being_told() -> None:
    wrong = [
        seed.id
        for seed in load(None)
        if seed.kind not in PROSE_KINDS | {"configure"}
        and seed.language not in ("text", "regex")
        and find_code(seed.instruction, seed.input, seed.output).language != seed.language
    ]
    assert set(wrong) <= {"ruby-translate-python-grouping", "rust-document-dedup-window"}


@pytest.mark.parametrize(
    ("instruction", "languages", "target"),
    [
        ("Write a Go program.", ("go",), None),
        ("Go through the list and rust the iron.", (), None),
        ("Convert this C code to Rust.", ("c", "rust"), "rust"),
        (
            "Port the Node.js script from JavaScript into TypeScript.",
            ("javascript", "typescript"),
            "typescript",
        ),
        ("Is C++ faster than C#?", ("cpp", "csharp"), None),
        ("Parse XML in Python.", (FOREIGN, "python"), None),
        ("Read the R vector.", ("r",), None),
        ("Vitamin C is healthy.", (), None),
        ("Query the MySQL table from the T-SQL server.", ("sql",), None),
        ("Change the Java method into a Kotlin function.", ("java", "kotlin"), "kotlin"),
    ],
)
def test_languages_in_a_sentence(instruction: str, languages: tuple[str, ...], target: str | None) -> None:
    wish = read_wish(instruction)
    assert (wish.languages, wish.target) == (languages, target)


@pytest.mark.parametrize(
    ("instruction", "prose"),
    [
        ("Explain the loop.", True),
        ("What does this print?", True),
        ("How do I write a loop in Go?", False),
        ("How does a loop work?", True),
        ("Write a function.", False),
        ("Fix the function and explain what was wrong.", True),
        ("Define a class.", False),
        ("When the button is clicked, hide the box.", False),
        ("When is a class better than a struct?", True),
        ("Do the same in C.", False),
        ("Fix this loop. Why does it never end?", True),
        ("Fix the import:\nwhy is the module not found?", True),
        ("The command is not found. Why? How do you fix it?", True),
        ("The port is in use. What could be wrong with this script?", True),
        ("The method takes minutes. How can it run in linear time?", False),
        ("It hangs. Where is the mistake, and what does the corrected function look like?", False),
        ("Users ask why it is slow. Make it fast.", False),
        ("The loop is slow. Why not write a faster one?", False),
    ],
)
def test_words_that_ask_for_words(instruction: str, prose: bool) -> None:
    assert read_wish(instruction).prose is prose


def test_fences_are_taken_off() -> None:
    text = "a\n```py x\n1\n```\nb\n  ~~~\n  2\n   3\n  ~~~\n````md\n```\nin\n```\n````\n```js\nopen"
    pieces = [(piece.text, piece.fenced, piece.info, piece.closed) for piece in split_fences(text)]
    assert pieces == [
        ("a", False, "", True),
        ("1", True, "py x", True),
        ("b", False, "", True),
        ("2\n 3", True, "", True),
        ("```\nin\n```", True, "md", True),
        ("open", True, "js", False),
    ]


def test_prose_inside_code_stays() -> None:
    code = (
        'def f():\n    """\nThis line of prose is at the margin, but inside a string.\n    """\n    return 1'
    )
    assert cut_passages(code) == [code]
    page = "<p>\nThis line of prose is a part of the page.\n</p>"
    assert cut_passages(page) == [page]
    script = "cat <<TEXT\nThis line of prose is a part of the text.\nTEXT\necho done"
    assert cut_passages(script) == [script]


def test_the_program_is_what_the_answer_adds() -> None:
    given = "def f():\n    return 1"
    better = "Better:\n```python\ndef f():\n    return 2\n```\nThen:\n```sh\nls\n```"
    answer = f"You gave:\n```python\n{given}\n```\n{better}"
    found = find_code("Improve the code.", given, answer)
    assert [block.language for block in found.blocks] == ["python", "python", "bash"]
    assert found.program is not None
    assert found.program.text == "def f():\n    return 2"


def test_prose_in_place_of_code_is_taken_for_code_only_where_code_was_asked_for() -> None:
    text = "A queue can be made of two stacks."
    assert find_code("Implement a queue.", "", text, "python", "write").blocks
    assert not find_code("What is a queue?", "", text, "python", "write").blocks
    assert not find_code("Implement a queue.", "", text, "python", "explain").blocks
    assert not find_code("Implement a queue in Python.", "", text).blocks


@pytest.mark.parametrize("kind", ["fix", "optimise", "write"])
def test_a_question_later_on_may_be_answered_in_words(kind: str) -> None:
    fix, why, loop = (
        "Fix this loop, which stops too early.",
        "Why does it happen?",
        "for i in range(2): print(i)",
    )
    words = "The upper end of `range` is left out, so the loop (and what it prints) ends one step before it."

    def verdict(instruction: str, output: str) -> Verdict:
        return syntax_verdict(Candidate(instruction, loop, output, language="python", kind=kind))

    assert verdict(fix, words).status == "failed"
    assert verdict(f"{fix} {why}", words) == Verdict("syntax", "skipped", "no_code")
    for code, status in (
        ("for i in range(3):\n    print(i)", "passed"),
        ("for i in range(3:\n    print(i)", "failed"),
    ):
        for output in (code, f"{words}\n\n{code}"):
            assert verdict(f"{fix} {why}", output).status == status


def test_nothing_is_looked_for_in_a_very_long_answer() -> None:
    assert find_code("Write a list.", "", "x = 1\n" * LONGEST, "python", "write").blocks == ()


@given(
    st.text(max_size=400),
    st.text(max_size=400),
    st.text(max_size=1000),
    st.sampled_from([None, "python", "rust", "text"]),
)
def test_any_text_is_read(instruction: str, input_: str, output: str, language: str | None) -> None:
    for kind in (None, "write", "explain"):
        found = find_code(instruction, input_, output, language, kind)
        assert found.language is None or found.language in LANGUAGES
        assert (found.program is None) == (not any(block.language for block in found.blocks))


@given(
    st.lists(
        st.sampled_from(["```py", "```", "~~~", "  ```", "> ```", "x = 1", "Some words here.", ""]),
        max_size=12,
    )
)
def test_no_line_of_code_is_lost_between_fences(lines: list[str]) -> None:
    pieces = split_fences("\n".join(lines))
    kept = sum(piece.text.count("x = 1") for piece in pieces)
    assert kept == lines.count("x = 1")
