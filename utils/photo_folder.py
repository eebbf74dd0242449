"""Run a folder of photos through the pipeline: resumable, with an HTML page of the results.

    report = run_folder(pipeline, "my photos", "out/my photos")

From a shell, where the same command continues after an interruption:

    python -m utils.photo_folder PHOTOS --out DIR

By default the command takes the two bundled networks that were trained on real photos.  In the
output folder, each photo has one file under its own name in each of FOLDERS, and a line in
results.jsonl as soon as all of these are on the disk.  The next call processes the photos that have
no line.
"""

import argparse
import hashlib
import html
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

import torch
from torch import Tensor

from utils.commands import exit_status
from utils.credits import CREDITS, city_of
from utils.engine import Run
from utils.files import DISK_FULL, disk_full, usable_cores, write_atomically
from utils.folders import file_identity
from utils.images import ImageWriter, read_photo
from utils.labels import BENCHMARK_IDS, COLORS, NAMES, label_ids_to_colors
from utils.pipeline import PHOTO_STYLE, PRECISIONS, Pipeline, agreement, load_pipeline
from utils.progress import progress
from utils.scenes import open_photos
from utils.weights import OWN_LICENCE

# All PNG, which is lossless: the second map is also that of the saved generated image.
FOLDERS = {
    "photos": "the photo, turned upright, cropped around its centre and resized",
    "maps": "the map that the network predicts from it, in the Cityscapes colours",
    "label_ids": "the same map as label ids 0..33, one channel",
    "generated": "the image that SPADE generates from that map",
    "second_maps": "the map that the network predicts from the generated image, in colours",
    "second_label_ids": "the same map as label ids",
}
SHOWN = ("photos", "maps", "generated", "second_maps")  # on the page; maps of ids look black
PAGE = "index.html"
PAGE_SECONDS = 10  # between two versions of the page while the work goes on
LONGEST_NAME = 251  # bytes; with .png 255, which most file systems allow


@dataclass(frozen=True)
class Record:
    """One photo that is done: a line of results.jsonl.

    Attributes:
        photo: the name of its file.
        identity: its file's size and time of modification.
        name: the name of its results in FOLDERS, without .png.
        agreement: share of the pixels with the same label in both maps.
        city: of a photo that came with the project, for CREDITS; None for all others.
    """

    photo: str
    identity: list[int]
    name: str
    agreement: float
    city: str | None = None

    def files(self, out: Path) -> list[Path]:
        return [out / folder / f"{self.name}.png" for folder in FOLDERS]


@dataclass(frozen=True)
class FolderReport:
    """The result of run_folder().

    Attributes:
        records: one a photo that is done, now or earlier, by the name of its file.
        new, seconds: how many of them this call has done, and how long it took.
        unreadable: file name -> a sentence that names the file and says why it was skipped: it
            can't be read, or its results can't be written.
        page: the page to open in a browser.
    """

    records: dict[str, Record]
    new: int
    seconds: float
    unreadable: dict[str, str]
    page: Path

    def __str__(self) -> str:
        speed = f", {self.new / self.seconds:.2f} a second" if self.new else ""
        skipped = f", {len(self.unreadable)} skipped" if self.unreadable else ""
        return (
            f"{len(self.records)} photos done ({self.new} now{speed}){skipped}; "
            f"{_mean_agreement(self.records)}\n"
            f"open in a browser: {self.page}"
        )


def run_folder(
    pipeline: Pipeline, photos: str | Path, out: str | Path, batch_size: int = 8
) -> FolderReport:
    """Photo -> map -> photo -> map for a whole folder, with a progress bar.

    It may be killed at any time: the same call continues, repeats nothing that is on the disk, and
    leaves no half-written file.  A photo that has changed is done again; results of photos that
    were removed stay.  A photo that can't be read, or whose results can't be written, is skipped.
    Only one call at a time may write to an output folder.

    Args:
        photos: a folder of JPEG, PNG or WebP files of any size, or one such file; never changed.
        out: the folder for the results, see FOLDERS; it is made.
        batch_size: how many photos go through at a time.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no photo, it lies in the output folder, or the results that are in the
            output folder were made with other networks or settings.
        OSError: the disk is full, or out can't be written to; what was written stays, and the next
            call continues.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: expected 1 or more.")
    photos, out = Path(photos), Path(out)
    size = pipeline.generator.size
    opened = open_photos(photos, size)
    paths = opened.paths
    if out.resolve() in paths[0].resolve().parents:
        raise ValueError(f"The photos lie in {out}, the folder to write to: choose another one.")
    run = Run(out, settings_of(pipeline))
    records = _open_results(run)
    todo = [path for path in paths if not _is_done(records.get(path.name), path, out)]
    new, start = 0, time.perf_counter()
    unreadable = {
        path.name: f"{path} is no JPEG, PNG or WebP file: save it as one of these first."
        for path in opened.left_out
    }
    terms = _terms(pipeline)
    _write_page(out, size, records, unreadable, terms)
    written = time.perf_counter()
    bar = progress(None, "photos", total=len(paths), done=len(paths) - len(todo))
    try:
        for batch in _batches(todo, size, batch_size, unreadable):
            done = _run_batch(pipeline, batch, out, records, unreadable)
            run.add_items(asdict(record) for record in done)
            records |= {record.photo: record for record in done}
            new += len(done)
            bar.update(len(done))
            if time.perf_counter() - written > PAGE_SECONDS:
                _write_page(out, size, records, unreadable, terms)
                written = time.perf_counter()
    finally:
        bar.close()
        _write_page(out, size, records, unreadable, terms)
    seconds = time.perf_counter() - start
    return FolderReport(records, new, seconds, unreadable, out / PAGE)


# ----------------------------------------------------------------------------- what is done already


def settings_of(pipeline: Pipeline) -> dict[str, str]:
    """All that the results depend on: hashes of weights and style, the size, the precision."""
    style = "mean" if pipeline.z is None else _hash({"z": pipeline.z})
    if pipeline.encoder is not None:
        style = f"{PHOTO_STYLE} {_hash(pipeline.encoder.state_dict())}, {style} without one"
    return {
        "segmenter": _hash(pipeline.segmenter.state_dict()),
        "generator": _hash(pipeline.generator.state_dict()),
        "style": style,
        "precision": pipeline.precision,
        "size": "{}x{}".format(*pipeline.generator.size),
    }


def _hash(tensors: dict[str, Tensor]) -> str:
    """A checksum of the names and numbers, the same on any device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        numbers = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(numbers.numpy())
    return digest.hexdigest()[:16]


def _open_results(run: Run) -> dict[str, Record]:
    """The records of an output folder, by photo.  It is made, or leftovers of a kill are deleted.

    Raises ValueError if they were made with other settings, OSError if out can't be written to.
    """
    try:
        records = [Record(**item) for item in run.items()]
        for folder in (run.folder, *(run.folder / name for name in FOLDERS)):
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob(".*.part"):
                leftover.unlink()
    except OSError as error:
        raise _not_writable(run.folder, error) from error
    return {record.photo: record for record in records}


def _is_done(record: Record | None, path: Path, out: Path) -> bool:
    try:
        return (
            record is not None
            and record.identity == list(file_identity(path))
            and all(file.is_file() for file in record.files(out))
        )
    except OSError:  # reported when the photo is read, or its results are written
        return False


# ----------------------------------------------------------------------------- the work


@dataclass(frozen=True)
class _Photo:
    path: Path
    identity: list[int]
    image_u8: Tensor  # (3, H, W)


def _batches(
    paths: Sequence[Path], size: tuple[int, int], batch_size: int, unreadable: dict[str, str]
) -> Iterator[list[_Photo]]:
    """The readable photos in batches; why a photo can't be read goes into unreadable."""
    batch = []
    for path, reading in _read_ahead(paths, size, 2 * batch_size):
        try:
            batch.append(reading.result())
        except (OSError, ValueError) as error:
            unreadable[path.name] = str(error)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _read_ahead(paths: Sequence[Path], size: tuple[int, int], ahead: int) -> Iterator[tuple]:
    """(path, future of its _Photo): decodes photos while earlier ones are processed."""
    waiting = deque()
    with ThreadPoolExecutor(usable_cores(), "photo reader") as readers:
        for path in paths:
            waiting.append((path, readers.submit(_read, path, size)))
            if len(waiting) > ahead:  # memory stays bounded
                yield waiting.popleft()
        yield from waiting


def _read(path: Path, size: tuple[int, int]) -> _Photo:
    identity = list(file_identity(path))  # before reading: a change in between is noticed next time
    return _Photo(path, identity, read_photo(path, size))


def _run_batch(
    pipeline: Pipeline,
    batch: list[_Photo],
    out: Path,
    records: dict[str, Record],
    unreadable: dict[str, str],
) -> list[Record]:
    """Process a batch and write its pictures -> the records of the photos that are done.

    Raises OSError for what concerns all photos: the disk is full, or can't be written to.
    """
    result = pipeline.run(torch.stack([photo.image_u8 for photo in batch]))
    shares = agreement(result.label_ids, result.generated_label_ids).tolist()
    pictures = (  # in the order of FOLDERS
        result.image_u8,
        label_ids_to_colors(result.label_ids),
        result.label_ids,
        result.generated_u8,
        label_ids_to_colors(result.generated_label_ids),
        result.generated_label_ids,
    )
    taken = {record.name.lower(): record.photo for record in records.values()}
    writer, written = ImageWriter(), []
    try:
        for photo, share, *stages in zip(batch, shares, *(stage.cpu() for stage in pictures)):
            name = _result_name(photo.path, taken)
            city = city_of(photo.path)
            record = Record(photo.path.name, photo.identity, name, round(share, 4), city)
            written.append((photo.path, record))
            for stage, file in zip(stages, record.files(out)):
                writer.save(stage, file)
    finally:
        writer.wait()
    done = []
    for path, record in written:
        error = next(filter(None, map(writer.errors.get, record.files(out))), None)
        if error is None:
            done.append(record)
        elif getattr(error, "errno", None) in DISK_FULL:
            raise disk_full(out, None, "; the same call continues") from error
        else:
            _check_writable(out)
            unreadable[path.name] = (
                f"{path} was skipped: its results can't be written ({error}); rename the photo."
            )
    return done


def _result_name(photo: Path, taken: dict[str, str]) -> str:
    """A name for a photo's results that no other photo has; it is noted in taken.

    a.jpg becomes a.png; if there is an a.webp too, that one becomes a.webp.png.
    """
    name = photo.stem
    while taken.setdefault(name.lower(), photo.name) != photo.name:
        name += photo.suffix
        if len(os.fsencode(name)) > LONGEST_NAME:
            name = f"{name[:40]} {hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
    return name


def _check_writable(out: Path) -> None:
    """Raise OSError if results with any other name can't be written either."""
    for folder in FOLDERS:
        probe = out / folder / ".probe.part"
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise _not_writable(probe.parent, error) from error


def _not_writable(folder: Path, error: OSError) -> OSError:
    return OSError(
        f"{folder} can't be written to ({error}): correct that and call again, or choose another "
        "folder for the results (--out in the command)."
    )


# ----------------------------------------------------------------------------- the page


def _write_page(
    out: Path,
    size: tuple[int, int],
    records: dict[str, Record],
    unreadable: dict[str, str],
    terms: Sequence[str] = (),
) -> None:
    page = _PAGE.format(
        ratio=f"{size[0]} / {size[1]}",  # known before pictures are loaded: nothing jumps
        summary=f"{len(records)} photos; {_mean_agreement(records)}.",
        skipped="".join(f"<li>{html.escape(message)}</li>" for message in unreadable.values()),
        legend="".join(_legend(label) for label in BENCHMARK_IDS),
        headings="".join(f'<th title="{html.escape(FOLDERS[x])}">{_heading(x)}' for x in SHOWN),
        rows="\n".join(_row(records[photo]) for photo in sorted(records)),
        licences="".join(f"<p>{line}</p>" for line in (*_share_alike(records), *terms)),
    )
    # A name from an old archive may hold bytes that are not valid UTF-8.
    data = page.encode("utf-8", errors="replace")
    write_atomically(out / PAGE, lambda part: part.write_bytes(data))


def _mean_agreement(records: dict[str, Record]) -> str:
    if not records:
        return "none is done yet"
    mean = statistics.mean(record.agreement for record in records.values())
    return f"on average both maps agree on {mean:.1%} of the pixels"


def _heading(folder: str) -> str:
    return folder.replace("_", " ").removesuffix("s")


def _legend(label: int) -> str:
    color = tuple(COLORS[label].tolist())
    return f'<span><i style="background: rgb{color}"></i>{NAMES[label]}</span>'


def _row(record: Record) -> str:
    cells = "".join(
        f'<td><a href="{link}"><img loading="lazy" src="{link}" alt="{_heading(folder)}"></a>'
        + (_credit(record) if folder == "photos" else "")
        for folder in SHOWN
        for link in [quote(os.fsencode(f"{folder}/{record.name}.png"))]
    )
    return f"<tr><th>{html.escape(record.photo)}<br><b>{record.agreement:.1%}</b>{cells}"


def _credit(record: Record) -> str:
    """A line below a photo that came with the project; nothing below any other."""
    credit = CREDITS.get(record.city)
    if credit is None:
        return ""
    text = html.escape(str(credit))
    address = html.escape(f"{credit.licence} ({credit.licence_url})")
    text = text.replace(address, _link(credit.licence, credit.licence_url))
    text = text.replace(html.escape(credit.source), _link(credit.source, credit.source_url), 1)
    return f"<small>{text}</small>"


def _link(text: str, url: str | None) -> str:
    return f'<a href="{html.escape(url)}">{html.escape(text)}</a>' if url else html.escape(text)


def _share_alike(records: dict[str, Record]) -> list[str]:
    """A sentence for each licence that holds for what is made from a photo, too."""
    credits = {CREDITS[record.city] for record in records.values() if record.city in CREDITS}
    return [
        f"Maps and pictures that are made from a photo under {_link(x.licence, x.licence_url)} "
        "are under the same licence: not for commercial use."
        for x in sorted(credits, key=str)
        if "NC-SA" in x.licence
    ]


def _terms(pipeline: Pipeline) -> list[str]:
    """A sentence for the licence of the networks, if it restricts what they may be used for."""
    networks = (pipeline.segmenter, pipeline.generator)
    licences = {getattr(network, "licence", None) for network in networks} - {None, OWN_LICENCE}
    return [
        f"Made by networks under {html.escape(licence)}: not for commercial use."
        for licence in sorted(licences)
    ]


_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Photo, map, photo, map</title>
<style>
body {{ font: 15px system-ui, sans-serif; margin: 1em auto; max-width: 1400px; padding: 0 1em }}
table {{ border-collapse: collapse; width: 100%; table-layout: fixed }}
th {{ font-weight: normal; text-align: left; padding: 2px 6px; overflow-wrap: anywhere }}
td {{ padding: 2px; vertical-align: top }}
img {{ width: 100%; aspect-ratio: {ratio}; display: block; background: #ddd }}
td:nth-child(odd) img {{ image-rendering: pixelated }}
span {{ display: inline-block; margin-right: 1em }}
small {{ display: block; line-height: 1.2; color: #555 }}
i {{ display: inline-block; width: 1em; height: 1em; margin-right: .3em; vertical-align: -2px }}
</style>
<h1>Photo, map, photo, map</h1>
<p>{summary}  The figure beside a photo is the share of its pixels that carry the same label in both
maps.  Click a picture to see it alone; maps of label ids lie in <code>label_ids</code> and
<code>second_label_ids</code>.</p>
<ul>{skipped}</ul>
<p>{legend}</p>
<table>
<tr><th style="width: 14%">{headings}
{rows}
</table>
{licences}
</html>
"""


# ----------------------------------------------------------------------------- the command


def main(arguments: list[str] | None = None) -> int:
    """The command line -> exit status: 0, 1 if a photo was skipped, 130 if interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.photo_folder",
        description="A folder of photos -> label maps -> generated photos -> label maps, and a "
        "page that shows them.  After an interruption, the same command continues.",
    )
    parser.add_argument("photos", type=Path, help="a folder of JPEG, PNG or WebP photos, or one")
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures and page")
    named = "what it was trained on, or a file of weights"
    parser.add_argument(
        "--segmenter",
        default="streets",
        help=f"{named}: streets (the default), toy; or a published network, "
        "segformer or hf:ORGANISATION/NAME",
    )
    parser.add_argument(
        "--generator",
        default="streets",
        help=f"{named}: streets (the default), toy, cityscapes ...",
    )
    parser.add_argument(
        "--style",
        default=PHOTO_STYLE,
        help='"photo" (the default): each photo\'s own; "mean"; or one that the generator knows',
    )
    parser.add_argument("--precision", default="exact", choices=PRECISIONS)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args(arguments)

    def command() -> int:
        try:
            pipeline = load_pipeline(
                options.segmenter, options.generator, options.style, options.precision
            )
            report = run_folder(pipeline, options.photos, options.out, options.batch_size)
        except KeyboardInterrupt:
            print(f"Interrupted; the same command continues.  So far: {options.out / 'index.html'}")
            return 130
        print(report)
        for message in report.unreadable.values():
            print(f"skipped: {message}", file=sys.stderr)
        return 1 if report.unreadable else 0

    return exit_status(command)


if __name__ == "__main__":
    sys.exit(main())
