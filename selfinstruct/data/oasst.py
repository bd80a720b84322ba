"""Message trees of Open Assistant: which one conversation of a tree is taken. Reads no file.

From the prompt on, the best reply is followed: the one of the lowest rank, unranked ones after the ranked,
the first in the file among equals. Deleted messages and those that reviewers refused are passed over. The
conversation ends with the last answer of the assistant; a question after it is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from selfinstruct.data.rows import Example, FormError, Message, number_of, text_of
from selfinstruct.records import JSON

_NAMES = ("message_id", "message_tree_id")
_ROLES = {"prompter": "user", "assistant": "assistant", "user": "user", "system": "system"}


def best_path(tree: dict[str, JSON]) -> Example:
    """The conversation along the best replies of a tree (`prompt` with nested `replies`).

    Raises:
        FormError: a message lacks its text or role, or the assistant never answers.
    """
    messages: list[Message] = []
    node: dict[str, JSON] | None = tree["prompt"] if isinstance(tree.get("prompt"), dict) else None
    if node is None:
        raise FormError("the field 'prompt' is missing or no message")
    answered, score, first = 0, None, node
    while node is not None:
        role = _ROLES.get(str(node.get("role")))
        if role is None:
            raise FormError(f"a message of the role {str(node.get('role'))[:40]!r}")
        messages.append(Message(role, text_of(node, "text")))
        if role == "assistant":
            answered, score = len(messages), _quality(node)
        replies = node.get("replies") or []
        if not isinstance(replies, list):
            raise FormError("the field 'replies' is no list of messages")
        node = min(filter(_stands, replies), key=_rank, default=None)
    if not answered:
        raise FormError("a tree in which the assistant never answers")
    extra = {name: tree[name] for name in ("message_tree_id", "tree_state") if tree.get(name) is not None}
    if isinstance(first.get("lang"), str):
        extra["lang"] = first["lang"]
    return Example(tuple(messages[:answered]), "", score, extra)


def _stands(node: JSON) -> bool:
    if not isinstance(node, dict):
        raise FormError("the field 'replies' holds what is no message")
    return not node.get("deleted") and node.get("review_result") is not False


def _rank(node: dict[str, JSON]) -> float:
    return float("inf") if node.get("rank") is None else number_of(node["rank"], "rank")


def _quality(node: dict[str, JSON]) -> float | None:
    """The quality that people saw in a message, 0 to 1: two forms of the same labels are in use."""
    labels = node.get("labels")
    if not isinstance(labels, dict):
        return None
    found = labels.get("quality")
    if isinstance(found, dict):
        found = found.get("value")
    names, values = labels.get("name"), labels.get("value")
    if found is None and isinstance(names, list) and isinstance(values, list) and "quality" in names:
        at = names.index("quality")
        found = values[at] if at < len(values) else None
    return None if found is None else number_of(found, "labels.quality")


def grow_trees(rows: Iterable[tuple[int, JSON]]) -> Iterator[tuple[int, dict[str, JSON] | FormError]]:
    """Trees out of a flat export, one message a row, the rows of a tree one after the other.

    Args:
        rows: (row number, message) in the order of the file.

    Yields:
        (row number of its prompt, tree), or what is wrong there.
    """
    done: set[str] = set()
    group: list[tuple[int, dict[str, JSON]]] = []
    name = ""
    for number, row in rows:
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in _NAMES):
            yield number, FormError(f"the fields {' and '.join(_NAMES)} are not both there as text")
            continue
        if group and row["message_tree_id"] != name:
            done.add(name)
            yield group[0][0], _grown(group)
            group = []
        name = row["message_tree_id"]
        if name in done:
            yield (
                number,
                FormError(f"the tree {name[:40]!r} goes on far from its start; sort by message_tree_id"),
            )
            continue
        group.append((number, row))
    if group:
        yield group[0][0], _grown(group)


def _grown(group: list[tuple[int, dict[str, JSON]]]) -> dict[str, JSON] | FormError:
    nodes = {row["message_id"]: {**row, "replies": []} for _, row in group}
    roots = []
    for _, row in group:
        node, parent = nodes[row["message_id"]], row.get("parent_id")
        if parent is None:
            roots.append(node)
        elif parent in nodes:
            nodes[parent]["replies"].append(node)
    if len(roots) != 1:
        return FormError(f"a tree of {len(roots)} prompts, where one is needed")
    tree = {name: roots[0].get(name) for name in ("message_tree_id", "tree_state")}
    return {**tree, "prompt": roots[0]}
