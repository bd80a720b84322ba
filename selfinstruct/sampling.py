"""What is asked for at index k: language, kind, topic and examples, balanced and repeatable.

Pure. Languages and kinds are not drawn blindly: a two-dimensional low-discrepancy sequence walks through
them, so that every stretch of a run has nearly the shares that the weights ask for.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from selfinstruct.errors import InputError
from selfinstruct.records import Candidate, Seed, row_id
from selfinstruct.seams import Plan

# The generalised golden ratio in two dimensions (the root of x^3 = x + 1): the additive recurrence with its
# powers fills the unit square evenly (M. Roberts, "The Unreasonable Effectiveness of Quasirandom Sequences").
_ROOT = 1.32471795724474602596
_STEP_LANGUAGE, _STEP_KIND = 1 / _ROOT, 1 / _ROOT**2


class Tasks(Protocol):
    """The accepted tasks that may serve as examples."""

    @property
    def tasks(self) -> Sequence[Candidate]:
        """Oldest first."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws plans from seeds.

    Every language and kind is asked for as often as the seeds have it, times the weights. `topics` are
    lists of subjects by language, with `general` for the others.

    Raises:
        InputError: `only_language` or `only_kind` leave no seed.
    """

    seeds: Sequence[Seed]
    seed: int = 0
    shots: int = 3
    machine_shots: int = 0
    only_language: tuple[str, ...] = ()
    only_kind: tuple[str, ...] = ()
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    topics: Mapping[str, Sequence[str]] = field(default_factory=dict)
    _weights: dict[tuple[str, str], float] = field(init=False)
    _tables: dict[str | None, Mapping[str, float]] = field(
        init=False
    )  # of languages, and of each one's kinds
    _offsets: tuple[float, float] = field(init=False)
    _kin: dict[tuple[str | None, str | None], list[Seed]] = field(init=False)  # None: whatever it is
    _with_input: dict[str | None, float] = field(init=False)  # the share of each kind's seeds

    def __post_init__(self) -> None:
        chosen = [
            seed
            for seed in self.seeds
            if (not self.only_language or seed.language in self.only_language)
            and (not self.only_kind or seed.kind in self.only_kind)
        ]
        if not chosen:
            there = sorted({seed.language for seed in self.seeds if seed.language})
            kinds = sorted({seed.kind for seed in self.seeds if seed.kind})
            raise InputError(
                "seeds: none is left by --only-language and --only-kind; the seeds have the languages "
                f"{', '.join(there) or '(not told)'} and the kinds {', '.join(kinds) or '(not told)'}"
            )
        weights: dict[tuple[str, str], float] = {}
        for seed in chosen:
            if seed.language and seed.kind:
                factor = self._factor("language", seed.language) * self._factor("kind", seed.kind)
                weights[seed.language, seed.kind] = weights.get((seed.language, seed.kind), 0.0) + factor
        if weights and not any(weights.values()):
            raise InputError(
                "weights: they leave no seed task; give one of its languages and kinds more than 0"
            )
        kin: dict[tuple[str | None, str | None], list[Seed]] = {}
        inputs: dict[str | None, list[bool]] = {}
        for seed in chosen:
            inputs.setdefault(seed.kind, []).append(bool(seed.input))
            for key in {(language, kind) for language in (seed.language, None) for kind in (seed.kind, None)}:
                kin.setdefault(key, []).append(seed)
        object.__setattr__(self, "_kin", kin)
        shares = {kind: sum(given) / len(given) for kind, given in inputs.items()}
        object.__setattr__(self, "_with_input", shares)
        object.__setattr__(self, "_weights", weights)
        tables: dict[str | None, dict[str, float]] = {None: {}}
        for (language, kind), weight in weights.items():
            tables[None][language] = tables[None].get(language, 0.0) + weight
            tables.setdefault(language, {})[kind] = weight
        object.__setattr__(self, "_tables", tables)
        rng = random.Random(f"{self.seed}:start")
        object.__setattr__(self, "_offsets", (rng.random(), rng.random()))

    @property
    def languages(self) -> frozenset[str]:
        """What is asked for, as far as the seeds tell."""
        return frozenset(language for (language, _), weight in self._weights.items() if weight)

    def _factor(self, axis: str, name: str) -> float:
        return self.weights.get(axis, {}).get(name, 1.0)

    def plan(self, k: int, view: Tasks) -> Plan:
        """The plan of index `k`, given the tasks accepted by then."""
        rng = random.Random(f"{self.seed}:{k}")
        language, kind = self._cell(k)
        machine = self._machine_shots(rng, view)
        shots = [*self._shots(rng, language, kind), *machine]
        rng.shuffle(shots)
        share = self._with_input.get(kind, 0.0)
        return Plan(
            k,
            tuple(shots),
            language,
            kind,
            self._topic(k, language),
            with_input=share > 0.5 and rng.random() < share,  # a kind that mostly needs none gets none
            seed=int.from_bytes(hashlib.sha256(f"{self.seed}:{k}".encode()).digest()[:4], "big") >> 1,
            derived_from=tuple(shot.id for shot in machine),
        )

    def _cell(self, k: int) -> tuple[str | None, str | None]:
        """The language and the kind of index k; None where the seeds do not tell them."""
        if not self._weights:
            return None, None
        first, second = self._offsets
        language = _pick(self._tables[None], (first + k * _STEP_LANGUAGE) % 1)
        return language, _pick(self._tables[language], (second + k * _STEP_KIND) % 1)

    def _shots(self, rng: random.Random, language: str | None, kind: str | None) -> list[Seed]:
        """Seeds without repetition: first one of the very cell, then of its language, of its kind, any."""
        wanted = ((language, kind), (language, None), (None, kind)) if language else ()
        everything, shots = self._kin[None, None], list[Seed]()
        for number in range(min(self.shots, len(everything))):
            fitting = self._kin.get(wanted[number], []) if number < len(wanted) else everything
            free = self._draw(rng, fitting, shots) or self._draw(rng, everything, shots)
            shots += free[:1]
        return shots

    @staticmethod
    def _draw(rng: random.Random, seeds: Sequence[Seed], taken: Sequence[Seed]) -> list[Seed]:
        """Seeds that are not taken yet, in random order: at least one, if there are any."""
        drawn = rng.sample(seeds, min(len(seeds), len(taken) + 1))
        return [seed for seed in drawn if seed not in taken]

    def _machine_shots(self, rng: random.Random, view: Tasks) -> list[Seed]:
        if not self.machine_shots:
            return []
        tasks = view.tasks
        drawn = rng.sample(range(len(tasks)), min(self.machine_shots, len(tasks)))
        return [
            Seed(row_id(task.row), task.instruction, task.input, task.output, task.language, task.kind)
            for task in (tasks[number] for number in drawn)
        ]

    def _topic(self, k: int, language: str | None) -> str | None:
        """A walk through the language's topics in random order; each round has an order of its own."""
        topics = self.topics.get(language or "", self.topics.get("general", ()))
        if not topics or language is None:
            return None
        turn, place = divmod(k, len(topics))
        return topics[_order(f"{self.seed}:{language}:{turn}", len(topics))[place]]


@lru_cache(256)
def _order(name: str, count: int) -> list[int]:
    return random.Random(name).sample(range(count), count)


def _pick(table: Mapping[str, float], at: float) -> str:
    """The name in whose share of the sum `at` (0 <= at < 1) falls, names in alphabetical order."""
    names = sorted(name for name, weight in table.items() if weight > 0)
    total = sum(table[name] for name in names)
    reached = 0.0
    for name in names:
        reached += table[name] / total
        if at < reached:
            return name
    return names[-1]
