from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct.errors import InputError
from selfinstruct.records import Candidate, Seed, row_id
from selfinstruct.sampling import Sampler
from selfinstruct.seams import Plan

WINDOW = 200


@dataclass
class Accepted:
    tasks: Sequence[Candidate] = ()


NONE = Accepted()


def seeds(**cells: int) -> list[Seed]:
    """`python_fix=3` makes three seeds of that language and kind."""
    made: list[Seed] = []
    for cell, count in cells.items():
        language, kind = cell.split("_")
        for number in range(count):
            text = f"{cell} {number}"
            made.append(
                Seed(
                    text, f"Do {text}.", f"in {text}" if kind == "fix" else "", f"out {text}", language, kind
                )
            )
    return made


MIXED = seeds(python_write=10, python_fix=6, sql_query=8, c_write=4, c_fix=4, go_write=5, go_explain=3)
UNTOLD = [replace(seed, language=None, kind=None) for seed in MIXED]


def walk(sampler: Sampler, count: int, begin: int = 0) -> list[Plan]:
    return [sampler.plan(k, NONE) for k in range(begin, begin + count)]


def shares(names: Sequence[str | None]) -> dict[str | None, float]:
    return {name: count / len(names) for name, count in Counter(names).items()}


def furthest(names: Sequence[str | None], expected: dict[str | None, float]) -> float:
    """How far, in indices, any window of 200 strays from the expected shares."""
    worst = 0.0
    for name, share in expected.items():
        sums = [0, *accumulate(found == name for found in names)]
        for begin in range(len(names) - WINDOW + 1):
            worst = max(worst, abs(sums[begin + WINDOW] - sums[begin] - share * WINDOW))
    return worst


def test_an_index_has_one_plan_whatever_was_planned_before() -> None:
    first, second = Sampler(MIXED, seed=5), Sampler(MIXED, seed=5)
    forwards = [first.plan(k, NONE) for k in range(60)]
    backwards = [second.plan(k, NONE) for k in reversed(range(60))]
    assert forwards == backwards[::-1]
    assert [plan.k for plan in forwards] == list(range(60))
    assert forwards != walk(Sampler(MIXED, seed=6), 60)


def test_a_plan_is_the_same_on_every_machine() -> None:
    plan = Sampler(MIXED, seed=3, topics={"general": ["one", "two", "three"]}).plan(17, NONE)
    assert (plan.language, plan.kind, plan.topic, plan.seed) == ("c", "write", "three", 1371833950)
    assert [shot.id for shot in plan.shots] == ["go_write 1", "c_write 0", "c_fix 0"]


def test_the_models_seed_differs_and_fits_into_31_bits() -> None:
    found = [plan.seed for plan in walk(Sampler(MIXED), 500)]
    assert len(set(found)) == 500
    assert all(0 <= seed < 2**31 for seed in found)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"language": {"python": 3.0, "c": 0.5}},
        {"kind": {"fix": 2.0, "query": 0.25}, "language": {"go": 4.0}},
    ],
)
def test_every_window_has_the_shares_the_weights_ask_for(
    seed: int, weights: dict[str, dict[str, float]]
) -> None:
    plans = walk(Sampler(MIXED, seed, weights=weights), 3000)
    cells: Counter[tuple[str | None, str | None]] = Counter()
    for one in MIXED:
        factors = [
            weights.get(axis, {}).get(name or "", 1.0)
            for axis, name in (("language", one.language), ("kind", one.kind))
        ]
        cells[one.language, one.kind] += factors[0] * factors[1]  # type: ignore[assignment]
    total = sum(cells.values())
    languages: Counter[str | None] = Counter()
    kinds: Counter[str | None] = Counter()
    for (language, kind), weight in cells.items():
        languages[language] += weight
        kinds[kind] += weight
    assert (
        furthest([plan.language for plan in plans], {name: n / total for name, n in languages.items()}) <= 3
    )
    assert (
        furthest([plan.kind for plan in plans], {name: n / total for name, n in kinds.items()}) <= 9
    )  # blind draws stray by 20
    found = Counter((plan.language, plan.kind) for plan in plans)
    for cell, weight in cells.items():
        assert abs(found[cell] / len(plans) - weight / total) < 0.02


def test_a_weight_of_nought_leaves_out_and_the_others_keep_their_shares() -> None:
    plans = walk(Sampler(MIXED, weights={"language": {"python": 0.0}, "kind": {"explain": 0.0}}), 400)
    assert {plan.language for plan in plans} == {"sql", "c", "go"}
    assert {plan.kind for plan in plans} == {"query", "write", "fix"}
    with pytest.raises(InputError, match="weights: they leave no seed"):
        Sampler(MIXED, weights={"language": dict.fromkeys(["python", "sql", "c", "go"], 0.0)})


def test_only_what_is_asked_for() -> None:
    plans = walk(Sampler(MIXED, only_language=("c", "go"), only_kind=("fix", "write")), 100)
    assert {(plan.language, plan.kind) for plan in plans} == {("c", "fix"), ("c", "write"), ("go", "write")}
    shown = {(shot.language, shot.kind) for plan in plans for shot in plan.shots}
    assert shown == {("c", "fix"), ("c", "write"), ("go", "write")}


@pytest.mark.parametrize(
    "only", [{"only_language": ("rust",)}, {"only_language": ("sql",), "only_kind": ("fix",)}]
)
def test_nothing_left_is_one_line_that_tells_what_there_is(only: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(InputError) as error:
        Sampler(MIXED, **only)  # type: ignore[arg-type]
    assert "languages c, go, python, sql and the kinds explain, fix, query, write" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"\(not told\)"):
        Sampler(UNTOLD, **only)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="none is left"):
        Sampler([])


def test_seeds_that_tell_nothing_are_shown_and_nothing_is_asked_for() -> None:
    plans = walk(Sampler(UNTOLD, topics={"general": ["x"]}), 100)
    assert {(plan.language, plan.kind, plan.topic) for plan in plans} == {(None, None, None)}
    assert {shot.id for plan in plans for shot in plan.shots} == {seed.id for seed in UNTOLD}


@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize("there", [UNTOLD, MIXED, MIXED[:2], MIXED[:1]])
def test_no_seed_is_shown_twice_and_no_more_than_there_are(there: list[Seed], count: int) -> None:
    for plan in walk(Sampler(there, shots=count), 30):
        assert len(plan.shots) == min(count, len(there))
        assert len({shot.id for shot in plan.shots}) == len(plan.shots)


def test_the_shots_are_kin_of_what_is_asked_for() -> None:
    for plan in walk(Sampler(MIXED), 300):
        assert any(shot.language == plan.language and shot.kind == plan.kind for shot in plan.shots)
        assert sum(shot.language == plan.language for shot in plan.shots) >= 2
    places = Counter(
        plan.shots.index(
            next(shot for shot in plan.shots if (shot.language, shot.kind) == (plan.language, plan.kind))
        )
        for plan in walk(Sampler(MIXED), 600)
    )
    assert set(places) == {0, 1, 2}  # the nearest has no fixed place


def test_an_input_is_asked_for_as_often_as_the_kind_has_one() -> None:
    half = [replace(seed, input="x" if number % 4 else "") for number, seed in enumerate(MIXED)]
    by_kind: dict[str | None, list[bool]] = {}
    for plan in walk(Sampler(half), 4000):
        by_kind.setdefault(plan.kind, []).append(plan.with_input)
    for kind, asked in by_kind.items():
        kin = [seed for seed in half if seed.kind == kind]
        expected = sum(bool(seed.input) for seed in kin) / len(kin)
        assert abs(sum(asked) / len(asked) - expected) < 0.06
    assert {plan.with_input for plan in walk(Sampler(MIXED, only_kind=("fix",)), 50)} == {True}
    assert {plan.with_input for plan in walk(Sampler(MIXED, only_kind=("write",)), 50)} == {False}


def test_topics_come_from_the_language_or_the_general_list() -> None:
    topics = {"python": ["a", "b", "c"], "sql": [], "general": [str(number) for number in range(40)]}
    plans = walk(Sampler(MIXED, topics=topics), 600)
    for plan in plans:
        wanted = topics.get(plan.language or "", topics["general"])
        assert plan.topic in wanted if wanted else plan.topic is None
    for language, least in (("python", 3), ("c", 35)):
        assert len({plan.topic for plan in plans if plan.language == language}) >= least
    only = walk(Sampler(MIXED, only_language=("c",), topics=topics), 80)
    assert sorted(plan.topic or "" for plan in only[:40]) == sorted(topics["general"])
    assert [plan.topic for plan in only[:40]] != [plan.topic for plan in only[40:]]
    assert {plan.topic for plan in walk(Sampler(MIXED), 5)} == {None}


def made_by_a_model(count: int) -> list[Candidate]:
    return [Candidate(f"Machine {n}.", f"in {n}", f"out {n}", "raw", "c", "fix") for n in range(count)]


@pytest.mark.parametrize("there", [0, 1, 2, 50])
def test_machine_shots_come_from_the_accepted_tasks(there: int) -> None:
    tasks = made_by_a_model(there)
    ids = {row_id(task.row): task for task in tasks}
    sampler = Sampler(MIXED, shots=3, machine_shots=2)
    shown: set[str] = set()
    for k in range(60):
        plan = sampler.plan(k, Accepted(tasks))
        machine = [shot for shot in plan.shots if shot.id in ids]
        assert len(machine) == min(2, there)
        assert len(plan.shots) == 3 + len(machine)
        assert set(plan.derived_from) == {shot.id for shot in machine}
        assert len(set(plan.derived_from)) == len(machine)
        for shot in machine:
            task = ids[shot.id]
            assert (shot.instruction, shot.input, shot.output) == (task.instruction, task.input, task.output)
        shown |= set(plan.derived_from)
    assert min(there, 20) <= len(shown) <= there
    assert sampler.plan(9, Accepted(tasks)) == sampler.plan(9, Accepted(list(tasks)))


def test_without_machine_shots_the_tasks_change_nothing() -> None:
    sampler = Sampler(MIXED)
    assert sampler.plan(4, Accepted(made_by_a_model(9))) == sampler.plan(4, NONE)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([None, "a", "b", "c"]), st.sampled_from([None, "x", "y"]), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    st.integers(),
    st.integers(1, 5),
    st.integers(0, 10**7),
)
def test_any_seeds_make_a_plan(
    cells: list[tuple[str | None, str | None, bool]], seed: int, shots: int, k: int
) -> None:
    there = [
        Seed(str(n), "i", "in" * given_, "o", language, kind)
        for n, (language, kind, given_) in enumerate(cells)
    ]
    plan = Sampler(there, seed, shots).plan(k, NONE)
    assert plan.k == k
    assert len(plan.shots) == min(shots, len(there))
    full = {f"{language} {kind}" for language, kind, _ in cells if language and kind}
    assert f"{plan.language} {plan.kind}" in (full or {"None None"})
