"""The words seed tasks are sorted by: languages, kinds of task, difficulties, and their spellings.

Only tables and look-ups; nothing here reads a file or guesses a language from code.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Term:
    """A word of one of the tables: canonical `name`, the `display` name for people, other spellings."""

    name: str
    display: str
    aliases: tuple[str, ...] = ()


def _table(*terms: Term) -> dict[str, Term]:
    return {term.name: term for term in terms}


LANGUAGES = _table(
    Term("python", "Python", ("py", "python3")),
    Term("javascript", "JavaScript", ("js", "node", "nodejs", "node.js")),
    Term("typescript", "TypeScript", ("ts",)),
    Term("java", "Java"),
    Term("c", "C", ("c99", "c11", "c17", "ansi c")),
    Term("cpp", "C++", ("c++", "cxx", "cc")),
    Term("csharp", "C#", ("c#", "cs", "c sharp")),
    Term("go", "Go", ("golang",)),
    Term("rust", "Rust", ("rs",)),
    Term("sql", "SQL", ("sqlite", "mysql", "postgresql", "postgres", "tsql")),
    Term("bash", "Bash", ("sh", "shell", "zsh", "shellscript", "shell script")),
    Term("html", "HTML", ("html5", "xhtml")),
    Term("css", "CSS", ("css3", "scss")),
    Term("php", "PHP", ("php8",)),
    Term("ruby", "Ruby", ("rb",)),
    Term("kotlin", "Kotlin", ("kt",)),
    Term("swift", "Swift"),
    Term("r", "R", ("rlang", "rscript")),
    Term("perl", "Perl", ("pl", "perl5")),
    Term("lua", "Lua"),
    Term("regex", "regular expressions", ("regexp", "regular expression")),
    Term("yaml", "YAML", ("yml",)),
    Term("docker", "Docker", ("dockerfile",)),
    Term("make", "Make", ("makefile", "gnu make")),
    Term("json", "JSON"),
    Term("powershell", "PowerShell", ("ps1", "pwsh")),
    Term("scala", "Scala"),
    Term("haskell", "Haskell", ("hs",)),
    Term("dart", "Dart"),
    Term("text", "no language", ("plain", "plaintext", "prose")),
)

KINDS = _table(
    Term("write", "write code"),
    Term("complete", "complete code"),
    Term("fix", "fix a bug", ("debug", "repair")),
    Term("refactor", "refactor"),
    Term("optimise", "make faster", ("optimize",)),
    Term("translate", "translate between languages", ("convert", "port")),
    Term("explain", "explain"),
    Term("document", "document"),
    Term("test", "write tests"),
    Term("review", "review", ("critique",)),
    Term("revise", "revise after a review"),
    Term("summarise", "summarise a change", ("summarize",)),
    Term("predict", "predict the output"),
    Term("choose", "choose and justify", ("classify", "classification")),
    Term("query", "query data"),
    Term("configure", "configure"),
    Term("design", "design"),
)

DIFFICULTIES = ("easy", "medium", "hard")


def _index(table: dict[str, Term]) -> dict[str, str]:
    spellings = {}
    for term in table.values():
        for word in (term.name, term.display.lower(), *term.aliases):
            spellings[word] = term.name
    return spellings


_LANGUAGE_INDEX = _index(LANGUAGES)
_KIND_INDEX = _index(KINDS)


def find_language(word: str) -> str | None:
    """The canonical name of a language in any spelling we know ("C++", "golang"), else None."""
    return _LANGUAGE_INDEX.get(word.strip().lower())


def find_kind(word: str) -> str | None:
    """The canonical name of a kind of task in any spelling we know ("optimize"), else None."""
    return _KIND_INDEX.get(word.strip().lower())
