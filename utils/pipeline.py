"""The pipeline: photo -> label map -> generated image -> label map, for one or more rounds.

    pipeline = load_pipeline("toy", "toy")
    result = pipeline.run(image_u8)
    result.label_ids, result.generated_u8, result.generated_label_ids

A folder of photos goes through in one command: see utils.photo_folder.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from spade import Encoder, SpadeGenerator, load_encoder, load_generator
from spade.generator import PRECISIONS
from utils.engine.precision import half_precision, warn_of_emulation
from utils.images import u8_to_pm1
from utils.labels import check_label_ids
from utils.progress import progress
from utils.published import PublishedNet, load_segmenter
from utils.segmentation import SegmentationNet
from utils.weights import find_weights

PHOTO_STYLE = "photo"  # a photo's own style, beside the names that generator.style() knows


@dataclass(frozen=True)
class PipelineResult:
    """The result of one pass for one photo, or for a batch (then every shape has B in front).

    Attributes:
        image_u8: (3, H, W) uint8: the photo, or the image of the round before; None for a map only.
        label_ids: (H, W) uint8: the map that the network predicts from it, or the given map.
        generated_u8: (3, H, W) uint8: the image that SPADE generates from that map.
        generated_label_ids: (H, W) uint8: the map that the network predicts from that image.
    """

    image_u8: Tensor | None
    label_ids: Tensor
    generated_u8: Tensor
    generated_label_ids: Tensor


class Pipeline:
    """A segmentation network and a SPADE generator, one after the other.

    Args:
        z: (1, z_dim) float, the style of all generated images, see generator.style(); None is the
            mean style, and the only choice for a generator without a latent.
        precision: the generator's, see SpadeGenerator.synthesize(); on a GPU the segmenter's too.
        encoder: the one that the generator was trained with.  With it, images get the style of the
            photo that they began from, in all rounds; z is for maps that come without a photo.
    """

    def __init__(
        self,
        segmenter: SegmentationNet | PublishedNet,
        generator: SpadeGenerator,
        z: Tensor | None = None,
        precision: str = "exact",
        encoder: Encoder | None = None,
    ):
        generator.dtype_of(precision)  # raises ValueError
        self.segmenter, self.generator, self.encoder = segmenter, generator, encoder
        self.z, self.precision = z, precision

    def run(self, image_u8: Tensor | None, label_ids: Tensor | None = None) -> PipelineResult:
        """Photo -> map -> image -> map.

        Args:
            image_u8: (3, H, W) or (B, 3, H, W) uint8; H and W must suit the generator.
            label_ids: (H, W) or (B, H, W), label ids 0..33: the map to go on with instead of the
                one that the network sees in the photo, which may then be None.
        """
        return self.feedback(image_u8, 1, label_ids)[0]

    def feedback(
        self, image_u8: Tensor | None, rounds: int, label_ids: Tensor | None = None
    ) -> list[PipelineResult]:
        """Use each generated image as the photo of the next round -> one result for each round.

        Args: see run.

        Raises ValueError if rounds is less than 1, or nothing is given to start from.
        """
        if rounds < 1:
            raise ValueError(f"rounds is {rounds}: expected 1 or more.")
        if label_ids is not None:
            check_label_ids(label_ids, "the map to start from")
            label_ids = label_ids.to(next(self.segmenter.parameters()).device, torch.uint8)
        elif image_u8 is not None:
            label_ids = self._predicted(image_u8)
        else:
            raise ValueError("There is nothing to start from: pass image_u8, label_ids, or both.")
        z = self.style_of(image_u8)
        results = []
        for _ in range(rounds):
            generated_u8 = self.generator.synthesize(
                label_ids, z=z, precision=self.precision, checked=True
            )
            generated_label_ids = self._predicted(generated_u8)
            results.append(PipelineResult(image_u8, label_ids, generated_u8, generated_label_ids))
            image_u8, label_ids = generated_u8, generated_label_ids
        return results

    def _predicted(self, image_u8: Tensor) -> Tensor:
        device = next(self.segmenter.parameters()).device
        with half_precision(device, PRECISIONS[self.precision]):
            return self.segmenter.predict(image_u8)

    @torch.no_grad()
    def style_of(self, image_u8: Tensor | None) -> Tensor | None:
        """The z that photos, (3, H, W) or (B, 3, H, W) uint8, are drawn with: (1 or B, z_dim)."""
        if image_u8 is None or self.encoder is None:
            return self.z
        image_u8 = image_u8.to(next(self.encoder.parameters()).device)
        return self.encoder(u8_to_pm1(image_u8.reshape(-1, *image_u8.shape[-3:])))[0]

    def stream(
        self, batches: Iterable[Tensor], total: int | None = None
    ) -> Iterator[PipelineResult]:
        """run() for each batch of photos (B, 3, H, W) in turn, with a progress bar up to total.

        Only one batch is in memory at a time: any number of photos can go through.
        """
        for image_u8 in progress(batches, "batches", total):
            yield self.run(image_u8)


def load_pipeline(
    segmenter: str | Path,
    generator: str | Path,
    style: str = PHOTO_STYLE,
    precision: str = "exact",
    device: torch.device | str | None = None,
) -> Pipeline:
    """Read both networks, and the encoder that takes the style from a photo.

    Args:
        segmenter, generator: each the data set that it was trained on ("toy", "streets",
            "camvid", "cityscapes"; see utils.weights.find_weights) or the path of its weights; the
            segmenter also "segformer" or "hf:ORGANISATION/NAME", which others have published (see
            utils.published; their licence is printed).
        style: "photo" draws each photo in its own style, by the encoder whose file lies beside the
            generator's; any other name is looked up by generator.style(): "mean" draws all photos
            in the mean style.  A generator without a latent, such as the published one for
            Cityscapes, has a single style, for which "photo" and "mean" are two names.
        precision: see Pipeline.
        device: a GPU where there is one, by default.

    Raises:
        FileNotFoundError: there are no such weights (says how to get them), or style is "photo" and
            there is no encoder.
        ValueError: a file or a name holds something else, or there is no such style.
        OSError: a published network can't be downloaded.
    """
    device = torch.device(device or Accelerator().device)
    warn_of_emulation(precision, device)
    segmenter_net = load_segmenter(segmenter)
    path = Path(generator)
    if not path.suffix:
        path = find_weights("generator", str(generator))
    generator_net = load_generator(path).to(device)
    z, encoder = None, None
    if style != PHOTO_STYLE:
        z = generator_net.style(style)
    elif generator_net.z_dim is not None:
        encoder = load_encoder(_encoder_file(path)).to(device)
    return Pipeline(segmenter_net.to(device), generator_net, z, precision, encoder)


def agreement(first_ids: Tensor, second_ids: Tensor) -> Tensor:
    """Share of pixels with the same label, 0..1, one a map: (H, W) -> (), (B, H, W) -> (B,)."""
    if first_ids.shape != second_ids.shape:
        raise ValueError(
            f"The maps have shapes {tuple(first_ids.shape)} and {tuple(second_ids.shape)}: "
            "expected the same."
        )
    return (first_ids == second_ids).float().mean(dim=(-2, -1))


def _encoder_file(generator: Path) -> Path:
    """The encoder beside a generator: they are trained, saved and bundled together."""
    encoder = generator.with_name(generator.name.replace("generator", "encoder"))
    if encoder == generator or not encoder.is_file():
        raise FileNotFoundError(
            f"{generator} takes its style from a latent, but the encoder that reads a photo's "
            f"style is not beside it (looked for {encoder.name}, a generator's name with "
            '"encoder" in it): put it there, or choose another style: "mean", or one by name.'
        )
    return encoder
