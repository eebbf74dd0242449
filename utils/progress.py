"""Progress bars that stay out of committed notebooks and logs."""

import os
from collections.abc import Iterable

from tqdm.auto import tqdm


def bars_are_shown() -> bool:
    """Whether the environment lacks COURSE_PROGRESS=0."""
    return os.environ.get("COURSE_PROGRESS", "1") != "0"


def progress(
    items: Iterable | None,
    description: str,
    total: int | None = None,
    done: int = 0,
    unit: str = "it",
    hidden: bool = False,
) -> tqdm:
    """items with a progress bar around them, which begins at done; for None, a bar to update().

    A bar stores a "0%" line and widget state in a notebook, so the tool that writes the committed
    notebooks, and the tests that compare them, set COURSE_PROGRESS=0; TQDM_DISABLE does not reach
    the notebook bars.
    """
    return tqdm(
        items,
        desc=description,
        total=total,
        initial=done,
        unit=unit,
        unit_scale=unit == "B",
        disable=hidden or not bars_are_shown(),
        leave=False,
    )
