"""Joint augmentation: a photo and its maps are changed in the same way.

    augment = Augmentation(size=(256, 128), scale=(0.5, 1.0), color=0.2)
    image_u8, label_ids = augment(image_u8, label_ids, seeds=range(8))

It works on whole batches, on the device that they are on.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from utils.engine.graphs import send


class Augmentation:
    """Random flips; crops at random scales and changes of colour, by torchvision's v2 transforms.

    Args:
        size: (width, height) of the result; pictures, or their crops, are resized to it.
        flip: share of the pictures that are mirrored, 0..1.
        scale: the smallest and largest share of a picture's area that a crop keeps; its shape
            differs from size's by a tenth at most.  (1, 1) leaves the picture whole.
        color: how far brightness, contrast and saturation may be multiplied: by 1-color..1+color;
            hue turns by a tenth of that.  Photos only, never maps.
    """

    def __init__(
        self,
        size: tuple[int, int],
        flip: float = 0.5,
        scale: tuple[float, float] = (1.0, 1.0),
        color: float = 0.0,
    ):
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(
                f"scale is {scale}: expected two shares of the area, 0 < low <= high <= 1."
            )
        if not 0 <= flip <= 1 or not 0 <= color < 1:
            raise ValueError(f"flip {flip}, color {color}: expected 0..1 and 0..1.")
        width, height = size
        self._size, self._flip = (height, width), flip
        self._draws_more = scale != (1, 1) or color > 0
        steps: list[torch.nn.Module] = [v2.Resize((height, width), antialias=True)]
        if scale != (1, 1):
            ratio = (0.9 * width / height, 1.1 * width / height)
            steps = [v2.RandomResizedCrop((height, width), scale, ratio, antialias=True)]
        if color:
            steps.append(v2.ColorJitter(color, color, color, color / 10))
        self._transform = v2.Compose(steps)
        self.settings = f"flip {flip:g}, scale {scale[0]:g}..{scale[1]:g}, color {color:g}"

    def __call__(
        self, image_u8: Tensor, *maps: Tensor, seeds: Sequence[int] | Tensor
    ) -> tuple[Tensor, ...]:
        """Change a batch's photos and any of its maps in the same way -> the changed ones.

        Args:
            image_u8: (B, 3, H, W) uint8, on any device.
            maps: (B, H, W) each, label ids or instance ids; resized by nearest neighbour.
            seeds: one number for each picture, the only source of randomness: the change of a
                picture depends on its own seed, not on the rest of the batch.
        """
        if len(seeds) != len(image_u8):
            raise ValueError(f"{len(image_u8)} pictures and {len(seeds)} seeds: expected as many.")
        batch, parts, mirrored = (image_u8, *maps), [], []
        with torch.random.fork_rng(devices=[]):  # v2 draws from torch's global state only
            for index, seed in enumerate(seeds):
                torch.default_generator.manual_seed(int(seed))
                mirrored.append(torch.rand(()) < self._flip)
                if self._draws_more:
                    parts.append(self._changed([x[index : index + 1] for x in batch]))
        if self._draws_more:
            batch = [torch.cat(column) for column in zip(*parts)]
        elif image_u8.shape[-2:] != self._size:
            batch = self._changed(batch)
        # All at once: picture by picture, launching the kernels takes longer than running them.
        mask = send(torch.stack(mirrored), image_u8.device)
        return tuple(torch.where(mask.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x) for x in batch)

    def _changed(self, pixels: Sequence[Tensor]) -> list[Tensor]:
        """Photos and their maps after one crop or none, at the final size, in changed colours."""
        photo, *labels = pixels
        changed = self._transform(tv_tensors.Image(photo), *map(tv_tensors.Mask, labels))
        return [x.as_subclass(Tensor) for x in (changed if labels else [changed])]
