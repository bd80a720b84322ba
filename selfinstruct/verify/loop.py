"""Verification in the loop: a recipe whose candidates come with the verdict on their code.

Running code takes long, so it happens where recipes run, on a worker; the pool only uses the verdict when the
candidate's turn has come. Code of a candidate that the filters or an earlier task rule out already is not run.

Verdicts are kept, so a run that is resumed, or begun anew with the same verdicts, decides the same. Two runs that
share replies alone may differ in what the programs do by themselves: one that ends just before its limit of time or
is ended by it, one that asks for the date or draws lots.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from selfinstruct.errors import InputError, RequestRefused
from selfinstruct.records import JSON, Candidate, Rejection, Reply, Request, Seed
from selfinstruct.seams import Complete, Plan, PoolView, Recipe
from selfinstruct.settings import RunSettings
from selfinstruct.verify.programs import RUNNABLE
from selfinstruct.verify.repair import read_repair, repair_request
from selfinstruct.verify.sandbox import Sandbox, SandboxUnavailable, open_sandbox
from selfinstruct.verify.selftests import find_subject, read_tests, request_tests
from selfinstruct.verify.syntax import syntax_verdict
from selfinstruct.verify.toolchains import find_toolchain
from selfinstruct.verify.verdict import TESTS_ARE_BAD, Level, Status, Verdict, rejection_of
from selfinstruct.verify.verdict_log import VERDICTS, VerdictLog
from selfinstruct.verify.verifier import Verifier, find, find_tested

log = logging.getLogger(__name__)

MOST_REPAIRS = 10


def runs_code(settings: RunSettings) -> bool:
    """Whether these settings have programs run."""
    return settings.verify in {"run", "tests"}


def verifies_late(settings: RunSettings) -> bool:
    """Whether candidates need more than a look at their syntax when they are decided: then recipes are `verified`."""
    if settings.verify == "syntax":
        return settings.repair > 0 or settings.require_verification
    return runs_code(settings)


def prompts_of(settings: RunSettings) -> dict[str, str]:
    """A hash of the prompts that verifying uses, where it asks the model, for the fingerprint."""
    names = verify_prompts(settings)
    return {"verification": settings.prompts_digest(*names)} if names else {}


def verify_prompts(settings: RunSettings) -> list[str]:
    """The names of the prompts that verifying uses."""
    names = ["verify_tests"] if settings.verify == "tests" else []
    return [*names, "verify_repair"] if settings.repair else names


@contextmanager
def open_verification(
    settings: RunSettings, run: Path, first: int, languages: Iterable[str] = ()
) -> Iterator[Verification | None]:
    """What `verified` needs, None where the settings ask for nothing that it does.

    Args:
        settings: of the run.
        run: its directory.
        first: the first index that is not decided.
        languages: that are asked for, as far as is known.

    Raises:
        InputError: the sandbox or a toolchain is missing, and `--require-verification` asks for them.
    """
    if not verifies_late(settings):
        yield None
        return
    sandbox = find_sandbox(settings, languages) if runs_code(settings) else None
    verdicts = VerdictLog(run / VERDICTS, first)
    try:
        yield Verification(settings, Verifier(sandbox), verdicts)
    finally:
        verdicts.close()


def find_sandbox(settings: RunSettings, languages: Iterable[str | None]) -> Sandbox | None:
    """The sandbox, or None with a warning where there is none.

    Args:
        settings: with `--require-verification` nothing may be missing.
        languages: that programs will be in, as far as is known; looked at only if nothing may be missing.

    Raises:
        InputError: there is no sandbox, or no toolchain for one of the languages, and nothing may be missing.
    """
    if settings.sandbox == "none":
        log.warning(
            "--sandbox none: what a model wrote runs as you, with your files and your network; use it only where "
            "the machine itself is a sandbox"
        )
    try:
        sandbox = open_sandbox(settings.sandbox)
    except SandboxUnavailable as error:
        if settings.require_verification:
            raise InputError(f"--require-verification: {error}") from None
        log.warning("no code is run (verification: unavailable): %s", error)
        return None
    if settings.require_verification:
        _look_for_toolchains(sandbox, languages)
    return sandbox


def _look_for_toolchains(sandbox: Sandbox, languages: Iterable[str | None]) -> None:
    """See to it that programs of these languages can be run, if programs of theirs are run at all.

    Raises:
        InputError: naming those that cannot.
    """
    missing = [name for name in sorted(RUNNABLE & set(languages)) if find_toolchain(sandbox, name) is None]
    if missing:
        raise InputError(
            f"--require-verification: no toolchain that works in the sandbox for {', '.join(missing)}; install it, or "
            "leave these languages out (generate, from-code: --only-language)"
        )


@dataclass(frozen=True, slots=True)
class Verification:
    """What verifying takes, shared by all workers."""

    settings: RunSettings
    verifier: Verifier
    verdicts: VerdictLog


def verified(recipe: Recipe, verification: Verification, *, checked: bool = True) -> Recipe:
    """The recipe with its candidates verified, and repaired where the settings ask for that.

    Args:
        recipe: asks for candidates; where it asks `view.verify`, code is run there, too.
        verification: what that takes.
        checked: whether to verify every candidate; else only what the recipe asks about is.
    """

    def verify(plan: Plan, view: PoolView, complete: Complete) -> list[Candidate]:
        running = _RunningView(view, verification, plan, complete)
        candidates = recipe(plan, running, complete)
        if checked:
            candidates = [
                running.case(candidate, number).settle(candidate)
                for number, candidate in enumerate(candidates)
            ]
        verification.verdicts.forget(plan.k)
        return candidates

    return verify


@dataclass(slots=True)
class _RunningView:
    """A view of the pool whose `verify` runs code; the rest is the view's own."""

    view: PoolView
    verification: Verification
    plan: Plan
    complete: Complete
    cases: dict[str, _Case] = field(default_factory=dict)  # by the output

    @property
    def tasks(self) -> Sequence[Candidate]:
        return self.view.tasks

    def judge_instruction(self, candidate: Candidate) -> Candidate | None:
        return self.view.judge_instruction(candidate)

    def refuse(self, candidate: Candidate, shots: Sequence[Seed]) -> Rejection | None:
        return self.view.refuse(candidate, shots)

    def case(self, candidate: Candidate, number: int) -> _Case:
        """The candidate's case: that of `verify` where the recipe asked, so that its tests are not paid twice."""
        known = self.cases.get(candidate.output)
        return known or _Case(self.verification, self.plan, self.view, self.complete, number)

    def verify(self, candidate: Candidate) -> Rejection | None:
        case = self.case(candidate, len(self.cases))
        self.cases[candidate.output] = case
        return rejection_of(case.run(candidate), required=self.verification.settings.require_verification)


@dataclass(slots=True)
class _Case:
    """One candidate on its way to a verdict, and what that costs."""

    verification: Verification
    plan: Plan
    view: PoolView
    complete: Complete
    number: int
    tests: str | None = None  # as the model wrote them; a repaired answer is held to the same
    tokens: dict[str, int] = field(default_factory=dict)  # by what they were spent on

    @property
    def settings(self) -> RunSettings:
        return self.verification.settings

    def settle(self, candidate: Candidate) -> Candidate:
        """The candidate, or its repaired form, with its verdict; as it is where it is ruled out anyway."""
        verdict = None if candidate.rejection else self._judge(candidate)
        if verdict is None:
            return candidate
        settled = failing = replace(candidate, verdict=verdict)
        tries = 0
        while tries < self.settings.repair and _repairable(failing):
            tries += 1
            better = self._rewrite(failing, tries)
            verdict = self._judge(better) if better else None
            if better is None or verdict is None:
                continue
            if _is_mended(settled, verdict):
                settled = replace(better, verdict=verdict)
                break
            if verdict.status == "failed":  # the next try is shown the newest error
                failing = replace(better, verdict=verdict)
        return replace(settled, notes=settled.notes | self._notes(tries))

    def _notes(self, tries: int) -> dict[str, JSON]:
        notes: dict[str, JSON] = {}
        if tries:
            notes["repair"] = {"tries": tries, "tokens": self.tokens.get("repair", 0)}
        if self.tests is not None:
            notes["tests"] = {"tokens": self.tokens.get("tests", 0)}
        return notes

    def _judge(self, candidate: Candidate) -> Verdict | None:
        """The verdict; None if something else than its code is against the candidate."""
        return None if self.view.refuse(candidate, self.plan.shots) else self.run(candidate)

    def run(self, candidate: Candidate) -> Verdict:
        """The verdict on the candidate's code, up to the level that the settings ask for."""
        parsed = syntax_verdict(candidate)
        if parsed.status == "failed" or not runs_code(self.settings):
            return self._kept(candidate, lambda: parsed, level="syntax")
        verdict = self._kept(candidate, lambda: self.verification.verifier.run(candidate))
        if self.settings.verify == "tests" and verdict.status == "passed":
            return self._test(candidate, verdict)
        return verdict

    def _kept(
        self,
        candidate: Candidate,
        check: Callable[[], Verdict],
        *,
        tests: str | None = None,
        level: Level = "run",
    ) -> Verdict:
        verdicts = self.verification.verdicts
        return verdicts.once(self.plan.k, self.number, candidate, check, tests=tests, level=level)

    def _test(self, candidate: Candidate, ran: Verdict) -> Verdict:
        """The verdict of the model's own tests on an answer that runs."""
        program = find_tested(candidate, ran)
        language = program.language or ""
        subject = find_subject(language, program.text)
        if isinstance(subject, str):
            status: Status = "skipped" if subject == "no_function" else "unavailable"
            return Verdict("tests", status, subject, {"language": language})
        if self.tests is None:
            request = request_tests(self.settings, self.plan, self.number, candidate, subject, language)
            reply = self._ask("tests", request)
            if isinstance(reply, Rejection):
                return Verdict("tests", "unavailable", reply.reason)
            self.tests = read_tests(self.settings, language, reply.choices[0])
        tests = self.tests
        verifier = self.verification.verifier
        return self._kept(
            candidate, lambda: verifier.test(language, subject, tests, candidate.input), tests=tests
        )

    def _rewrite(self, failing: Candidate, tries: int) -> Candidate | None:
        """A new answer to a task whose answer failed; None where the model has none."""
        assert failing.verdict is not None  # noqa: S101 - it failed
        rejection = rejection_of(failing.verdict)
        assert rejection is not None  # noqa: S101 - it failed
        language = find(failing).language
        step = self.number * MOST_REPAIRS + tries
        request = repair_request(self.settings, self.plan, step, failing, rejection, language)
        reply = self._ask("repair", request)
        if isinstance(reply, Rejection):
            return None
        return read_repair(self.settings, failing, reply.choices[0], language)

    def _ask(self, purpose: str, request: Request) -> Reply | Rejection:
        """The reply; a refusal costs this candidate its tests or its repair, not the others of its index."""
        try:
            reply = self.complete(request)
        except RequestRefused as refusal:
            return Rejection(refusal.reason, {"message": str(refusal)})
        spent = reply.usage.prompt + reply.usage.completion
        self.tokens[purpose] = self.tokens.get(purpose, 0) + spent
        return reply


def _is_mended(candidate: Candidate, verdict: Verdict) -> bool:
    """Whether a new answer with this verdict may take the candidate's place.

    It has to pass. An answer without code fails at nothing, and is no repair of one with code; but what ran where
    the old one did not may well have no function to test.
    """
    failed = candidate.verdict
    ran = verdict.level == "tests" and verdict.status != "failed"
    return verdict.status == "passed" or (ran and failed is not None and failed.level != "tests")


def _repairable(candidate: Candidate) -> bool:
    verdict = candidate.verdict
    return verdict is not None and verdict.status == "failed" and verdict.reason not in TESTS_ARE_BAD
