"""Finding code below a folder that may be anything, and the licence it is under."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.derive.code_files import HUGE, find_files, language_of, read_code
from selfinstruct.derive.licences import licence_of_folder, nearest_licence, recognise, stated_licence
from selfinstruct.derive.snippets import LEAST, MOST, find_snippets
from selfinstruct.errors import InputError

ROOT = Path(__file__).parents[1]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def found(folder: Path) -> tuple[set[str], Counter[str]]:
    skipped: Counter[str] = Counter()
    return {path.relative_to(folder).as_posix() for path in find_files(folder, skipped)}, skipped


def test_what_is_looked_at_and_what_is_not(tmp_path: Path) -> None:
    write(tmp_path, {
        "a.py": "x", "src/b.rs": "x", "src/c.TSX": "x", "Makefile": "x", "Dockerfile": "x",
        "notes.txt": "x", "data.json": "x", "conf.yaml": "x", "README.md": "x", "noending": "x",
        ".hidden.py": "x", ".git/hook.py": "x", "node_modules/d/e.js": "x", "Vendor/f.go": "x",
        "env/pyvenv.cfg": "", "env/lib/g.py": "x",
        "api_pb2.py": "x", "app.min.js": "x", "types.d.ts": "x", "h.pb.go": "x",
        "big.py": "x" * (HUGE + 1),
    })  # fmt: skip
    names, skipped = found(tmp_path)
    assert names == {"a.py", "src/b.rs", "src/c.TSX", "Makefile", "Dockerfile"}
    assert skipped == {"no code": 5, "hidden": 2, "vendored": 3, "generated": 4, "huge": 1}


def test_ignore_files_as_git_reads_them(tmp_path: Path) -> None:
    write(tmp_path, {
        ".gitignore": "*.log.py\n/top.py\nsub/only/\n!keep.log.py\n[\n# no.py\n",
        "sub/.gitignore": "local.py\n!shared.log.py\n",
        "a.log.py": "x", "keep.log.py": "x", "top.py": "x", "no.py": "x",
        "sub/top.py": "x", "sub/local.py": "x", "sub/shared.log.py": "x", "sub/only/z.py": "x", "only/z.py": "x",
        "local.py": "x",
    })  # fmt: skip
    names, _ = found(tmp_path)
    assert names == {"keep.log.py", "no.py", "sub/top.py", "sub/shared.log.py", "only/z.py", "local.py"}
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    told = subprocess.run(
        ["git", "-C", str(tmp_path), "ls-files", "--others", "--exclude-standard", "*.py"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert names == set(told.stdout.split())


def test_rules_from_above_count_inside_a_repository_only(tmp_path: Path) -> None:
    write(
        tmp_path,
        {".gitignore": "b.py\n", "repo/src/b.py": "x", "repo/src/c.py": "x", "repo/.gitignore": "c.py\n"},
    )
    assert found(tmp_path / "repo" / "src")[0] == {"b.py", "c.py"}
    (tmp_path / "repo" / ".git").mkdir()
    assert found(tmp_path / "repo" / "src")[0] == {"b.py"}


def test_links_and_odd_things_neither_loop_nor_lead_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write(outside, {"secret.py": "x", ".gitignore": "a.py"})
    folder = tmp_path / "in"
    write(folder, {"a.py": "x", "deep/b.py": "x"})
    (folder / "deep" / "loop").symlink_to(folder)
    (folder / "self.py").symlink_to(folder / "self.py")
    (folder / "out").symlink_to(outside)
    (folder / "secret.py").symlink_to(outside / "secret.py")
    (folder / ".gitignore").symlink_to(outside / ".gitignore")
    os.mkfifo(folder / "pipe.py")
    (folder / "folder.py").mkdir()
    names, skipped = found(folder)
    assert names == {"a.py", "deep/b.py"}
    assert skipped["link"] == 5
    assert skipped["no file"] == 1
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert found(link)[0] == names  # the folder that was named may be one


def test_names_of_any_bytes(tmp_path: Path) -> None:
    odd = [
        b"new\nline.py",
        b"\xff\xfe.py",
        "na\u00efve.py".encode(),
        b"$(rm -rf x).py",
        b"-n.py",
        b"a\x1b[31m.py",
    ]
    for name in odd:
        with open(os.fsencode(tmp_path) + b"/" + name, "w") as file:  # noqa: PTH123 - bytes
            file.write("x = 1\n")
    paths = list(find_files(tmp_path, Counter()))
    assert sorted(os.fsencode(path.name) for path in paths) == sorted(odd)
    assert all(read_code(path) == "x = 1\n" for path in paths)


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read it: No such file"):
        list(find_files(tmp_path / "none", Counter()))


def test_a_file_that_is_named_is_taken(tmp_path: Path) -> None:
    write(tmp_path, {"vendor/x_pb2.py": "x"})
    path = tmp_path / "vendor" / "x_pb2.py"
    assert list(find_files(path, Counter())) == [path]


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("a.py", "python"), ("a.h", "c"), ("a.hpp", "cpp"), ("a.CC", "cpp"), ("a.kts", "kotlin"),
        ("a.mjs", "javascript"), ("a.sh", "bash"), ("Makefile", "make"), ("a.json", None),
        ("a.txt", None), ("a", None), ("a.b", None),
    ],
)  # fmt: skip
def test_language_by_name(name: str, language: str | None) -> None:
    assert language_of(Path(name)) == language


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfx = 1\r\ny = 2\r", "x = 1\ny = 2\n"),
        (b"", None),
        (b" \n", None),
        (b"x\0y", None),
        (b"\xff\xfe", None),
        (b"# Code generated by tool. DO NOT EDIT.\nx = 1\n", None),
        (b"// @generated\nx\n", None),
        (b"x=" + b"1" * 1000, None),
        (b"# it generates code\nx = 1\n", "# it generates code\nx = 1\n"),
    ],
)
def test_what_a_file_holds(tmp_path: Path, data: bytes, text: str | None) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(data)
    assert read_code(path) == text


# --- licences -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "licence"),
    [
        ("# SPDX-License-Identifier: MIT\n", "MIT"),
        ("/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-3-Clause) */", "(GPL-2.0-only OR BSD-3-Clause)"),
        ("// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception\n", "Apache-2.0 WITH LLVM-exception"),
        ("<!-- SPDX-License-Identifier: MIT -->", "MIT"),
        ("# SPDX-License-Identifier: \x1b[31m\n", None),
        ("x" * 5000 + "SPDX-License-Identifier: MIT", None),
        ("", None),
    ],
)
def test_the_licence_that_a_file_states(code: str, licence: str | None) -> None:
    assert stated_licence(code) == licence


MIT = "Permission is hereby granted, free of charge, to any person obtaining\na copy of this software and"
BSD = "Redistribution and use in source and binary forms, with or without\n modification, are permitted."


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (MIT, "MIT"),
        (BSD, "BSD-2-Clause"),
        (BSD + " Neither the name of X nor", "BSD-3-Clause"),
        ("GNU GENERAL PUBLIC LICENSE\n   Version 3 ... GNU Affero General Public License version 3", "GPL-3.0"),
        ("GNU LESSER GENERAL PUBLIC LICENSE Version 2.1, February 1999", "LGPL-2.1"),
        ("Mozilla Public License Version 2.0\n====", "MPL-2.0"),
        ("Boost Software License - Version 1.0 - August 17th, 2003", "BSL-1.0"),
        ("Eclipse Public License - v 2.0", "EPL-2.0"),
        ("This is free and unencumbered software released into the public domain.", "Unlicense"),
        ("You may use this if you send me a postcard.", "unknown"),
        ("", "unknown"),
    ],
)  # fmt: skip
def test_licence_texts(text: str, licence: str) -> None:
    assert recognise(text) == licence


def test_the_licence_of_this_project() -> None:
    assert licence_of_folder(ROOT) == "Apache-2.0"


def test_the_nearest_licence_up_to_the_top_of_the_repository(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "LICENSE": MIT,
            "repo/.git/x": "",
            "repo/src/x": "",
            "repo/lib/COPYING.txt": BSD,
            "repo/lib/in/x": "",
        },
    )
    known: dict[Path, str] = {}
    assert nearest_licence(tmp_path / "repo" / "lib" / "in", known) == "BSD-2-Clause"
    assert nearest_licence(tmp_path / "repo" / "src", known) == "unknown"  # that above is another project's
    assert nearest_licence(tmp_path, known) == "MIT"
    write(tmp_path, {"two/LICENSE-MIT": MIT, "two/LICENSE-APACHE": "Apache License Version 2.0"})
    assert nearest_licence(tmp_path / "two", known) == "Apache-2.0, MIT"


# --- snippets -----------------------------------------------------------------------------------------

PYTHON = """import os


@cached
def first(x):
    total = 0
    for y in x:
        total += y
    return total


class Second:
    def small(self): ...

    def larger(self, a, b):
        while a != b:
            a, b = b, a - b
        return a
"""


def test_functions_and_classes_come_before_statements() -> None:
    snippets = find_snippets(PYTHON, "python", random.Random(0))
    heads = [snippet.text.partition("\n")[0] for snippet in snippets]
    assert set(heads[:3]) == {"@cached", "class Second:", "def larger(self, a, b):"}
    (larger,) = (snippet for snippet in snippets if snippet.text.startswith("def larger"))
    assert larger.text.endswith("\n    return a")  # without the indent of its class
    assert (larger.first, larger.last) == (15, 18)


def test_the_order_is_that_of_the_seed() -> None:
    assert find_snippets(PYTHON, "python", random.Random(3)) == find_snippets(
        PYTHON, "python", random.Random(3)
    )


@pytest.mark.parametrize("language", ["python", "cobol", None])
def test_what_cannot_be_parsed_is_cut_into_runs_of_lines(language: str | None) -> None:
    text = "\n\n".join("\n".join(f"line {group} {n} says" for n in range(12)) for group in range(5))
    snippets = find_snippets(text, language, random.Random(1))
    assert len(snippets) == 5
    assert all(" 0 says" in snippet.text.partition("\n")[0] for snippet in snippets)


RUST = """use std::fmt;

impl Queue {
    fn push(&mut self, x: u32) {
        self.items.push(x);
        self.count += 1;
    }
}

fn main() {
    let mut q = Queue::new();
    q.push(1);
    println!("{}", q.count);
}
"""


def test_other_languages_by_their_grammar() -> None:
    pytest.importorskip("tree_sitter_rust")
    heads = {one.text.partition("\n")[0] for one in find_snippets(RUST, "rust", random.Random(0))}
    assert heads == {"impl Queue {", "fn push(&mut self, x: u32) {", "fn main() {"}
    broken = find_snippets(RUST.replace("fn main() {", "fn main( {{"), "rust", random.Random(0))
    assert {one.first for one in broken} <= {1, 3, 10}  # runs of lines, from behind a blank one


def test_what_says_nothing_is_no_piece() -> None:
    assert (
        find_snippets("import a\nimport b\nimport c\nfrom d import e\nimport f\n", "python", random.Random(0))
        == []
    )
    assert find_snippets("x = [\n" + "    1,\n" * 100 + "]\n", "python", random.Random(0)) == []


@given(st.text(max_size=400), st.sampled_from(["python", "go", None]), st.integers(0, 9))
def test_any_text_gives_pieces_that_stand_in_it(code: str, language: str | None, seed: int) -> None:
    lines = [line.strip() for line in code.split("\n")]
    for snippet in find_snippets(code, language, random.Random(seed)):
        assert LEAST <= snippet.last - snippet.first + 1 <= MOST
        assert [line.strip() for line in snippet.text.split("\n")] == lines[snippet.first - 1 : snippet.last]


@pytest.mark.skipif(sys.platform == "win32", reason="paths of this project")
def test_this_project_has_pieces() -> None:
    files = list(find_files(ROOT / "selfinstruct", Counter()))
    assert len(files) > 50
    texts = [text for path in files if (text := read_code(path)) is not None]
    assert sum(bool(find_snippets(text, "python", random.Random(0))) for text in texts) > 0.8 * len(texts)
