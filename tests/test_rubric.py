from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.derive.rubric import Rating, read_objects, read_rating, read_rubric
from selfinstruct.errors import InputError

RUBRIC = read_rubric()
NAMES = ("helpfulness", "correctness", "clarity")


def test_the_bundled_rubric_and_what_a_prompt_says_of_it() -> None:
    assert tuple(criterion.name for criterion in RUBRIC.criteria) == NAMES
    assert (RUBRIC.lowest, RUBRIC.highest, RUBRIC.middle) == (1, 5, 3)
    text = RUBRIC.describe()
    assert text.startswith("correctness: ")  # the heaviest first
    assert all(f"\n  {number}: " in text for number in (1, 3, 5))
    assert RUBRIC.form().startswith('{"helpfulness": {"reason": "...", "score": ...}, ')


def test_the_schema_takes_what_the_form_shows() -> None:
    schema = RUBRIC.answer_schema(longest=100)
    assert schema["required"] == list(NAMES)
    assert schema["additionalProperties"] is False
    inner = schema["properties"]["clarity"]
    assert list(inner["properties"]) == ["reason", "score"]  # thinks before it says a number
    assert inner["properties"]["score"]["enum"] == [1, 2, 3, 4, 5]
    assert inner["properties"]["reason"]["maxLength"] == 100
    assert "maxLength" not in RUBRIC.answer_schema()["properties"]["clarity"]["properties"]["reason"]


WHOLE = {
    "helpfulness": {"reason": "does it", "score": 4},
    "correctness": {"reason": "fails on []", "score": 2},
    "clarity": {"reason": "plain", "score": 5},
}
SCORES = {"helpfulness": 4, "correctness": 2, "clarity": 5}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(WHOLE),
        f"Here you are:\n```json\n{json.dumps(WHOLE, indent=2)}\n```\nI hope that helps {{you}}.",
        json.dumps({"scores": SCORES}),
        json.dumps({name.upper(): str(score) for name, score in SCORES.items()}),
        json.dumps({"helpfulness": "4/5", "correctness": 2.0, "clarity": {"rating": "5 out of 5"}}),
        "{broken, {" + json.dumps(WHOLE),
        "Helpfulness: 4\nCorrectness: 2 - fails on []\nClarity: 5/5",
        "- **Helpfulness**: 4/5 - does it\n- **Correctness:** 2. fails\n* clarity = 5",
    ],
)
def test_a_rating_in_any_form(text: str) -> None:
    rating = read_rating(text, RUBRIC)
    assert rating is not None
    assert rating.scores == SCORES
    assert rating.score == pytest.approx((4 + 2 * 2 + 5) / 4)


def test_reasons_are_kept_with_the_numbers() -> None:
    rating = read_rating(json.dumps(WHOLE), RUBRIC)
    assert rating is not None
    assert rating.notes() == {
        "score": 3.25,
        "scores": SCORES,
        "reasons": {name: part["reason"] for name, part in WHOLE.items()},
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I would say it is good.",
        json.dumps({"helpfulness": 4, "clarity": 5}),
        json.dumps({**SCORES, "clarity": 6}),
        json.dumps({**SCORES, "clarity": 0}),
        json.dumps({**SCORES, "clarity": 4.5}),
        json.dumps({**SCORES, "clarity": True}),
        json.dumps({**SCORES, "clarity": None}),
        json.dumps({**SCORES, "clarity": "4/10"}),
        json.dumps([SCORES]).replace("[{", "[").replace("}]", "]"),
        '{"a":' * 100_000,
        "Helpfulness: 4\nCorrectness: 2\nClarity: 45",
    ],
)
def test_what_is_no_rating_is_none(text: str) -> None:
    assert read_rating(text, RUBRIC) is None


@given(st.text(max_size=300))
def test_reading_never_raises_and_a_score_is_on_the_scale(text: str) -> None:
    rating = read_rating(text, RUBRIC)
    assert rating is None or 1 <= rating.score <= 5
    assert all(isinstance(value, dict) for value in read_objects(text))


@given(
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 5), min_size=3, max_size=3), st.text(max_size=40)
)
def test_what_is_written_is_read(scores: dict[str, int], around: str) -> None:
    text = around.replace("{", "") + json.dumps(scores) + around
    rating = read_rating(text, RUBRIC)
    assert isinstance(rating, Rating)
    assert rating.scores == scores


def rubric_of(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_rubric_of_the_users(tmp_path: Path) -> None:
    path = rubric_of(tmp_path, 'lowest = 0\nhighest = 1\n[[criterion]]\nname = "safe"\nquestion = "Safe?"\n')
    rubric = read_rubric(path)
    rating = read_rating('{"safe": 1}', rubric)
    assert rating is not None
    assert rating.score == 1
    assert rubric.middle == 0.5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lowest = 1", "criterion"),
        ("criterion = []", "criterion"),
        ("[[criterion]]\nname = 'A b'\nquestion = 'q'", "name"),
        ("[[criterion]]\nname = 'a'\nquestion = ''", "question"),
        ("[[criterion]]\nname = 'a'\nquestion = 'q'\nweight = 0", "weight"),
        ("[[criterion]]\nname = 'a'\nquestion = 'q'\nsize = 1", "size"),
        ("lowest = 5\n[[criterion]]\nname = 'a'\nquestion = 'q'", "highest: must be above lowest"),
        ("[[criterion]]\nname = 'a'\nquestion = 'q'\nanchors = {9 = 'x'}", "outside of the scale"),
        (
            "[[criterion]]\nname = 'a'\nquestion = 'q'\n[[criterion]]\nname = 'a'\nquestion = 'q'",
            "the same name",
        ),
        ("[[", "not a TOML file"),
    ],
)
def test_a_rubric_that_is_none_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = rubric_of(tmp_path, text)
    with pytest.raises(InputError) as told:
        read_rubric(path)
    assert str(told.value).startswith(f"{path}: ")
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_a_rubric_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the rubric: No such file"):
        read_rubric(tmp_path / "none.toml")
