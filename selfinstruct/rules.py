"""What a run's settings ask of a candidate: filters, benchmarks, verification. How it is judged is `pool`'s."""

from __future__ import annotations

from functools import partial

from selfinstruct import alpaca, filters
from selfinstruct.pool import Check, Filter, Rules, accept
from selfinstruct.settings import RunSettings, Settings
from selfinstruct.verify.loop import verifies_late
from selfinstruct.verify.syntax import check_syntax, syntax_verdict
from selfinstruct.verify.verdict import rejection_of


def rules_of_profile(settings: Settings) -> Rules:
    """The rules of `generate`: its filters are those of the profile."""
    if settings.profile == "code":
        return make_rules(settings, filters.refuse, filters.refuse_instruction)
    return make_rules(settings, *2 * [lambda candidate, _: alpaca.refuse(candidate)])


def make_rules(
    settings: RunSettings, refuse: Filter, refuse_instruction: Filter, *, checked: bool = True
) -> Rules:
    """The rules of a run.

    Args:
        settings: of the run.
        refuse: the filters of its job.
        refuse_instruction: those of them that need the instruction only.
        checked: whether every candidate is verified; else the recipe asks for what is to be.

    Raises:
        InputError: a benchmark of `--against` cannot be read.
    """
    late, off = verifies_late(settings), settings.verify == "off"
    return Rules(
        refuse,
        refuse_instruction,
        _no_overlap(settings),
        look=syntax_verdict if checked and not (late or off) else None,
        late=checked and late,
        object=partial(rejection_of, required=settings.require_verification),
        verify=accept if off else check_syntax,
    )


def _no_overlap(settings: RunSettings) -> Check:
    """The check against the benchmarks of `--against`."""
    if not settings.against:
        return accept
    from selfinstruct.verify.benchmarks import open_index

    return open_index(settings.against).refuse


def benchmarks_digest(settings: RunSettings) -> dict[str, str]:
    """A hash of the benchmarks of `--against`, where there are any, for the fingerprint."""
    if not settings.against:
        return {}
    from selfinstruct.verify import benchmarks

    return {"benchmarks": benchmarks.digest(settings.against)}
