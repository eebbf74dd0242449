"""Scenes that are decoded once, into memory-mapped arrays.

    scenes = cached(open_scenes("toy", "train"), "data/cache")
    image_u8, label_ids = scenes.batch([3, 1, 4])       # one indexed read, no decoding
    on_gpu = scenes.to("cuda")                          # the same, from the GPU's own memory

A cache is a folder of three .npy files and a list of names; the folder's name carries a hash of
everything that the pixels depend on, so a changed file or size gets another folder, never stale
pixels.  While a cache is built, its name begins with a dot and ends in .part.  The list then says
how many scenes are safely in the arrays, and the next call continues from there.
"""

import contextlib
import copy
import ctypes
import functools
import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch.utils.data import DataLoader, Dataset

from utils.engine.graphs import send
from utils.files import DISK_FULL, check_room, disk_full, usable_cores
from utils.progress import progress
from utils.scenes import Scene, Scenes

_DTYPES = {"image_u8": np.uint8, "label_ids": np.uint8, "instance_ids": np.uint16}
_BATCH = ("image_u8", "label_ids")  # what batch() gives
_FACTS = "scenes.jsonl"  # one line a scene: name, city, time of day
_CHUNK = 8  # scenes that one process decodes in a row: neighbours in an archive are read together
_IF_FULL = ", or a smaller size, or fewer scenes; what is decoded is kept"
SCENES_PER_COMMIT = 64  # between two flushes to the disk


def cached(scenes: Scenes, folder: str | Path, workers: int | None = None) -> "CachedScenes":
    """Decode all scenes into memory-mapped arrays below folder, unless that was done before.

    The result has the interface of scenes, and its batch() is one indexed read.  After an
    interruption, the next call continues.  Several processes may call this at once: one decodes,
    the others wait for it.

    Args:
        folder: on a local disk; mounted drives are slow, and some can't lock files.
        workers: processes that decode; by default one a core (none for a handful of scenes).

    Raises:
        OSError: the disk is, or would be, full; folder can't be written to, or can't lock files.
        ValueError, FileNotFoundError: a scene can't be read; those before it are kept.
    """
    width, height = scenes.size
    name = f"{scenes.dataset}-{scenes.split}-{width}x{height}-{scenes.fingerprint()[:16]}"
    place = Path(folder) / name
    if not place.is_dir():
        with _one_process_at_a_time(place, scenes):
            if not place.is_dir():  # else another process has just built it
                _build(scenes, place, workers)
    return CachedScenes(scenes, place)


# ----------------------------------------------------------------------------- building


@contextlib.contextmanager
def _one_process_at_a_time(place: Path, scenes: Scenes) -> Iterator[None]:
    """Hold a lock that the system releases even if the process is killed."""
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            # Some drives refuse every lock in this way: test one that no other process can hold.
            with tempfile.TemporaryDirectory(prefix=".", dir=place.parent) as own:
                with FileLock(Path(own, "lock")).acquire(blocking=False):
                    pass
            with progress([], f"waiting for the process that is decoding {scenes}"):
                lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise OSError(
            f"{place.parent} can't hold a cache ({error}): choose another folder (--cache in a "
            "command), on a disk that can be written to and can lock files, as local disks can."
        ) from None
    try:
        yield
        # A process that waits for this lock, or makes a new one, finds the finished cache.
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)
    finally:
        lock.release()


def _build(scenes: Scenes, place: Path, workers: int | None) -> None:
    """Decode what is still missing into the .part folder beside place, then rename that."""
    part = place.with_name(f".{place.name}.part")
    part.mkdir(exist_ok=True)
    layout = _Layout(scenes)
    done = layout.count_done(part)
    needed = (len(scenes) - done) * layout.scene_bytes
    check_room(part.parent, needed, _IF_FULL)
    layout.cut(part, done)
    bar = progress(_decoded(scenes, part, done, workers), f"decoding {scenes}", len(scenes), done)
    pending = []  # facts of scenes that are written, but not flushed
    try:
        for facts in bar:
            pending.append(facts)
            if len(pending) == SCENES_PER_COMMIT:
                _commit(part, pending)
        _commit(part, pending)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise disk_full(part.parent, needed, _IF_FULL) from error
        _commit(part, pending)  # so that a scene that can't be read loses none before it
        raise
    os.rename(part, place)


def _commit(part: Path, pending: list[tuple[str, str, str]]) -> None:
    """Flush the pixels to the disk, and only then add the scenes to the list."""
    for field in _DTYPES:
        with open(part / f"{field}.npy", "r+b") as file:
            os.fsync(file.fileno())
    with open(part / _FACTS, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(facts) + "\n" for facts in pending)
    pending.clear()


def _listed(part: Path) -> list[bytes]:
    """The lines of the list in a .part folder; the last may be half-written."""
    facts = part / _FACTS
    return facts.read_bytes().splitlines(keepends=True) if facts.is_file() else []


class _Layout:
    """The position of each scene's arrays in the .npy files (numpy.lib.format), in bytes."""

    def __init__(self, scenes: Scenes):
        width, height = scenes.size
        self.headers, self.row_bytes = {}, {}
        for field, dtype in _DTYPES.items():
            shape = (3, height, width) if field == "image_u8" else (height, width)
            descriptor = np.lib.format.dtype_to_descr(np.dtype(dtype))
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header,
                {"descr": descriptor, "fortran_order": False, "shape": (len(scenes), *shape)},
            )
            self.headers[field] = header.getvalue()
            self.row_bytes[field] = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.scene_bytes = sum(self.row_bytes.values())

    def offset(self, field: str, row: int) -> int:
        return len(self.headers[field]) + row * self.row_bytes[field]

    def count_done(self, part: Path) -> int:
        """How many scenes are listed and in the arrays; a truncated line does not count."""
        done = sum(line.endswith(b"\n") for line in _listed(part))
        for field, row_bytes in self.row_bytes.items():
            path = part / f"{field}.npy"
            size = path.stat().st_size if path.is_file() else 0
            done = min(done, max(0, size - self.offset(field, 0)) // row_bytes)
        return done

    def cut(self, part: Path, done: int) -> None:
        """Shorten the list and the arrays to that many scenes; create them if they are missing."""
        (part / _FACTS).write_bytes(b"".join(_listed(part)[:done]))
        for field, header in self.headers.items():
            with open(part / f"{field}.npy", "r+b" if done else "w+b") as file:
                file.truncate(self.offset(field, done))
                file.write(header)

    def write(self, part: Path, row: int, scene: Scene) -> None:
        for field in _DTYPES:
            with open(part / f"{field}.npy", "r+b") as file:
                file.seek(self.offset(field, row))
                file.write(_as_stored(scene, field).data)


class _Decoder(Dataset):
    """Run by the worker processes: decode and write scene i -> its facts, or the error it raised.

    All of them write into the same files, each scene at its own offset, so that no pixels have to
    be sent to the main process.
    """

    def __init__(self, scenes: Scenes, part: Path):
        self.scenes, self.part, self.layout = scenes, part, _Layout(scenes)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int):
        try:
            scene = self.scenes[index]
            self.layout.write(self.part, index, scene)
            return scene.name, scene.city, scene.time_of_day
        except Exception as error:  # raised where the user sees it, without a worker's traceback
            return error


def _as_stored(scene: Scene, field: str) -> np.ndarray:
    array = getattr(scene, field).numpy()
    if field == "instance_ids" and not 0 <= array.min() <= array.max() <= 65535:
        raise ValueError(
            f"{scene.name} has instance ids from {array.min()} to {array.max()}, expected "
            "0..65535 (label id * 1000 + n)."
        )
    return np.ascontiguousarray(array, _DTYPES[field])


def _keep_freed_memory(worker: int) -> None:
    """Make glibc keep the memory of a scene's large buffers for the next scene.

    Getting it from the system again, page by page, would take a tenth of the whole time.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def _decoded(
    scenes: Scenes, part: Path, start: int, workers: int | None
) -> Iterator[tuple[str, str, str]]:
    """Decode and write scenes[start:] -> the facts of each, in order."""
    chunks = torch.arange(start, len(scenes)).split(_CHUNK)
    if workers is None:  # starting a process takes as long as decoding a few scenes
        workers = min(usable_cores(), len(chunks) // 2)
    loader = DataLoader(
        _Decoder(scenes, part),
        batch_sampler=[chunk.tolist() for chunk in chunks],
        num_workers=workers if workers > 1 else 0,
        collate_fn=list,  # leaves the results as they are
        worker_init_fn=_keep_freed_memory,
    )
    for chunk in loader:
        for facts in chunk:
            if isinstance(facts, Exception):
                raise facts
            yield facts


# ----------------------------------------------------------------------------- reading


class _MappedArrays:
    """The finished files, memory-mapped; a read copies rows out of the system's page cache."""

    def __init__(self, place: Path):
        self.place = place
        paths = {field: place / f"{field}.npy" for field in _DTYPES}
        self._maps = {
            field: np.load(path, mmap_mode="r", allow_pickle=False) for field, path in paths.items()
        }
        self._files = {field: open(path, "rb", buffering=0) for field, path in paths.items()}

    def read(self, fields: Sequence[str], rows: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """Copies of these fields of these rows."""
        maps = [self._maps[field] for field in fields]
        taken = [np.empty((len(rows), *array.shape[1:]), array.dtype) for array in maps]
        # Two cores copy a large batch faster than one.
        large = sum(array.nbytes for array in taken) > 1 << 22 and usable_cores() > 1
        half = len(rows) // 2 if large else 0

        def read_part(part: slice) -> None:
            for array, field in zip(taken, fields):
                self.read_into(array[part], field, rows[part])

        other = _helper(os.getpid()).submit(read_part, slice(half)) if half else None
        read_part(slice(half, None))
        if other:
            other.result()
        return tuple(
            torch.from_numpy(array.astype(np.int32) if field == "instance_ids" else array)
            for array, field in zip(taken, fields)
        )

    def read_into(self, taken: np.ndarray, field: str, rows: Sequence[int]) -> None:
        array, file = self._maps[field], self._files[field].fileno()
        if not hasattr(os, "preadv"):  # Windows
            array.take(rows, axis=0, out=taken)
            return
        # A third faster than reading through the map, because there are no page faults; and these
        # bytes don't count as this process's memory.
        for target, row in zip(taken, rows):
            if os.preadv(file, [target], array.offset + row * target.nbytes) != target.nbytes:
                raise OSError(f"{self.place} is truncated: delete it, and it will be made again.")

    def __reduce__(self):
        # Another process maps the files itself: pickled arrays would hold all pixels.
        return _mapped, (self.place,)


@functools.lru_cache(maxsize=1)
def _helper(process: int) -> ThreadPoolExecutor:
    """A thread that reads half of a large batch; a forked process has to start its own."""
    return ThreadPoolExecutor(1, "cache reader")


@functools.lru_cache(maxsize=16)
def _mapped(place: Path) -> _MappedArrays:
    return _MappedArrays(place)


class _DeviceArrays:
    """Some rows of the files in a device's memory."""

    def __init__(self, mapped: _MappedArrays, rows: list[int], device: torch.device):
        self._arrays, self._places = {}, {row: place for place, row in enumerate(rows)}
        for field in _DTYPES:
            parts = [mapped.read((field,), rows[i : i + 256])[0] for i in range(0, len(rows), 256)]
            self._arrays[field] = torch.cat([part.to(device) for part in parts])

    def read(self, fields: Sequence[str], rows: Sequence[int]) -> tuple[torch.Tensor, ...]:
        arrays = [self._arrays[field] for field in fields]
        places = torch.as_tensor([self._places[row] for row in rows])
        places = send(places, arrays[0].device)
        return tuple(array[places] for array in arrays)


class _StreamedArrays:
    """Rows that are copied to a device at each read."""

    def __init__(self, mapped: _MappedArrays, device: torch.device):
        self._mapped, self._device = mapped, device

    def read(self, fields: Sequence[str], rows: Sequence[int]) -> tuple[torch.Tensor, ...]:
        return tuple(send(array, self._device) for array in self._mapped.read(fields, rows))


class CachedScenes(Scenes):
    """Scenes that are decoded in memory-mapped arrays; made by cached()."""

    def __init__(self, scenes: Scenes, place: Path):
        lines = (place / _FACTS).read_text(encoding="utf-8").splitlines()
        kinds = scenes.map_kinds(range(len(scenes)))
        facts = (json.loads(line) for line in lines)
        entries = [(*f, kind, row) for row, (f, kind) in enumerate(zip(facts, kinds, strict=True))]
        super().__init__(scenes.dataset, scenes.split, scenes.size, entries)
        self._place = place
        self._arrays = _mapped(place)

    def batch(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Several scenes in one read -> image_u8 (B, 3, H, W), label_ids (B, H, W), both copies."""
        return self._arrays.read(_BATCH, self._rows(indices))

    def instance_batch(self, indices: Sequence[int]) -> torch.Tensor:
        """The instance maps of several scenes in one read -> (B, H, W) int32."""
        return self._arrays.read(("instance_ids",), self._rows(indices))[0]

    def to(self, device: torch.device | str, resident: bool | None = None) -> "CachedScenes":
        """The same scenes, with their pixels on that device.

        Args:
            resident: True copies all pixels to the device once, False copies each batch when it is
                read.  The default is True for a GPU if they fit into half of its free memory, and
                False for the CPU, where the files stay mapped.
        """
        device, moved = torch.device(device), copy.copy(self)
        mapped, rows = _mapped(self._place), self._rows(range(len(self)))
        if resident is None:
            resident = len(rows) * self._bytes_each() <= _free_memory(device) / 2
        if resident:
            moved._arrays = _DeviceArrays(mapped, rows, device)
        else:
            moved._arrays = mapped if device.type == "cpu" else _StreamedArrays(mapped, device)
        return moved

    def _rows(self, indices: Sequence[int]) -> list[int]:
        return [self._entries[int(index)][-1] for index in indices]

    def _load(self, name, city, time_of_day, kind, row):
        pixels = (array[0] for array in self._arrays.read(tuple(_DTYPES), [row]))
        return Scene(*pixels, name=name, city=city, time_of_day=time_of_day)

    def _bytes_each(self) -> int:
        width, height = self.size
        return (3 + 1 + 4) * width * height  # photo, label ids, instance ids

    def _identity(self, name, *source):
        return (str(self._place), name)

    def _kind(self, name, city, time_of_day, kind, row):
        return kind


def _free_memory(device: torch.device) -> int:
    """Free memory in bytes; 0 for the CPU, and for devices that don't report it."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
