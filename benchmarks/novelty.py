"""Measures the exact novelty index against its peers: CPU seconds, memory, recall, precision, 1k to 1M.

    python benchmarks/novelty.py sentences FILE        # once: makes the text
    python benchmarks/novelty.py all FILE              # every peer at every size, each in its own process
    python benchmarks/novelty.py plot                  # docs/img/novelty.svg from docs/novelty.json

The text: 19,000 real sentences (the docstrings of Python's own library, and the CodeAlpaca instructions where
they are at hand) are recombined word by word. Each new sentence follows a real one and, at every fourth
word on average, goes on with another real sentence that has the same word; so words keep their
frequencies, neighbours are real, and lengths are drawn to a mean of 17 tokens. 15 % are copies of an earlier
sentence with up to a third of the words replaced, dropped or added: near-duplicates on both sides of
the threshold. The vocabulary does not grow with the number, which makes postings longer than in life.

Peers: `pip install datasketch rensa matplotlib`.
"""

from __future__ import annotations

import ast
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import sysconfig
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from selfinstruct.novelty import make
from selfinstruct.rouge import fmeasure, tokenize
from selfinstruct.rouge_index import RougeIndex

ROOT = Path(__file__).parents[1]
RESULTS, PICTURE = ROOT / "docs" / "novelty.json", ROOT / "docs" / "img" / "novelty.svg"
THRESHOLD, JACCARD, PERMUTATIONS = 0.7, 0.54, 128  # F 0.7 is Jaccard 0.7/(2 - 0.7) of equal sets
SIZES = (1_000, 5_000, 20_000, 100_000, 300_000, 1_000_000)
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}
cpu = time.process_time


def real_sentences() -> list[list[str]]:
    """The words of every real sentence of 5 to 40 words."""
    found: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if SKIPPED & set(path.parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                    found.update(dict.fromkeys(re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split()))))
    data = (
        Path(os.environ.get("SELFINSTRUCT_DATA") or ROOT.parent / "shared" / "data") / "code_alpaca_2k.json"
    )
    if data.exists():
        found.update(
            dict.fromkeys(row["instruction"] for row in json.loads(data.read_text(encoding="utf-8")))
        )
    split = [sentence.split() for sentence in found if ">>>" not in sentence]
    return [words for words in split if 5 <= len(words) <= 40]


def sentences(count: int, seed: int = 0) -> Iterator[str]:
    """Recombined sentences, see the module's docstring."""
    rng, real = random.Random(seed), real_sentences()
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, words in enumerate(real):
        for place, word in enumerate(words):
            places[word.lower()].append((number, place))
    made: list[list[str]] = []
    while len(made) < count:
        if made and rng.random() < 0.15:
            new = _changed(list(rng.choice(made)), real, rng)
        else:
            new, source, place = [], rng.choice(real), 0
            while place < len(source) and len(new) < 60:
                new.append(source[place])
                if rng.random() < 0.25:
                    number, place = rng.choice(places[source[place].lower()])
                    source = real[number]
                place += 1
            if len(new) < 5 or rng.random() > len(new) / 20:
                continue
        made.append(new)
        yield " ".join(new)


def _changed(words: list[str], real: list[list[str]], rng: random.Random) -> list[str]:
    for _ in range(rng.randrange(2 + len(words) // 3)):
        place, word = rng.randrange(len(words)), rng.choice(rng.choice(real))
        change = rng.randrange(3)
        if change == 0:
            words[place] = word
        elif change == 1:
            words.insert(place, word)
        elif len(words) > 4:
            del words[place]
    return words


def run_exact(lines: list[str]) -> list[bool]:
    """All against all earlier ones, in batches, as the dedup command does."""
    index, found, size = RougeIndex(THRESHOLD), [], 8192
    for first in range(0, len(lines), size):
        for line in lines[first : first + size]:
            index.add(tokenize(line))
        found += [bool(hits) for hits in index.find_earlier(first)]
    return found


def run_stream(lines: list[str]) -> list[bool]:
    """One by one, as the generate loop does."""
    index, found = RougeIndex(THRESHOLD), []
    for line in lines:
        tokens = tokenize(line)
        found.append(bool(index.find(tokens)))
        index.add(tokens)
    return found


def run_rapidfuzz(lines: list[str]) -> list[bool]:
    """Exact, every pair: the bit-parallel LCS of rapidfuzz in blocks of 256 queries."""
    import numpy as np
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cdist

    ids: dict[str, int] = {}
    texts = [
        "".join(chr(256 + ids.setdefault(token, len(ids))) for token in tokenize(line)) for line in lines
    ]
    lengths = np.array([len(text) for text in texts])
    found = []
    for first in range(0, len(texts), 256):
        block = texts[first : first + 256]
        common = cdist(block, texts[: first + 256], scorer=LCSseq.similarity, dtype=np.int32)
        for place, row in enumerate(common):
            size, number = len(block[place]), first + place
            # Exactly the float of the original only where the sum decides nothing.
            near = np.flatnonzero(2 * row[:number] > (THRESHOLD - 1e-6) * (size + lengths[:number]))
            found.append(any(fmeasure(int(row[one]), size, int(lengths[one])) > THRESHOLD for one in near))
    return found


def run_datasketch(lines: list[str]) -> list[bool]:
    """MinHash LSH over the set of words."""
    from datasketch import MinHash, MinHashLSH

    index, found = MinHashLSH(threshold=JACCARD, num_perm=PERMUTATIONS), []
    first = MinHash(num_perm=PERMUTATIONS)
    for number, line in enumerate(lines):
        sketch = MinHash(num_perm=PERMUTATIONS, permutations=first.permutations, scheme=first.scheme)
        sketch.update_batch([word.encode() for word in set(tokenize(line))])
        found.append(bool(index.query(sketch)))
        index.insert(number, sketch)
    return found


def run_rensa(lines: list[str]) -> list[bool]:
    """MinHash LSH in Rust, 32 bands of 4 rows."""
    from rensa import RMinHash, RMinHashLSH

    index, found = RMinHashLSH(threshold=JACCARD, num_perm=PERMUTATIONS, num_bands=32), []
    for number, line in enumerate(lines):
        sketch = RMinHash(num_perm=PERMUTATIONS, seed=42)
        sketch.update(tokenize(line))
        found.append(bool(index.query(sketch)))
        index.insert(number, sketch)
    return found


RUNS: dict[str, Callable[[list[str]], list[bool]]] = {
    "exact": run_exact,
    "stream": run_stream,
    "rapidfuzz": run_rapidfuzz,
    "datasketch": run_datasketch,
    "rensa": run_rensa,
}


def measure(method: str, lines: list[str], flags: Path) -> dict[str, Any]:
    start, before = cpu(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = RUNS[method](lines)
    spent = cpu() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    result: dict[str, Any] = {
        "method": method,
        "size": len(lines),
        "cpu": round(spent, 3),
        "mib": peak // 1024,
    }
    if method == "exact":
        flags.write_bytes(bytes(found))
    elif flags.exists():
        truth = [bool(flag) for flag in flags.read_bytes()]
        both = sum(one and two for one, two in zip(found, truth, strict=True))
        result |= {"recall": both / max(1, sum(truth)), "precision": both / max(1, sum(found))}
    return result


def resident() -> int:
    """Bytes of memory held now (Linux); the peak would hide what fits into memory freed before."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure_checks(lines: list[str]) -> dict[str, Any]:
    """One instruction against a pool: build, check, the Alpaca fields; and the original for comparison."""
    from rouge_score import rouge_scorer

    pool, queries = lines[:-200], lines[-200:]
    start, before = cpu(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rule = make("alpaca", THRESHOLD)
    for line in pool:
        rule.add(line, "", "")
    rule.duplicate_of(pool[0], "", "")  # builds what is built on the first question
    built, peak = cpu() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    start, before = cpu(), resident()
    rule.evidence(pool[0])  # lays out what the fields need on the first question
    laid, more = cpu() - start, resident() - before
    checks, fields, original = [], [], []
    tokens = [tokenize(line) for line in pool[:500]]
    for query in queries:
        start = cpu()
        rule.duplicate_of(query, "", "")
        checks.append(cpu() - start)
    for query in queries:
        start = cpu()
        rule.evidence(query)
        fields.append(cpu() - start)
    for query in queries[:40]:
        asked, start = tokenize(query), cpu()
        for one in tokens:
            rouge_scorer._score_lcs(asked, one)  # noqa: SLF001 - what the original calls
        original.append((cpu() - start) / len(tokens) * len(pool))
    return {
        "method": "checks",
        "size": len(pool),
        "build": round(built, 2),
        "mib": peak // 1024,
        "check_us": round(statistics.median(checks) * 1e6, 1),
        "check_mean_us": round(statistics.mean(checks) * 1e6, 1),
        "fields_build": round(laid, 2),
        "fields_mib": more >> 20,
        "fields_us": round(statistics.mean(fields) * 1e6, 1),
        "original_us": round(statistics.mean(original) * 1e6, 1),
    }


def measure_all(source: Path, sizes: list[int]) -> None:
    results = []
    for size in sizes:
        flags = source.with_suffix(f".{size}")
        flags.unlink(missing_ok=True)
        methods = [name for name in RUNS if size <= {"rapidfuzz": 20_000, "stream": 100_000}.get(name, size)]
        for method in [*methods, "checks"]:
            command = [sys.executable, __file__, "one", str(source), method, str(size)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(results[-1], flush=True)
        flags.unlink()
    RESULTS.write_text("[\n" + ",\n".join(json.dumps(one) for one in results) + "\n]\n")


def plot() -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    results = json.loads(RESULTS.read_text())
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    names = {
        "exact": "selfinstruct (exact)",
        "rapidfuzz": "rapidfuzz, every pair (exact)",
        "datasketch": "datasketch MinHash LSH",
        "rensa": "rensa MinHash LSH",
    }
    for method, name in names.items():
        rows = [one for one in results if one["method"] == method]
        left.loglog([one["size"] for one in rows], [one["cpu"] for one in rows], marker="o", label=name)
    left.set(xlabel="instructions", ylabel="CPU seconds", title="Deduplicate all")
    checks = [one for one in results if one["method"] == "checks"]
    for field, name in (
        ("original_us", "rouge_score, every pair"),
        ("fields_us", "top 10 and mean over the pool"),
        ("check_us", "is it new? (median)"),
    ):
        right.loglog([one["size"] for one in checks], [one[field] for one in checks], marker="o", label=name)
    right.set(xlabel="instructions in the pool", ylabel="microseconds of CPU", title="One new instruction")
    for axes in (left, right):
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend(frameon=False)
    figure.tight_layout()
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    command, *rest = sys.argv[1:]
    if command == "sentences":
        Path(rest[0]).write_text("\n".join(sentences(int(rest[1]) if rest[1:] else max(SIZES) + 200)))
    elif command == "one":
        source, method, size = Path(rest[0]), rest[1], int(rest[2])
        with source.open() as file:
            lines = [line.rstrip("\n") for line in islice(file, size + 200 * (method == "checks"))]
        done = (
            measure_checks(lines)
            if method == "checks"
            else measure(method, lines, source.with_suffix(f".{size}"))
        )
        print(json.dumps(done))
    elif command == "all":
        measure_all(Path(rest[0]), [int(size) for size in rest[1:]] or list(SIZES))
    elif command == "plot":
        plot()


if __name__ == "__main__":
    main()
