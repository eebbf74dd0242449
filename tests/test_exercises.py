"""What a reader is told about an answer."""

import pytest

from utils.exercises import check


@pytest.mark.parametrize(
    "answer, right, told",
    [
        (..., "road", "Not answered yet"),
        (..., lambda answer: 1 / 0, "Not answered yet"),
        ("road", "road", "Right."),
        ("sky", "road", "Not yet: look down."),
        (len, lambda answer: answer("abc") == 3, "Right."),
        (max, lambda answer: answer("abc") == 3, "Not yet: look down."),
    ],
)
def test_check(answer, right, told, capsys):
    check(answer, right, "look down")
    assert capsys.readouterr().out.startswith(told)
