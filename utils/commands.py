"""Parts that the project's commands share: a type of argument, errors without a traceback."""

import argparse
import io
import re
import sys
from collections.abc import Callable


def width_and_height(text: str) -> tuple[int, int]:
    """ "256x128" -> (256, 128); a type for argparse."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected WIDTHxHEIGHT, 256x128 for example")
    return int(match[1]), int(match[2])


def print_in_any_code_page() -> None:
    """Make print() write letters that the console's code page lacks as \\u7d50, for example."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # it may be a notebook's, or None
            stream.reconfigure(errors="backslashreplace")


def exit_status(command: Callable[[], int | None]) -> int:
    """Run a command -> what it returns (0 for None), 1 after an error, whose message is printed
    without a traceback, or 130 if it was interrupted."""
    print_in_any_code_page()
    try:
        return command() or 0
    except (OSError, ValueError, FloatingPointError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the same command continues.", file=sys.stderr)
        return 130
