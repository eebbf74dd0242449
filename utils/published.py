"""Segmentation networks that others have published, by name: "segformer", "hf:ORGANISATION/NAME".

    network = load_segmenter("segformer")
    label_ids = network.predict(image_u8)

They come from https://huggingface.co or a folder, and are read by the package transformers, which
is imported when such a network is loaded.  Each has its own licence, which is printed then.
"""

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.engine.precision import evaluation_mode
from utils.labels import BENCHMARK_IDS, BENCHMARK_NAMES
from utils.segmentation import SegmentationNet, check_photos, load_segmentation
from utils.weights import find_weights

HUB = "https://huggingface.co"
PREFIX = "hf:"
SHORT_NAMES = {"segformer": "nvidia/segformer-b0-finetuned-cityscapes-1024-1024"}
EXPECTED = f'"segformer", or "{PREFIX}ORGANISATION/NAME" for a network on {HUB}'
ONE_THAT_WORKS = f'"segformer" is one that works ({HUB}/{SHORT_NAMES["segformer"]})'
# The model cards of nvidia/segformer-... say "other"; github.com/NVlabs/SegFormer has the terms.
NVIDIA_LICENCE = "NVIDIA Source Code License for SegFormer: non-commercial, research or evaluation"
MOST_NAMES = 25  # of classes in a message
# Smallest height of a network's input.  Networks for Cityscapes were trained on photos of 1024
# rows, resized by 0.5 to 2; objects in photos of 128 or 256 rows are too small for them.
LEAST_HEIGHT = 512


class PublishedNet(nn.Module):
    """Photo -> logits of Cityscapes' 19 benchmark classes for every pixel, by a published network.

    Args:
        network: pixel_values (B, 3, H, W) -> an object with logits (B, 19, H/s, W/s).
        label_ids: the label ids of its 19 classes, in its own order.
        mean, std: (3,) in pixel values 0..255: the network takes (image_u8 - mean) / std.
        is_bgr: it takes blue first, red last.
    """

    def __init__(
        self, network: nn.Module, label_ids: list[int], mean: Tensor, std: Tensor, is_bgr: bool
    ):
        super().__init__()
        self.network, self.is_bgr = network, is_bgr
        self.register_buffer("label_ids", torch.tensor(label_ids, dtype=torch.uint8))
        self.register_buffer("mean", mean.reshape(3, 1, 1))
        self.register_buffer("std", std.reshape(3, 1, 1))

    def forward(self, image_u8: Tensor) -> Tensor:
        """image_u8 (B, 3, H, W), any H and W of at least 32 -> logits (B, 19, H, W) float."""
        check_photos(image_u8)
        shape = image_u8.shape
        x = (image_u8.float() - self.mean) / self.std  # (B, 3, H, W)
        x = x.flip(1) if self.is_bgr else x
        if shape[2] < LEAST_HEIGHT:
            x = _resized(x, (LEAST_HEIGHT, round(shape[3] * LEAST_HEIGHT / shape[2])))
        height, width = x.shape[2:]
        # Padded to multiples of 32 pixels with copies of the rim, so that logits align with pixels.
        x = F.pad(x, (0, -width % 32, 0, -height % 32), mode="replicate")
        logits = self.network(pixel_values=x).logits  # SegFormer's: a quarter of the size
        logits = _resized(logits, x.shape[2:])[:, :, :height, :width]
        return _resized(logits, shape[2:])  # (B, 19, H, W)

    @torch.no_grad()
    def predict(self, image_u8: Tensor) -> Tensor:
        """image_u8 (3, H, W) or (B, 3, H, W) -> label_ids (H, W) or (B, H, W) uint8, 0..33."""
        batch = image_u8 if image_u8.dim() == 4 else image_u8[None]
        with evaluation_mode(self):
            label_ids = self.label_ids[self(batch.to(self.label_ids.device)).argmax(1)]
        return label_ids if image_u8.dim() == 4 else label_ids[0]


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> the same at (height, width), bilinear."""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def load_segmenter(source: str | Path) -> SegmentationNet | PublishedNet:
    """Read a segmentation network, this project's or one that others have published.

    Args:
        source: a data set ("toy", "streets" ...; see utils.weights.find_weights), the path of
            weights, or the name of a published network, see load_published().

    Raises FileNotFoundError if there are no such weights, and what the reader of each kind raises.
    """
    if str(source) in SHORT_NAMES or str(source).startswith(PREFIX):
        return load_published(str(source))
    try:
        path = source if Path(source).suffix else find_weights("segmentation", str(source))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}  Or take a published one: {EXPECTED}.") from error
    return load_segmentation(path)[0]


def load_published(source: str) -> PublishedNet:
    """Read a published network, downloaded once, in evaluation mode, and print its licence.

    Weights are safetensors, or pickles of nothing but tensors; a repository's code is not run.

    Args:
        source: "segformer"; or "hf:ORGANISATION/NAME" for a network on https://huggingface.co that
            transformers' AutoModelForSemanticSegmentation loads, and whose classes have the names
            of Cityscapes' 19 benchmark classes; or "hf:FOLDER" with the same files.

    Raises:
        ValueError: transformers is not installed, source is no such name, or the network is of
            another kind or has other classes.
        OSError: it can't be downloaded.
    """
    name = SHORT_NAMES.get(source, source.removeprefix(PREFIX))
    folder = Path(name)
    is_local = bool(name) and folder.is_dir()
    if not is_local and not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        raise ValueError(f'{source!r}: expected {EXPECTED}, or "{PREFIX}" and an existing folder.')
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            f"{source!r} needs the package transformers, which can't be imported ({error}): "
            "pip install transformers (Colab has it)."
        ) from error
    if not is_local:
        folder = _download(name, "*.json", "README.md")
    config = _read(transformers.AutoConfig, name, folder)
    if type(config) not in transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING:
        raise ValueError(
            f"{name} holds a network of the kind {config.model_type!r}: expected one that "
            "transformers' AutoModelForSemanticSegmentation loads (it does not load Mask2Former, "
            f"OneFormer or EoMT); {ONE_THAT_WORKS}."
        )
    label_ids = _label_ids(config.id2label, name)
    processor = _read(transformers.AutoImageProcessor, name, folder)
    # Weights come last: those of a network that can't be used are not downloaded.
    if not is_local and not any(_download(name, "model*.safetensors").glob("*.safetensors")):
        _download(name, "pytorch_model*.bin")
    kind = transformers.AutoModelForSemanticSegmentation
    settings = {"config": config, "weights_only": True, "output_loading_info": True}
    network, report = _read(kind, name, folder, **settings)
    random = {key for key, _ in network.named_parameters()} & set(report["missing_keys"])
    if random:
        raise ValueError(
            f"{name} lacks {len(random)} of its network's tensors, {min(random)} for example: was "
            f"it trained for something else?  {ONE_THAT_WORKS}."
        )
    scale = processor.rescale_factor if processor.do_rescale else 1.0
    mean, std = torch.zeros(3), torch.ones(3)
    if getattr(processor, "do_normalize", False):
        mean, std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
    is_bgr = bool(getattr(processor, "do_flip_channel_order", False))
    print(_licence(name, folder, folder.resolve() if is_local else f"{HUB}/{name}"))
    return PublishedNet(network.float(), label_ids, mean / scale, std / scale, is_bgr).eval()


def _download(name: str, *patterns: str) -> Path:
    """The files of a repository whose names fit the patterns -> their folder in the cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import GatedRepoError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except OSError as error:
        why = f"{_first_sentence(error)}; connect to the internet, or pass a folder with its files"
        if isinstance(error, RepositoryNotFoundError):
            why = "there is no such repository, and no such folder here"
        if isinstance(error, GatedRepoError):
            why = "accept its terms there, then call hf auth login"
        raise OSError(f"{HUB}/{name} could not be downloaded: {why}.") from error


def _read(kind: type, name: str, folder: Path, **settings):
    """Read a folder by a class of transformers; ValueError if that fails."""
    try:
        return kind.from_pretrained(folder, trust_remote_code=False, **settings)
    # Damaged files, unknown kinds of networks and pickled code raise errors of many types.
    except Exception as error:
        raise ValueError(
            f"transformers' {kind.__name__} can't read {name} ({_first_sentence(error)}): are all "
            f"files in {folder}, and undamaged?  {ONE_THAT_WORKS}."
        ) from error


def _first_sentence(error: Exception) -> str:
    return re.split(r"\.?\s*\n|\.\s|\.$", str(error).strip())[0] or type(error).__name__


def _label_ids(id2label: dict[int, str], name: str) -> list[int]:
    """The label ids of a network's classes, found by their names, in the network's order."""

    def letters(label: str) -> str:
        return re.sub(r"[\s_-]", "", label).lower()

    names = [str(id2label.get(i)) for i in range(len(id2label))]
    known = {letters(label): label_id for label, label_id in zip(BENCHMARK_NAMES, BENCHMARK_IDS)}
    if sorted(map(letters, names)) != sorted(known):
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        raise ValueError(
            f"{name} has other classes than the 19 of Cityscapes' benchmark: "
            f"{', '.join(names[:MOST_NAMES])}{more}; {ONE_THAT_WORKS}."
        )
    return [known[letters(label)] for label in names]


def _licence(name: str, folder: Path, place: str | Path) -> str:
    """A sentence that says under which licence a network is, by the model card in its folder."""
    from huggingface_hub import ModelCard

    try:
        card = ModelCard((folder / "README.md").read_text(encoding="utf-8")).data
        terms = " ".join(str(card[key]) for key in ("license", "license_name") if card.get(key))
    except Exception:  # no card, or one that is no YAML: the network can be used all the same
        terms = ""
    says = f"is, as its model card says, {terms}" if terms else "could not be read in a model card"
    note = f" ({NVIDIA_LICENCE})" if name.startswith("nvidia/segformer-") else ""
    return f"The licence of {name} {says}{note}: see {place}."
