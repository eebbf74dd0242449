"""Work that is kept in a folder, so that it can be interrupted and resumed."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

import torch
from accelerate import Accelerator
from torch import Tensor

from utils.files import write_atomically
from utils.weights import differing, load_checkpoint, save_checkpoint

CHECKPOINT, JOURNAL = "last.pt", "results.jsonl"
READ_EVERY = 20  # steps between reads of the losses, each of which synchronises with the GPU


class Run:
    """A folder that keeps a training's checkpoint, or a journal of finished items.

        run = Run("runs/mine", {"seed": 0})
        record = run.load(parts) or {"epochs": 0}
        run.save(parts, record)

    Args:
        folder: made when something is saved; None keeps nothing.
        settings: what must be the same before and after an interruption.
    """

    def __init__(self, folder: str | Path | None, settings: dict):
        self.folder = None if folder is None else Path(folder)
        self.settings = settings

    @property
    def has_checkpoint(self) -> bool:
        return self.folder is not None and (self.folder / CHECKPOINT).is_file()

    def load(self, parts: dict) -> object:
        """Put the checkpoint's state into the parts -> its record; None if there is no checkpoint.

        Call it after Accelerate's prepare(), which would move a loaded optimizer state to the GPU;
        each step would then have to synchronise with it to read Adam's step counts.
        Raises ValueError if the checkpoint is of a training with other settings.
        """
        if not self.has_checkpoint:
            return None
        return load_checkpoint(self.folder / CHECKPOINT, parts, self.settings)

    def save(self, parts: dict, record: object) -> None:
        """Write the checkpoint atomically; of several processes, only one may call it."""
        if self.folder is not None:
            save_checkpoint(self.folder / CHECKPOINT, parts, record, self.settings)

    def diverged(self, what: str) -> FloatingPointError:
        """The error for a loss that is NaN or infinite: says what is left of the training."""
        kept = "nothing was kept before it"
        if self.has_checkpoint:
            kept = f"{self.folder / CHECKPOINT} holds the last good checkpoint"
        return FloatingPointError(
            f"{what}: the training has diverged, and {kept}. Start again with a smaller "
            'learning_rate, or with precision="fp32" if it was "fp16".'
        )

    def items(self) -> list[dict]:
        """The journal's items so far; the folder and the journal are made.

        A kill, or a full disk, may have cut the last line short: it is left out.
        Raises ValueError if the items were made with other settings.
        """
        path = self.folder / JOURNAL
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        header, *lines = [line for line in lines if line.endswith("}\n")] or [""]
        if header:
            differences = differing(json.loads(header).get("settings", {}), self.settings)
            if differences:
                was, now = differences
                raise ValueError(
                    f"{self.folder} holds results that were made with {was}; this run has {now}: "
                    "choose another folder, or delete that one to start anew."
                )
        # Rewritten, so that no line is appended to one that was cut short.
        content = json.dumps({"settings": self.settings}) + "\n" + "".join(lines)
        write_atomically(path, lambda part: part.write_text(content, encoding="utf-8"))
        return [json.loads(line) for line in lines]

    def add_items(self, items: Iterable[dict]) -> None:
        """Append items to the journal; what they describe must be on the disk already."""
        with open(self.folder / JOURNAL, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(item) + "\n" for item in items))


class LossLog:
    """The losses of a training, read every READ_EVERY steps.

    Args:
        where: what the error message says after the number of the step: " of epoch 3".
        history: a list for each loss, one value a step; it grows.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        run: Run,
        where: str = "",
        history: dict[str, list[float]] | None = None,
    ):
        self.history = {} if history is None else history
        self._accelerator, self._run, self._where = accelerator, run, where
        self._waiting: list[dict[str, Tensor]] = []
        self._added, self._start = 0, time.perf_counter()
        self.latest = ""  # what was read last, for a progress bar

    @property
    def steps(self) -> int:
        """How many steps have been read."""
        return len(next(iter(self.history.values()), ()))

    def speed(self) -> float:
        """Steps a second since this log was made."""
        return self._added / (time.perf_counter() - self._start)

    def add(self, losses: dict[str, Tensor]) -> None:
        """Take one step's losses, scalars; every READ_EVERY steps call read(), which may raise."""
        self._waiting.append(losses)
        self._added += 1
        if len(self._waiting) == READ_EVERY:
            self.read()

    def read(self) -> None:
        """Bring the history up to date with the mean of all processes.

        Raises FloatingPointError, which names loss and step, if one is NaN or infinite.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        names = list(waiting[0])
        losses = torch.stack([torch.stack([x[name].float() for name in names]) for x in waiting])
        losses = self._accelerator.reduce(losses, "mean").cpu()  # (steps, losses)
        if not losses.isfinite().all():
            row, column = (~losses.isfinite()).nonzero()[0].tolist()
            step = self.steps + row + 1
            raise self._run.diverged(
                f"The {names[column]} loss is {losses[row, column]} in step {step}{self._where}"
            )
        for name, values in zip(names, losses.T.tolist(), strict=True):
            self.history.setdefault(name, []).extend(values)
        self.latest = ", ".join(f"{name} {mean:.3f}" for name, mean in self.means(1).items())

    def means(self, last: int | None = None) -> dict[str, float]:
        """The mean of each loss over the last steps, or all; see read()."""
        self.read()
        return {name: fmean(values[-(last or 0) :]) for name, values in self.history.items()}
