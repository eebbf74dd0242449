"""The whole way: photo -> label map -> photo -> label map, once or round after round.

pipeline = Pipeline(segmenter, generator)
result = pipeline.run(image_u8)
result.label_ids, result.generated_u8, result.generated_label_ids
"""

from dataclasses import dataclass

import torch

from spade import SpadeGenerator
from utils.segmentation import SegmentationNet


@dataclass(frozen=True)
class PipelineResult:
    """What one pass makes of one photo, or of a batch (then every shape has B in front).

    Attributes:
        image_u8: (3, H, W) uint8: the photo that went in.
        label_ids: (H, W) uint8: the map that the network sees in it.
        generated_u8: (3, H, W) uint8: the photo that SPADE makes of that map.
        generated_label_ids: (H, W) uint8: the map that the network sees in the generated photo.
    """

    image_u8: torch.Tensor
    label_ids: torch.Tensor
    generated_u8: torch.Tensor
    generated_label_ids: torch.Tensor


class Pipeline:
    """A segmentation network and a SPADE generator, one behind the other."""

    def __init__(self, segmenter: SegmentationNet, generator: SpadeGenerator):
        self.segmenter, self.generator = segmenter, generator

    def run(self, image_u8: torch.Tensor) -> PipelineResult:
        """Photo -> map -> photo -> map.

        Args:
            image_u8: (3, H, W) or (B, 3, H, W) uint8; H and W must suit the generator.
        """
        return self.feedback(image_u8, rounds=1)[0]

    def feedback(self, image_u8: torch.Tensor, rounds: int) -> list[PipelineResult]:
        """Feed each generated photo back in as the next one -> one result a round."""
        if rounds < 1:
            raise ValueError(f"rounds is {rounds}: expected 1 or more.")
        label_ids = self.segmenter.predict(image_u8)
        results = []
        for _ in range(rounds):
            generated_u8 = self.generator.synthesize(label_ids)
            generated_label_ids = self.segmenter.predict(generated_u8)
            results.append(PipelineResult(image_u8, label_ids, generated_u8, generated_label_ids))
            image_u8, label_ids = generated_u8, generated_label_ids
        return results


def agreement(first_ids: torch.Tensor, second_ids: torch.Tensor) -> torch.Tensor:
    """Share of pixels with the same label, 0..1, one a map: (H, W) -> (), (B, H, W) -> (B,)."""
    if first_ids.shape != second_ids.shape:
        raise ValueError(
            f"The maps have shapes {tuple(first_ids.shape)} and {tuple(second_ids.shape)}: "
            "expected the same."
        )
    return (first_ids == second_ids).float().mean(dim=(-2, -1))
