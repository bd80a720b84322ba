"""Finds secrets in seed tasks that look real: keys of well-known forms, and random values of passwords and tokens.

It knows forms and names, asks no service, and never repeats a secret in what it says.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import pairwise

# All repetitions are bounded, so that no text makes the search slow. A bare header is no key yet.
_BODY = r"(?:\\n|\s){1,9}(?:[A-Za-z-]{1,40}: [^\n]{0,80}\n\s{0,9}){0,4}[A-Za-z0-9+/=]{40}"
_FORMS = {
    name: re.compile(pattern)
    for name, pattern in {
        "an AWS access key": r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b",
        "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})",
        "a GitLab token": r"\bglpat-[\w-]{20,}",
        "an OpenAI or Anthropic key": r"\bsk-[A-Za-z0-9_-]{32,}",
        "a Google key": r"\b(?:AIza[\w-]{35}|ya29\.[\w-]{30,}|GOCSPX-[\w-]{28})",
        "a Slack token": r"\bxox[abeoprs]-[A-Za-z0-9-]{20,}|hooks\.slack\.com/services/T\w+/B\w+/\w{20,}",
        "a Stripe key": r"\b[rs]k_live_[A-Za-z0-9]{20,}",
        "a Hugging Face token": r"\bhf_[A-Za-z0-9]{34,}\b",
        "an npm token": r"\bnpm_[A-Za-z0-9]{36}\b",
        "a PyPI token": r"\bpypi-[\w-]{50,}",
        "a SendGrid key": r"\bSG\.[\w-]{22}\.[\w-]{43}",
        "a Twilio key": r"\bSK[0-9a-f]{32}\b",
        "a DigitalOcean token": r"\bdo[opr]_v1_[0-9a-f]{64}\b",
        "a Telegram bot token": r"\b\d{8,10}:AA[\w-]{33}\b",
        "an Azure storage key": r"\bAccountKey=[A-Za-z0-9+/]{86}==",
        "a signed web token": r"\beyJ[\w-]{15,}\.eyJ[\w-]{10,}\.[\w-]{30,}",
        "a private key": rf"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----{_BODY}",
    }.items()
}
_ASSIGNED = re.compile(
    r"""(?ix)
    (?<![\w.-]) (?P<name> [\w.-]{0,60}
      (?: password | passwd | pwd | passphrase | secret | token | credential | (?:api|access|private|auth)[_-]?key )
      [\w.-]{0,60} )
    ["']? \s{0,20} (?: => | := | = | : ) \s{0,20}
    (?P<quote>["'`]?) (?P<value> [^\s"'`,;()<>{}\[\]$]{12,400} ) (?= ["'`,;)\]}\s] | $ )
    """
)
_IN_ADDRESS = re.compile(
    r"\b[a-z][a-z0-9+.-]{0,20}://[^\s:@/\"']{0,80}:(?P<value>[^\s:@/\"'<>{}$]{8,200})@", re.IGNORECASE
)
_STAND_IN = re.compile(
    r"example|change.?me|your|placeholder|dummy|fake|sample|test|secret|password|redacted|x{4}|0{6}|1234|abcd|\.\.\.|\*\*\*",
    re.IGNORECASE,
)
_CLASSES = (str.islower, str.isupper, str.isdigit)
_BITS = 3.0  # Shannon entropy per character; 12 random letters and digits have 3.3 and more
_CHANGES = 0.3  # changes between letter case, digits and signs per character; random text has 0.45 and more
_CHANGES_OF_A_NAME = 0.4  # names of things such as `sha256Digest2Hex` have fewer


def find_secrets(text: str) -> list[str]:
    """What looks like a real secret in a text: what it is, its line in the text, and its first letters.

    Values that say themselves that they stand in for one ("your-key", "example", "xxxx") are passed over.
    """
    found: dict[int, str] = {}
    for name, form in _FORMS.items():
        for match in form.finditer(text):
            if not _STAND_IN.search(match[0]) and _varied(match[0]):
                found.setdefault(match.start(), _told(name, text, match.start(), match[0]))
    taken = [range(start, start + 4_000) for start, what in found.items() if "private key" in what]
    for match in _ASSIGNED.finditer(text):
        value, start = match["value"], match.start("value")
        may_be_a_name = not match["quote"] and value.isidentifier()
        if _looks_random(value, may_be_a_name=may_be_a_name) and not _inside(start, found, taken):
            found[start] = _told(f"the value of `{match['name']}`", text, start, value)
    for match in _IN_ADDRESS.finditer(text):
        start = match.start("value")
        if _looks_random(match["value"]) and not _inside(start, found, taken):
            found[start] = _told("a password in an address", text, start, match["value"])
    return [found[start] for start in sorted(found)]


def _inside(start: int, found: dict[int, str], taken: list[range]) -> bool:
    return start in found or any(start in span for span in taken)


def _told(what: str, text: str, start: int, secret: str) -> str:
    shown = secret.split("\n", maxsplit=1)[0][:4]
    return f"{what} in line {text.count(chr(10), 0, start) + 1} ({shown}..., {len(secret)} characters)"


def _looks_random(value: str, *, may_be_a_name: bool = False) -> bool:
    digits = sum(char.isdigit() for char in value)
    if not 0 < digits < len(value) or _STAND_IN.search(value):
        return False
    groups = [next((at for at, of in enumerate(_CLASSES) if of(char)), 3) for char in value]
    changes = sum(one != other for one, other in pairwise(groups))
    least = _CHANGES_OF_A_NAME if may_be_a_name or digits == 1 else _CHANGES
    return changes / len(value) >= least and _entropy(value) >= _BITS


def _varied(text: str) -> bool:
    """Whether a key of a known form is more than one letter over and over."""
    return _entropy(text) >= _BITS


def _entropy(text: str) -> float:
    """Shannon entropy in bits per character."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())
