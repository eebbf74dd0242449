#!/usr/bin/env python3
"""Measure the cache, its batches and the background writer against plain loops.

    python benchmarks/data.py                 # a few minutes, 4 GB in the temporary folder

The two sides of a row run in turn, several times, and the ratio is that of their medians.
"""

import argparse
import itertools
import os
import resource
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import in_turn, machine

from utils.cache import cached
from utils.images import ImageWriter, save_image
from utils.progress import progress
from utils.scenes import Scene, Scenes, open_scenes
from utils.toy.streets import draw_street

SIZE = (512, 256)
FILES = 96  # scenes of 2048x1024 on disk
BATCH = 32


def write_scenes(folder: Path) -> None:
    """Toy streets of 2048x1024 as PNG files in the layout of Cityscapes.

    They are drawn at half the size and enlarged: a camera's photo is as smooth, since it has one
    colour a pixel and guesses the others, and its file about as large (2.3 MB in Cityscapes).
    """
    photos, maps = folder / "leftImg8bit/train/toy", folder / "gtFine/train/toy"
    for place in (photos, maps):
        place.mkdir(parents=True)
    for index in progress(range(FILES), "drawing 2048x1024 scenes"):
        street, name = draw_street(9, index, (1024, 512)), f"toy_{index:06d}_000019"
        photo = Image.fromarray(street.image_u8.permute(1, 2, 0).numpy())
        photo.resize((2048, 1024), Image.Resampling.BICUBIC).save(
            photos / f"{name}_leftImg8bit.png"
        )
        instance_ids = street.instance_ids.numpy().astype(np.uint16)
        for kind, ids in (("labelIds", street.label_ids.numpy()), ("instanceIds", instance_ids)):
            ids = Image.fromarray(ids.repeat(2, 0).repeat(2, 1))
            ids.save(maps / f"{name}_gtFine_{kind}.png")


def plain_loop(folder: Path, indices) -> None:
    """PIL open, resize, convert: what everybody writes first."""
    for index in indices:
        name = f"toy_{int(index):06d}_000019"
        maps = folder / "gtFine/train/toy" / name
        photo = Image.open(folder / "leftImg8bit/train/toy" / f"{name}_leftImg8bit.png")
        photo = np.array(photo.resize(SIZE, Image.Resampling.BICUBIC).convert("RGB"))
        torch.from_numpy(photo).permute(2, 0, 1).contiguous()
        for kind in ("labelIds", "instanceIds"):
            ids = Image.open(f"{maps}_gtFine_{kind}.png").resize(SIZE, Image.Resampling.NEAREST)
            torch.from_numpy(np.array(ids).astype(np.int32))


def row(work: str, ours: float, against: str, other: float, least: float) -> None:
    verdict = f"{other / ours:7.2f}x (at least {least:g})"
    print(
        f"{work:45} {1e3 * ours:9.2f} ms   {against:31} {1e3 * other:9.2f} ms {verdict}", flush=True
    )


class NoiseScenes(Scenes):
    """Any number of scenes that cost nothing to make."""

    def __init__(self, count: int):
        super().__init__("noise", "train", SIZE, [(str(i), i) for i in range(count)])

    def _load(self, name, index):
        image_u8 = torch.full((3, SIZE[1], SIZE[0]), index % 256, dtype=torch.uint8)
        return Scene(image_u8, image_u8[0] % 34, image_u8[1].int(), name, "nowhere", "noon")

    def _identity(self, name, index):
        return (name,)


def resident_bytes() -> int:
    """Memory that this process holds, mapped files included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure_memory(folder: Path) -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    each = (3 + 1 + 2) * SIZE[0] * SIZE[1]
    scenes = cached(NoiseScenes(int(total / 9 / each)), folder)
    held = [resident_bytes()]
    for indices in torch.randperm(len(scenes)).split(BATCH):
        scenes.batch(indices)
        scenes.instance_batch(indices)
        held.append(resident_bytes())
    print(
        f"\nresident memory over one pass of {len(scenes) * each / 1e9:.2f} GB, "
        f"{len(scenes) * each / total:.2f} of this machine's: before {held[0] / 1e6:.0f} MB, "
        f"after 10 batches {held[10] / 1e6:.0f}, at the end {held[-1] / 1e6:.0f}, "
        f"most {max(held) / 1e6:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{machine()}, Pillow {Image.__version__}\n")
    torch.set_num_threads(1)  # a picture is decoded and resized on one core, and several at a time
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_scenes(folder)
        bytes_each = sum(p.stat().st_size for p in folder.rglob("*.png")) / FILES
        print(
            f"{FILES} scenes of 2048x1024, {bytes_each / 1e6:.1f} MB each, to {SIZE[0]}x{SIZE[1]}"
        )
        scenes = open_scenes("cityscapes", "train", folder, SIZE)
        caches = (folder / f"cache{number}" for number in range(1000))
        ours, plain = in_turn(
            rounds,
            ours=lambda: cached(scenes, next(caches)),
            plain=lambda: plain_loop(folder, range(FILES)),
        )
        row("building the cache", ours, "plain loop of PIL", plain, 4)

        small = cached(NoiseScenes(2975), folder)  # as many as Cityscapes trains with
        random = torch.Generator().manual_seed(0)

        def some(count):
            return torch.randint(count, (BATCH,), generator=random)

        ours, plain = in_turn(
            rounds,
            ours=lambda: small.batch(some(len(small))),
            plain=lambda: plain_loop(folder, some(FILES)),
        )
        row(f"warm random batch of {BATCH}", ours, "plain loop of PIL", plain, 100)
        # More of them than a CPU's cache holds, or it would be the cache that is measured.
        pixels = [[x.numpy() for x in small.batch(some(len(small)))] for _ in range(30)]
        turns = itertools.cycle(pixels)
        ours, copy = in_turn(
            50 * rounds,
            ours=lambda: small.batch(some(len(small))),
            copy=lambda: [x.copy() for x in next(turns)],
        )
        row("the same", ours, "copying as many bytes in memory", copy, 0.5)
        print(f"{'':45} {sum(x.nbytes for x in pixels[0]) / ours / 1e9:9.2f} GB/s")

        pictures = [draw_street(9, i, SIZE).image_u8 for i in range(50)] * 4
        names = [folder / f"picture{i:03d}.png" for i in range(len(pictures))]

        def write_behind():
            with ImageWriter() as writer:
                for image_u8, name in zip(pictures, names):
                    writer.save(image_u8, name)

        def save_with_pil():
            for image_u8, name in zip(pictures, names):
                Image.fromarray(image_u8.permute(1, 2, 0).numpy()).save(name)

        def save_in_turn():
            for image_u8, name in zip(pictures, names):
                save_image(image_u8, name)

        ours, one, pil = in_turn(rounds, ours=write_behind, one=save_in_turn, pil=save_with_pil)
        row(
            f"saving {len(pictures)} pictures as PNG, ImageWriter",
            ours,
            "PIL save in a loop",
            pil,
            2,
        )
        row(
            f"saving {len(pictures)} pictures as PNG, save_image", one, "PIL save in a loop", pil, 1
        )
        write_behind()
        sizes = [name.stat().st_size for name in names]
        save_with_pil()
        larger = sum(sizes) / sum(name.stat().st_size for name in names)
        print(f"{'':45} files {larger:.2f} times as large")
        measure_memory(folder)


if __name__ == "__main__":
    main()
