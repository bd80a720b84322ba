"""Jinja for templates of strangers: its sandbox, set up as transformers does, with a bound on the steps of a rendering.

A step is a turn of a loop, a value that a loop looks at, a call of a macro or block, an element of a range, of a
list that a filter gets, or of a text or list that is repeated. What the steps give is the matter of `chat_templates`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, cast

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range

from selfinstruct.records import JSON

MOST_STEPS = 1_000_000  # of a rendering; a loop in a loop over 500 turns takes 250,000
_left: ContextVar[list[int] | None] = ContextVar("steps left", default=None)  # each thread has its own


class TooManySteps(Exception):
    """A rendering took more than `MOST_STEPS`."""

    def __init__(self) -> None:
        super().__init__(f"more than {MOST_STEPS} steps; is there a loop in a loop over range()?")


def take(steps: int = 1) -> bool:
    """Count steps; returns True, so that a condition may begin with it. Outside of a rendering nothing is counted.

    Raises:
        TooManySteps: there are none left.
    """
    left = _left.get()
    if left is not None:
        left[0] -= steps
        if left[0] < 0:
            raise TooManySteps
    return True


class Steps(Extension):
    """Gives compiled templates the way to `take`."""

    @property
    def one(self) -> bool:
        """A step is taken by looking: the sandbox checks every call, which costs five times as much."""
        return take()


class Bounded(ImmutableSandboxedEnvironment):
    """The sandbox with its own hooks for what takes time without a loop: powers, repetition, ranges, filters.

    Args:
        extensions: beside those that every chat template may use.
    """

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self, *extensions: type[Extension]) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[*extensions, Steps, loopcontrols])
        self.globals["range"] = _range
        self.filters |= {name: _counted(function) for name, function in self.filters.items()}

    def call_binop(self, context: Context, operator: str, left: JSON, right: JSON) -> JSON:
        """What `*` and `**` come to.

        Raises:
            SecurityError: a power, which can be longer than the memory.
            TooManySteps: something is repeated too often.
        """
        if operator == "**":
            raise SecurityError("a power (**), which no chat template needs")
        for one, times in ((left, right), (right, left)):
            if isinstance(times, int) and isinstance(one, (str, list, tuple)):
                take(len(one) * max(times, 0))
        return super().call_binop(context, operator, left, right)

    def compiled(self, tree: nodes.Template) -> Template:
        """The template of a syntax tree, which is changed: steps are counted in it."""
        for node in list(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block))):
            body = cast("list[nodes.Node]", getattr(node, "body"))  # noqa: B009 - all four have one
            body.insert(0, nodes.ExprStmt(self._step()).set_lineno(node.lineno))
            if isinstance(node, nodes.For) and node.test is not None:
                node.test = nodes.And(self._step(), node.test).set_lineno(node.lineno)
        tree.set_environment(self)
        return Template.from_code(self, self.compile(tree), self.make_globals(None))

    @staticmethod
    def _step() -> nodes.ExtensionAttribute:
        return nodes.ExtensionAttribute(Steps.identifier, "one")


def render(template: Template, **values: JSON) -> str:
    """The text of a template.

    Raises:
        TooManySteps: it does not come to an end in `MOST_STEPS`.
        Exception: whatever the template does wrong.
    """
    before = _left.set([MOST_STEPS])
    try:
        return template.render(**values)
    finally:
        _left.reset(before)


def _range(*bounds: int) -> range:
    found = safe_range(*bounds)
    take(len(found))
    return found


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    place = int(hasattr(function, "jinja_pass_arg"))  # of the value, behind what Jinja passes

    @wraps(function)
    def counted(*given: Any, **named: Any) -> Any:
        value = given[place] if len(given) > place else None
        take(len(value) if isinstance(value, (list, tuple, dict, range)) else 1)
        return function(*given, **named)

    return counted
