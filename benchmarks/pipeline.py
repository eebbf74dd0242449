#!/usr/bin/env python3
"""How much of a street survives photo -> map -> photo -> map, over a whole validation split.

    python benchmarks/pipeline.py                                  # toy streets, bundled networks
    python benchmarks/pipeline.py --dataset camvid --root FOLDER   # networks trained on CamVid

Prints scores, and saves one picture of each stage in out/pictures.
"""

import argparse
import time

import torch
from timing import machine

import spade
from utils.cache import cached
from utils.files import PROJECT
from utils.metrics import SegmentationScore
from utils.pipeline import Pipeline, agreement
from utils.plots import PICTURES, show_grid
from utils.progress import progress
from utils.scenes import open_scenes
from utils.segmentation import load_segmentation
from utils.weights import find_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="toy", choices=("toy", "camvid", "cityscapes"))
    parser.add_argument("--root", help="the data set's folder")
    parser.add_argument("--size", default="128x64", help="WIDTHxHEIGHT")
    parser.add_argument("--segmenter", help="whose weights; by default the data set's")
    parser.add_argument("--generator", help="whose weights; by default the data set's")
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.size.split("x"))

    segmenter_path = find_weights("segmentation", arguments.segmenter or arguments.dataset)
    generator_path = find_weights("generator", arguments.generator or arguments.dataset)
    segmenter, _ = load_segmentation(segmenter_path)
    pipeline = Pipeline(segmenter, spade.load_generator(generator_path))
    scenes = cached(
        open_scenes(arguments.dataset, "val", arguments.root, (width, height)),
        PROJECT / "data" / "cache",
    )

    scores = {
        name: SegmentationScore()
        for name in ("map of the photo", "map of the generated photo", "map of SPADE on true map")
    }
    shares, seconds = [], 0.0
    for indices in progress(torch.arange(len(scenes)).split(8), "scenes"):
        image_u8, true_ids = scenes.batch(indices)
        start = time.perf_counter()
        result = pipeline.run(image_u8)
        seconds += time.perf_counter() - start
        from_truth_u8 = pipeline.generator.synthesize(true_ids)
        maps = (result.label_ids, result.generated_label_ids, segmenter.predict(from_truth_u8))
        for score, label_ids in zip(scores.values(), maps):
            score.update(label_ids.cpu(), true_ids)
        shares.append(agreement(result.label_ids, result.generated_label_ids).cpu())
    shares = torch.cat(shares)
    print(f"{machine()}\n{scenes}")
    print(f"segmentation {segmenter_path.relative_to(PROJECT)}")
    print(f"generator    {generator_path.relative_to(PROJECT)}")
    for name, score in scores.items():
        print(f"{name:27} {score.compute()}")
    print(f"feedback agreement          {shares.mean():.3f} (from {shares.min():.3f})")
    print(f"{len(scenes) / seconds:.1f} photos a second through photo, map, photo, map")

    image_u8, true_ids = scenes.spread(4).batch(range(4))
    result = pipeline.run(image_u8)
    stages = {
        "photo": image_u8,
        "true map": true_ids,
        "map": result.label_ids,
        "SPADE": result.generated_u8,
        "map again": result.generated_label_ids,
        "from truth": pipeline.generator.synthesize(true_ids),
    }
    show_grid({name: x.cpu() for name, x in stages.items()}, name=f"pipeline_{scenes.dataset}")
    print(f"picture: {(PICTURES / f'pipeline_{scenes.dataset}.jpg').relative_to(PROJECT)}")


if __name__ == "__main__":
    main()
