"""The Cityscapes label table: one table, every look-up derived from it.

This project uses three numberings of classes.  *Label ids* 0..33 are in ``*_gtFine_labelIds.png``
files, and all networks of this project predict or read them.  *Train ids* 0..18 (255 = ignored) are
the 19 classes of the Cityscapes benchmark, and are used for its score only.  *CamVid ids* 0..11 are
in the SegNet version of CamVid; they are converted to label ids when a map is read.

Source: ``cityscapesscripts.helpers.labels``; CamVid's names from the SegNet tutorial.
"""

import warnings

import torch
from cityscapesscripts.helpers.labels import labels as _CITYSCAPES_LABELS

# Licence plate has id -1 and is never drawn in labelIds files, so the table starts at 0.
LABELS = tuple(sorted((label for label in _CITYSCAPES_LABELS if label.id >= 0), key=lambda x: x.id))
NAMES = tuple(label.name for label in LABELS)  # NAMES[7] == "road"
ID = {label.name: label.id for label in LABELS}  # ID["road"] == 7
COLORS = torch.tensor([label.color for label in LABELS], dtype=torch.uint8)  # (34, 3) RGB
CATEGORIES = torch.tensor([label.categoryId for label in LABELS])  # (34,): 0 void ... 7 vehicle

NUM_LABELS = len(LABELS)  # 34: the ids 0..33
IGNORED = 255  # the train id of every class that the benchmark does not score
NUM_TRAIN_IDS = 19

TRAIN_ID_OF_LABEL = torch.tensor([label.trainId for label in LABELS], dtype=torch.uint8)  # (34,)
LABEL_OF_TRAIN_ID = torch.zeros(256, dtype=torch.uint8)  # (256,) train id -> label id, 255 -> 0
for _label in LABELS:
    if _label.trainId != IGNORED:
        LABEL_OF_TRAIN_ID[_label.trainId] = _label.id
BENCHMARK_IDS = tuple(LABEL_OF_TRAIN_ID[:NUM_TRAIN_IDS].tolist())  # the 19 scored label ids
BENCHMARK_NAMES = tuple(NAMES[i] for i in BENCHMARK_IDS)

_OF_CAMVID = {  # by its ids: the class in CamVid, the class in Cityscapes
    "sky": "sky", "building": "building", "pole": "pole", "road": "road", "pavement": "sidewalk",
    "tree": "vegetation", "sign": "traffic sign", "fence": "fence", "car": "car",
    "pedestrian": "person", "bicyclist": "rider", "unlabelled": "unlabeled",
}  # fmt: skip
CAMVID_NAMES = tuple(_OF_CAMVID)
LABEL_OF_CAMVID_ID = torch.tensor([ID[name] for name in _OF_CAMVID.values()], dtype=torch.uint8)

# The colours of CamVid's own 32 classes, and of SegNet's drawings, for each of the ids above.
CAMVID_COLORS = (
    "808080",
    "800000 c00080 008040 400040 40c000",  # building, archway, bridge, tunnel, wall
    "c0c080 000040",  # pole, traffic cone
    "804080 8000c0 c00040 ff4500",  # road, markings
    "0000c0 40c080 8080c0 3c28de",  # sidewalk, parking block, shoulder of the road
    "808000 c0c000",  # tree, other plants
    "c08080 808040 004040",  # sign, text, traffic light
    "404080",
    "400080 4080c0 c080c0 c04080 804040",  # car, SUV, truck or bus, train, other vehicles
    "404000 c08040 4000c0 408040",  # pedestrian, child, cart, animal
    "0080c0 c000c0",  # bicyclist, motorcycle
    "000000",
)

# Low label ids that are void or rare in real maps, where train ids have road, building and sky.
_RARE_LOW_IDS = torch.tensor([0, 1, 2, 3, 4, 5, 6, 9, 10])
_MEANING = "expected Cityscapes label ids 0..33"


def check_label_ids(label_ids: torch.Tensor, source: str = "the label map") -> None:
    """Raise ValueError if this is not a map of label ids.

    The message says what it may be: a map in colours, of train ids, or with 255 ("ignored").

    Args:
        label_ids: what should be an (H, W) or (B, H, W) integer tensor with values 0..33.
        source: how the message names it, for example the file it came from.
    """
    if _looks_like_train_ids(label_ids):
        raise ValueError(
            f"{source} looks like train ids (0..18, 255 = ignored), {_MEANING}: use the "
            "*_labelIds.png file, or convert it with utils.labels.train_ids_to_label_ids()."
        )
    check_id_values(label_ids, source)


def check_id_values(label_ids: torch.Tensor, source: str = "the label map") -> None:
    """As check_label_ids(), but without the check for train ids: for the output of a network."""
    shape = tuple(label_ids.shape)
    if label_ids.is_floating_point() or label_ids.dtype == torch.bool:
        raise ValueError(
            f"{source} has dtype {label_ids.dtype}, {_MEANING} as integers: resize label maps with "
            "nearest-neighbour and keep them uint8."
        )
    if label_ids.numel() == 0:
        raise ValueError(f"{source} is empty (shape {shape}), {_MEANING} in a shape (H, W).")
    low, high = (int(x) for x in torch.aminmax(label_ids))
    three_planes = len(shape) in (3, 4) and (shape[-1] in (3, 4) or shape[-3] == 3)
    # A batch of three maps that hold 255 has three planes too.
    if three_planes and bool(((label_ids >= NUM_LABELS) & (label_ids != IGNORED)).any()):
        raise ValueError(
            f"{source} looks like a colour map (shape {shape}, values up to {high}), {_MEANING}: "
            "use the *_labelIds.png file, or convert it, in a shape (3, H, W), with "
            "utils.labels.colors_to_label_ids()."
        )
    if len(shape) not in (2, 3):
        raise ValueError(f"{source} has shape {shape}, {_MEANING} in a shape (H, W) or (B, H, W).")
    if low >= 0 and high < NUM_LABELS:
        return
    if high == 255:
        raise ValueError(
            f"{source} holds the value 255, {_MEANING}: 255 means 'ignored' or licence plate and "
            "has no plane in the generator's input; set those pixels to 0 (unlabeled)."
        )
    raise ValueError(
        f"{source} holds values {low}..{high}, {_MEANING}: was it resized with interpolation, or "
        "is it an instance map?"
    )


def _looks_like_train_ids(label_ids: torch.Tensor) -> bool:
    """Whether all ids are 0..18 or 255, and most would be void or rare if they were label ids.

    A real map of label ids holds vegetation (21), sky (23) or cars (26); one of train ids holds
    road (0), building (2) and sky (10), which as label ids are void, border and rail track.
    """
    if label_ids.is_floating_point() or label_ids.dim() not in (2, 3):
        return False
    if not bool(((label_ids < NUM_TRAIN_IDS) | (label_ids == IGNORED)).all()):
        return False
    values = label_ids.flatten().long()
    if bool((values < 0).any()):
        return False
    counts = torch.bincount(values, minlength=IGNORED + 1)
    rare = counts[_RARE_LOW_IDS]
    labelled = counts[:NUM_TRAIN_IDS].sum()
    # Three kinds at least: an all-unlabeled map or a sketch of one or two classes is legitimate.
    return int((rare > 0).sum()) >= 3 and int(rare.sum()) * 2 > int(labelled)


def check_instance_ids(
    instance_ids: torch.Tensor, label_ids: torch.Tensor, source: str = "the instance map"
) -> None:
    """Raise ValueError if an instance map (H, W) contradicts the label map (H, W) of its scene.

    Pixels that are void in the label map are not compared, nor is the licence plate (-1 or 65535).
    """
    classes = torch.where(instance_ids >= 1000, instance_ids // 1000, instance_ids)
    wrong = (classes != label_ids) & (label_ids >= ID["road"])
    wrong &= (instance_ids >= 0) & (instance_ids != 65535)
    if wrong.any():
        instance_id, label_id = int(instance_ids[wrong][0]), int(label_ids[wrong][0])
        raise ValueError(
            f"{source} contradicts the label map in {int(wrong.sum())} of {wrong.numel()} pixels, "
            f"for example {instance_id} where the label id is {label_id}: expected {label_id}, or "
            f"{label_id} * 1000 + n, in a PNG of 16 bits.  Use the scene's own "
            "*_instanceIds.png file, or a copy of its label map under that name."
        )


def label_ids_to_train_ids(label_ids: torch.Tensor) -> torch.Tensor:
    """Label ids 0..33 -> train ids 0..18, 255 for classes the benchmark ignores (uint8)."""
    return _look_up(TRAIN_ID_OF_LABEL, label_ids)


def train_ids_to_label_ids(train_ids: torch.Tensor) -> torch.Tensor:
    """Train ids 0..18 and 255 -> label ids (uint8); 255 becomes 0, unlabeled."""
    known = (train_ids >= 0) & (train_ids < NUM_TRAIN_IDS) | (train_ids == IGNORED)
    bad = train_ids[~known]
    if bad.numel():
        raise ValueError(f"{int(bad[0])} is no train id: expected 0..18, or 255 for ignored.")
    return _look_up(LABEL_OF_TRAIN_ID, train_ids)


def camvid_ids_to_label_ids(camvid_ids: torch.Tensor, source: str = "the map") -> torch.Tensor:
    """CamVid ids 0..11 (SegNet version) -> Cityscapes label ids (uint8)."""
    if camvid_ids.dim() != 2 or int(camvid_ids.max()) >= len(CAMVID_NAMES):
        raise ValueError(
            f"{source} has shape {tuple(camvid_ids.shape)} and values up to "
            f"{int(camvid_ids.max())}, expected CamVid ids 0..11 in a shape (H, W): the SegNet "
            "version's *annot folders hold such files."
        )
    return _look_up(LABEL_OF_CAMVID_ID, camvid_ids)


def label_ids_to_colors(label_ids: torch.Tensor, colors: torch.Tensor = COLORS) -> torch.Tensor:
    """label_ids ([B,] H, W) -> image_u8 ([B,] 3, H, W), by default in the official palette."""
    return _look_up(colors, label_ids).movedim(-1, -3)


def _color_codes(colors: torch.Tensor) -> torch.Tensor:
    """(..., 3) uint8 -> (...) int32, one number a colour."""
    red, green, blue = colors.int().unbind(-1)
    return (red << 16) | (green << 8) | blue


# Colour -> label id.  Classes of one colour (the void ones are all black): the first of them.
_PALETTES = (
    {code: label_id for label_id, code in reversed(list(enumerate(_color_codes(COLORS).tolist())))},
    {
        int(color, 16): label_id
        for colors, label_id in zip(CAMVID_COLORS, LABEL_OF_CAMVID_ID.tolist())
        for color in colors.split()
    },
)
# Classes whose colours are greys: 70 (building), 153 (pole) and 128 (CamVid's sky).
GREY_CLASSES = tuple(code & 255 for p in _PALETTES for code in p if code and code % 0x010101 == 0)
_MOST_BLENDED = 0.05  # largest allowed share of pixels with colours that no class has


def colors_to_label_ids(image_u8: torch.Tensor, source: str = "the picture") -> torch.Tensor:
    """A colour map (3, H, W) uint8, in Cityscapes' or CamVid's colours -> label ids (H, W) uint8.

    Classes that share a colour (the void ones are all black) become the first of them.  A few
    pixels of other colours, as soft edges have, become 0 (unlabeled) with a warning.

    Raises ValueError if more than a twentieth of the pixels have a colour that no class has.
    """
    if image_u8.dim() != 3 or len(image_u8) != 3 or image_u8.dtype != torch.uint8:
        raise ValueError(
            f"{source} is {image_u8.dtype} of shape {tuple(image_u8.shape)}, expected uint8 of "
            "shape (3, H, W), as utils.images.read_image() gives it."
        )
    codes = _color_codes(image_u8.movedim(-3, -1))
    both = [_from_palette(codes, palette) for palette in _PALETTES]
    label_ids = max(both, key=lambda ids: int((ids != IGNORED).sum()))
    unknown = label_ids == IGNORED
    if unknown.any():
        values, counts = codes[unknown].unique(return_counts=True)
        code, count = int(values[counts.argmax()]), int(unknown.sum())
        text = (
            f"{source} holds the colour {(code >> 16, (code >> 8) & 255, code & 255)}, which no "
            f"Cityscapes or CamVid class has; {count} of {codes.numel()} pixels have such colours"
        )
        if count > _MOST_BLENDED * codes.numel():
            raise ValueError(
                f"{text}.  Is it a colour map?  Save it as PNG, not as JPEG, resize it with "
                "nearest-neighbour, and draw with a pencil, not with a brush that has soft edges."
            )
        warnings.warn(
            f"{text} and become 0 (unlabeled); a brush with soft edges mixes colours.", stacklevel=2
        )
        label_ids[unknown] = 0
    return label_ids


def colors_contradict_ids(colors: torch.Tensor, ids: torch.Tensor) -> bool:
    """Whether a palette has the colours of classes, but at indices that are not their ids.

    An editor that saves a colour map with a palette numbers the colours arbitrarily.

    Args:
        colors: (N, 3) uint8, the palette's entries that are used.
        ids: (N,), their indices: label ids or CamVid ids, if they are ids at all.
    """
    codes, ids = _color_codes(colors), ids.long()
    official = _color_codes(COLORS)[ids.clamp(max=NUM_LABELS - 1)]
    camvid = LABEL_OF_CAMVID_ID[ids.clamp(max=len(CAMVID_NAMES) - 1)]
    # Palettes of other data sets hold some of CamVid's colours, but hardly any of Cityscapes'.
    for palette, least, share in zip(_PALETTES, (2, 4), (0.5, 1.0)):
        named = _from_palette(codes, palette)
        known = named != IGNORED
        fits = bool((official == codes)[known].all() or (camvid == named)[known].all())
        enough = int((codes[known] != 0).sum()) >= least and known.float().mean() >= share
        if enough and not fits:
            return True
    return False


def _from_palette(codes: torch.Tensor, palette: dict[int, int]) -> torch.Tensor:
    """Codes of colours -> label ids (uint8), IGNORED where the palette has no such colour."""
    known = torch.tensor(sorted(palette), dtype=codes.dtype)
    place = torch.searchsorted(known, codes.contiguous()).clamp_(max=len(known) - 1)
    label_ids = torch.tensor([palette[code] for code in known.tolist()], dtype=torch.uint8)
    return label_ids[place].masked_fill_(known[place] != codes, IGNORED)


def label_counts(label_ids: torch.Tensor) -> dict[int, int]:
    """{label id: how many pixels have it} for the labels that occur in maps, most pixels first."""
    counts = torch.bincount(label_ids.flatten().long(), minlength=NUM_LABELS)
    order = counts.argsort(descending=True, stable=True).tolist()
    return {label: int(counts[label]) for label in order if counts[label]}


def _look_up(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    low, high = (int(x) for x in torch.aminmax(ids)) if ids.numel() else (0, 0)
    if low < 0 or high >= len(table):
        raise ValueError(
            f"The map holds values {low}..{high}, expected 0..{len(table) - 1}: "
            "utils.labels.check_label_ids() says what it may be."
        )
    return table.to(ids.device)[ids.long()]


def instance_edges(ids: torch.Tensor) -> torch.Tensor:
    """Mark every pixel whose id differs from its left, right, upper or lower neighbour's.

    Args:
        ids: (B, H, W) integers.

    Returns:
        (B, H, W) bool; both sides of a border are marked, the image's rim is not.
    """
    edges = torch.zeros_like(ids, dtype=torch.bool)
    across = ids[:, :, 1:] != ids[:, :, :-1]
    edges[:, :, 1:] |= across
    edges[:, :, :-1] |= across
    down = ids[:, 1:] != ids[:, :-1]
    edges[:, 1:] |= down
    edges[:, :-1] |= down
    return edges
