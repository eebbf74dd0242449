"""Check the answers of the exercises."""

from collections.abc import Callable


def check(answer: object, right: object | Callable[[object], bool], hint: str) -> None:
    """Print whether an answer is right; an exercise without an answer is no error.

    Args:
        answer: the reader's, or ... as it stands in the notebook.
        right: the value that is expected, or a function that tells whether the answer, which may
            itself be a function, is right.
        hint: what to do about a wrong one.
    """
    if answer is ...:
        print("Not answered yet: replace the three dots, and run this cell again.")
    elif right(answer) if callable(right) else answer == right:
        print("Right.")
    else:
        print(f"Not yet: {hint}.")
