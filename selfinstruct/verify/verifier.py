"""Runs what is to be verified, a few programs at a time, and says what came of it.

One verifier serves all threads. What is right or wrong with a single program is `run`'s to tell; which candidates
are verified, and what follows, is `loop`'s.
"""

from __future__ import annotations

import os
import threading

from selfinstruct.records import JSON, Candidate
from selfinstruct.verify.code import Code, Found, find_code
from selfinstruct.verify.run import run_code, run_program
from selfinstruct.verify.sandbox import Sandbox
from selfinstruct.verify.selftests import Trial, make_trials, names_nothing_known
from selfinstruct.verify.stubs import Outline
from selfinstruct.verify.verdict import Verdict

_TOLD = 2000  # characters of output that go into the evidence


class Verifier:
    """Verdicts on candidates; programs wait for their turn, so that none times out for want of a processor.

    Args:
        sandbox: where programs run; None where there is none: then nothing can be told.
        jobs: programs at a time; one for each processor if None.
    """

    def __init__(self, sandbox: Sandbox | None, jobs: int | None = None) -> None:
        self._sandbox = sandbox
        self.jobs = jobs or os.cpu_count() or 1
        self._turns = threading.BoundedSemaphore(self.jobs)

    def run(self, candidate: Candidate) -> Verdict:
        """Whether the candidate's program ends cleanly (level `run`)."""
        with self._turns:
            return run_program(find(candidate), candidate.input, self._sandbox, candidate.instruction)

    def test(self, language: str, subject: Outline, tests: str, input_: str) -> Verdict:
        """Whether a program passes tests that its stub does not pass (level `tests`)."""
        evidence: dict[str, JSON] = {"language": language}
        trials = make_trials(language, subject, tests)
        if trials is None:
            return Verdict(
                "tests", "failed", "bad_tests", evidence | {"message": "not to be parsed, or none left"}
            )
        answer, stub = trials
        came, why, said = self._try(language, answer, input_)
        if came == "not_begun":
            return Verdict("tests", "skipped", "ends_by_itself", evidence)
        if came != "passed":
            unknown = came == "unavailable" or names_nothing_known(subject.program, said) is not None
            return Verdict(
                "tests", "failed", "bad_tests" if unknown else why, evidence | {"message": said[-_TOLD:]}
            )
        if self._try(language, stub, input_)[0] == "passed":
            # Functions that only print, or change what they are given, may well look like this.
            reason = "weak_tests" if subject.returns else "nothing_returned"
            return Verdict("tests", "failed" if subject.returns else "skipped", reason, evidence)
        return Verdict("tests", "passed", evidence=evidence)

    def _try(self, language: str, trial: Trial, input_: str) -> tuple[str, str, str]:
        """How far a trial came (`passed`, `failed`, `not_begun`, `unavailable`), why no further, what it said."""
        assert self._sandbox is not None  # noqa: S101 - a program that could not be run has no tests
        with self._turns:
            verdict, printed = run_code(language, trial.program, self._sandbox, input_)
        out = printed.decode("utf-8", "replace")
        said = str(verdict.evidence.get("message", "")) or "it ended before the last test"
        if trial.end in out:
            return "passed", "", said
        if verdict.status in {"unavailable", "skipped"}:
            return "unavailable", verdict.reason, said
        return ("failed" if trial.begin in out else "not_begun"), verdict.reason or "ended_early", said


def find(candidate: Candidate) -> Found:
    """The code of a candidate's answer."""
    return find_code(
        candidate.instruction, candidate.input, candidate.output, candidate.language, candidate.kind
    )


def language_to_run(candidate: Candidate, *, anew: bool = False) -> str | None:
    """The language whose toolchain it takes to run an answer; None where nothing is run, or nobody can tell.

    Args:
        candidate: the task with its answer.
        anew: another answer is to be run, so it does not matter whether this one holds a program.
    """
    found = find(candidate)
    nothing = found.prose or found.fragment or not (anew or found.program)
    return None if nothing else found.language


def find_tested(candidate: Candidate, ran: Verdict) -> Code:
    """The program that tests are put behind: as it ran, so behind the code of the input where it needs that.

    Args:
        candidate: whose program ran.
        ran: the verdict of that.
    """
    found = find(candidate)
    if found.program is None:  # it ran in another version of ours, which found one
        return Code(None, "", "bare")
    language = found.program.language or found.language
    text = found.program.text
    if ran.evidence.get("behind") == "input":
        before = find_code("", "", candidate.input, language, "write").program
        text = f"{before.text}\n\n{text}" if before else text
    return Code(language, text, found.program.origin)
