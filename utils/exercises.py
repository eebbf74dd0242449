"""Check the answers of the exercises: check("02.3", answer) says whether an answer is right.

Each exercise is defined once, in EXERCISES, for its notebook and for its solution.  A fixed answer
is kept as a hash; an answer that depends on the reader's data is computed from them; a function is
called with small inputs, and its results are compared with those of the project's own code.
"""

import copy
import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import spade
from spade.fast import Neighbourhoods
from spade.generator import SpadeBlock
from spade.normalization import SPADE
from spade.semantics import label_codes
from utils.labels import ID, instance_edges
from utils.scenes import boundary_contrast, open_scenes

# What takes seconds to import (torchmetrics, torchvision's networks) is imported by the check that
# needs it, so that notebook 01 need not wait.
STRICT = "COURSE_STRICT"  # conftest.py sets it to 1: a measured value out of bounds fails the tests
SALT = "street-to-map"
TOLERANCE = 0.005


@dataclass(frozen=True)
class Exercise:
    """What is known of one exercise.

    Attributes:
        kind: what the answer should be, one of KINDS.
        hint: what to do about a wrong answer.
        right: for a function, a test that gets the function, and what check() was given, and
            returns whether it is right; else the right answer's digest(), or a function that
            computes the right answer from what check() was given.
    """

    kind: str
    hint: str
    right: str | Callable


def check(exercise: str, answer: object, *given: object) -> None:
    """Print whether the answer to an exercise is right; a wrong one gets a hint, never an error.

    Args:
        exercise: notebook and number, such as "02.3".
        answer: the reader's, or ... as it stands in the notebook.
        given: what the exercise is about, where that depends on the notebook's parameters: data,
            or a network.

    Raises ValueError: there is no such exercise.
    """
    if exercise not in EXERCISES:
        raise ValueError(f"There is no exercise {exercise!r}: there are {', '.join(EXERCISES)}.")
    known = EXERCISES[exercise]
    if answer is ...:
        print("Not answered yet: replace the three dots, and run this cell again.")
        return
    plain = _plain(answer)
    if not KINDS[known.kind](plain):
        what = f"of type {type(answer).__name__}"
        if known.kind != FUNCTION and callable(plain):
            what = "a function: give what it returns"
        print(f"Not yet: the answer should be {known.kind}, and this is {what}.")
        return
    hint = known.hint if known.hint.endswith("?") else f"{known.hint}."
    if known.kind == FUNCTION:
        try:
            is_right = known.right(answer, *given)
        except Exception as error:  # whatever a reader's function may do
            message = f"{type(error).__name__}: {error}\nHint: {hint}"
            print(f"Not yet: the check of your function stopped with {message}")
            return
    elif callable(known.right):
        is_right = _same(plain, _plain(known.right(*given)))
    else:
        is_right = digest(exercise, answer) == known.right
    print("Right." if is_right else f"Not yet: {hint}")


def check_value(
    value: float | Tensor, what: str, at_least: float | None = None, at_most: float | None = None
) -> None:
    """Print a measured value beside its bounds: "mIoU should be at least 0.7: 0.753".

    Outside of the bounds it says so and goes on, since other data, other settings or a slow machine
    can be the reason.

    Raises:
        AssertionError: outside of the bounds, where the environment has COURSE_STRICT=1 (the
            project's tests).
    """
    value = float(value)
    low, high = at_least is None or value >= at_least, at_most is None or value <= at_most
    bounds = {"at least": at_least, "at most": at_most}
    asked = " and ".join(f"{name} {x:g}" for name, x in bounds.items() if x is not None)
    shown = f"{value:.3f}".rstrip("0").rstrip(".")
    if low and high:  # both are false for NaN
        print(f"{what} should be {asked}: {shown}")
        return
    message = f"{what} should be {asked}, but is {value:.6g}."  # digits that show which side
    if os.environ.get(STRICT) == "1":
        raise AssertionError(message)
    print(f"{message} Other data, other settings or a slow machine can be the reason.")


def digest(exercise: str, answer: object) -> str:
    """The hash under which a fixed answer is kept; numbers are rounded to two decimals."""
    text = f"{SALT} {exercise} {json.dumps(_rounded(_plain(answer)))}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ----------------------------------------------------------------------------- kinds of answers


def _plain(answer: object) -> object:
    """Python's own numbers and lists for torch's and NumPy's; text in lower case, single spaces."""
    if hasattr(answer, "tolist") and not isinstance(answer, type):
        answer = answer.tolist()
    if isinstance(answer, str):
        text = " ".join(answer.casefold().split())
        return {"true": True, "false": False}.get(text, text)
    if isinstance(answer, (list, tuple)):
        return [_plain(item) for item in answer]
    return answer


def _is_number(plain: object) -> bool:
    return isinstance(plain, (int, float)) and not isinstance(plain, bool)


def _are_numbers(plain: object) -> bool:
    return isinstance(plain, list) and all(map(_is_number, plain))


def _same(plain: object, right: object) -> bool:
    if isinstance(plain, list) and isinstance(right, list):
        return len(plain) == len(right) and all(map(_same, plain, right))
    if _is_number(plain) and _is_number(right):
        return math.isclose(plain, right, rel_tol=1e-6, abs_tol=TOLERANCE)
    return plain == right


def _rounded(plain: object) -> object:
    if isinstance(plain, list):
        return [_rounded(item) for item in plain]
    return round(float(plain), 2) + 0.0 if _is_number(plain) else plain  # + 0.0: no -0.0


NUMBER, LIST, PAIR = "a number", "a list of numbers", "a pair of numbers"
TEXT, TRUTH, FUNCTION = "a text", "True or False", "a function"
KINDS = {
    NUMBER: _is_number,
    LIST: _are_numbers,
    PAIR: lambda plain: _are_numbers(plain) and len(plain) == 2,
    TEXT: lambda plain: isinstance(plain, str),
    TRUTH: lambda plain: isinstance(plain, bool),
    FUNCTION: lambda plain: callable(plain) and not isinstance(plain, nn.Module),
}


# ----------------------------------------------------------------------------- the checks


def _close(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


def _equal(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[x], other[x]) for x in state)


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _with_random_statistics(network: nn.Module) -> nn.Module:
    """In evaluation mode, with batch norms that change what goes through."""
    random = _random(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=random)
            module.running_var.uniform_(0.5, 2, generator=random)
    return network.eval()


def _scenes_with_people(label_ids: Tensor) -> Tensor:
    return (label_ids == ID["person"]).flatten(1).any(1).sum()


def _contrast_by_columns(contrast: Callable, photos_u8: Tensor, label_ids: Tensor) -> bool:
    def expected(columns):
        slipped = zip(photos_u8, label_ids.roll(columns, -1))
        return sum(boundary_contrast(*pair) for pair in slipped) / len(label_ids)

    return all(abs(float(contrast(n)) - expected(n)) < 1e-3 for n in (0, 3, 7))


def _marks_edges(edges_by_hand: Callable) -> bool:
    random = _random(0)
    maps = [torch.randint(0, 3, shape, generator=random) for shape in ((6, 9), (1, 5), (7, 1))]
    halves = (torch.arange(8) // 4).expand(5, 8)  # opposite rims differ, and are no neighbours
    square = torch.zeros(6, 8, dtype=torch.long)
    square[2:4, 3:6] = 1  # nor are pixels that meet in a corner
    maps += [halves, halves.T, square]
    return all(torch.equal(edges_by_hand(ids), instance_edges(ids[None])[0]) for ids in maps)


@torch.no_grad()
def _numbers_in_coarsest_map(network: nn.Module, size: tuple[int, int]) -> int:
    photo = torch.zeros(1, 3, size[1], size[0], device=next(network.parameters()).device)
    return network.encoder(photo)[-1].numel()


def _measures_iou(iou: Callable) -> bool:
    from utils.metrics import SegmentationScore

    random = _random(0)
    some = torch.tensor([ID[name] for name in ("road", "car", "sky", "ego vehicle", "static")])
    predicted_ids, true_ids = (
        some[torch.randint(0, len(some), (2, 8, 8), generator=random)].byte() for _ in range(2)
    )
    score = SegmentationScore()
    score.update(predicted_ids, true_ids)
    expected = score.compute().iou
    return all(
        abs(float(iou(predicted_ids, true_ids, name)) - expected[name]) < 1e-4
        for name in ("road", "car", "sky")
    )


def _changes_stride(with_stride: Callable, network: nn.Module) -> bool:
    coarse, weights = with_stride(32), network.encoder.state_dict()
    started = coarse.encoder.state_dict()
    is_kept = all(torch.equal(started[key].cpu(), weights[key].cpu()) for key in weights)
    heads = len(coarse.head.scores), len(with_stride(8).head.scores)
    both = [set(map(id, x.encoder.parameters())) for x in (coarse, network)]
    return is_kept and both[0].isdisjoint(both[1]) and heads == (1, 3)


def _balances(balanced: Callable) -> bool:
    from utils.training import balanced_weights

    scenes = open_scenes("toy", "train", size=(64, 32))[:6]
    _, maps = scenes.batch(range(len(scenes)))
    weights, of_few_labels = balanced(maps), balanced(maps.clamp(max=ID["car"]))
    return len(of_few_labels) == 34 and _close(weights, balanced_weights(scenes))


@torch.no_grad()
def _is_block(block_by_hand: Callable) -> bool:
    x = torch.randn(2, 6, 4, 8, generator=_random(1))
    planes = torch.rand(2, 36, 8, 16, generator=_random(2))
    # Without a learned shortcut, and with one.
    blocks = [_with_random_statistics(SpadeBlock(6, channels, hidden=5)) for channels in (6, 4)]
    return all(_close(block_by_hand(block, x, planes), block(x, planes)) for block in blocks)


@torch.no_grad()
def _normalises_instances(with_instance_norm: Callable) -> bool:
    generator = _with_random_statistics(spade.SpadeGenerator(2, "normal", None, (64, 64), hidden=4))
    planes = spade.semantics(torch.arange(64)[:, None].expand(64, 64) // 2)
    before, expected = generator(planes), copy.deepcopy(generator)
    for layer in expected.modules():
        if isinstance(layer, SPADE):
            layer.param_free_norm = nn.InstanceNorm2d(layer.param_free_norm.num_features)
    changed = with_instance_norm(generator)
    is_kept = torch.equal(generator(planes), before)
    return is_kept and _close(changed(planes), expected(planes))


@torch.no_grad()
def _is_table(by_table: Callable) -> bool:
    layer = _with_random_statistics(SPADE(channels=4, hidden=5))
    label_ids = torch.full((48, 64), ID["road"], dtype=torch.uint8)
    label_ids[:20] = ID["sky"]
    label_ids[30:40, 10:30] = ID["car"]
    if not Neighbourhoods(label_codes(label_ids)).repeat:
        raise RuntimeError("the check's own map has too few neighbourhoods that repeat")
    x = torch.randn(1, 4, 48, 64, generator=_random(1))
    return _close(by_table(layer, x, label_ids), layer(x, spade.semantics(label_ids)))


def _class_that_loses_most(scores: Sequence) -> str:
    first, second = (score.iou for score in scores)
    lost = {name: first[name] - second[name] for name in first}
    return max((name for name in lost if not math.isnan(lost[name])), key=lost.get)


def _is_blind(blind: Callable, generator: spade.SpadeGenerator, label_ids: Tensor) -> bool:
    before = copy.deepcopy(generator.state_dict())
    expected = copy.deepcopy(generator)
    for layer in expected.up_2.modules():
        if isinstance(layer, SPADE):
            layer.mlp_gamma.weight.data.zero_()
            layer.mlp_beta.weight.data.zero_()
    blinded = blind("up_2")
    is_kept = _equal(generator.state_dict(), before)
    generator.load_state_dict(before)  # so that a second try begins with the same network
    is_blind = _equal(blinded.state_dict(), expected.state_dict())
    drawn = [network.synthesize(label_ids) for network in (blinded, generator)]
    return is_kept and is_blind and not torch.equal(*drawn)


def _more_alike(true_ids: Tensor) -> str:
    from utils.pipeline import agreement

    mirrored = agreement(true_ids, true_ids.flip(-1)).mean()
    return "mirror" if mirrored > agreement(true_ids, true_ids.roll(1, 0)).mean() else "other"


def _shifts(shift: Callable) -> bool:
    label_ids = torch.randint(0, 34, (2, 3, 5), generator=_random(0), dtype=torch.uint8)
    before, shifted = label_ids.clone(), torch.as_tensor(shift(label_ids))
    expected = torch.stack([label_ids[..., max(column - 1, 0)] for column in range(5)], -1)
    return torch.equal(shifted, expected) and torch.equal(label_ids, before)


def _looks_twice(look_twice: Callable, network: nn.Module, image_u8: Tensor) -> bool:
    from utils.engine import evaluation_mode
    from utils.pipeline import agreement

    x = image_u8.to(next(network.parameters()).device)
    with torch.no_grad(), evaluation_mode(network):
        expected = (network(x) + network(x.flip(-1)).flip(-1)).argmax(1).to(torch.uint8)
    seen = look_twice(network, image_u8)
    return seen.dtype == torch.uint8 and bool(agreement(seen.cpu(), expected.cpu()).min() > 0.999)


def _is_evening(evening_in: Callable, generator: spade.SpadeGenerator) -> bool:
    cities = [name.removesuffix(", dusk") for name in generator.styles if name.endswith(", dusk")]
    pairs = [[generator.style(f"{city}, {time}") for time in ("dusk", "night")] for city in cities]
    means = [torch.stack(pair).mean(0) for pair in pairs]
    answers = zip(map(evening_in, cities), means)
    return bool(cities) and all(torch.allclose(*pair, atol=1e-5) for pair in answers)


def _plants_avenue(plant: Callable, empty_ids: Tensor) -> bool:
    from utils.painter import Painting

    avenue = Painting(empty_ids)
    plant(avenue)
    trees = (avenue.label_ids == ID["vegetation"]).sum(0)  # pixels of trees in each column
    left, inner_left, inner_right, right = (
        int(part.sum()) for part in trees.split(-(-empty_ids.shape[1] // 4))
    )
    for _ in range(6):
        avenue.undo()  # an error where there is nothing left to undo: fewer than six strokes
    return left > inner_left > 0 and right > inner_right > 0


def _paints_twice(paint_twice: Callable, empty_ids: Tensor) -> bool:
    from utils.painter import Painting

    height, width = empty_ids.shape
    painting = Painting(empty_ids)
    points = [(0.1 * width, 0.1 * height), (0.2 * width, 0.5 * height)]
    paint_twice(painting, points, "building", height // 4)
    painted = painting.label_ids
    painting.undo()
    is_mirrored = torch.equal(painted, painted.flip(1)) and bool((painted != empty_ids).any())
    return is_mirrored and torch.equal(painting.label_ids, empty_ids)


def _is_between(
    between: Callable, generator: spade.SpadeGenerator, a_ids: Tensor, b_ids: Tensor
) -> bool:
    start, middle, end = (between(a_ids, b_ids, t).cpu().int() for t in (0, 0.5, 1))
    a, b = (generator.synthesize(ids).cpu().int() for ids in (a_ids, b_ids))
    ends_are_right = (start - a).abs().max() <= 1 and (end - b).abs().max() <= 1
    blend = (start + end) / 2  # of the two pictures, which is something else
    return bool(ends_are_right and (middle - blend).abs().max() > 20)


# ----------------------------------------------------------------------------- all of them


EXERCISES = {
    "01.1": Exercise(LIST, "each pixel becomes a block of two by two", "ee56d2c567f8c472"),
    "01.2": Exercise(
        NUMBER, "a scene counts once; only the label ID['person'] counts", _scenes_with_people
    ),
    "01.3": Exercise(
        FUNCTION, "the mean over all photos, each with its rolled map", _contrast_by_columns
    ),
    "01.4": Exercise(
        FUNCTION, "compare ids[:, 1:] with ids[:, :-1], mark both; then the rows", _marks_edges
    ),
    "02.1": Exercise(
        NUMBER, "halved five times each way, and 512 numbers a cell", _numbers_in_coarsest_map
    ),
    "02.2": Exercise(
        FUNCTION,
        "the pixels on which both agree, divided by those that either claims, where"
        " label_ids_to_train_ids(true_ids) is not 255",
        _measures_iou,
    ),
    "02.3": Exercise(
        FUNCTION,
        "SegmentationNet takes network.settings['backbone'] and finest_stride; then"
        " load_state_dict, for its encoder only",
        _changes_stride,
    ),
    "02.4": Exercise(
        FUNCTION,
        "a tensor of 34 weights, also where labels lack; (shares * weights).sum() ends as 1",
        _balances,
    ),
    "03.1": Exercise(
        NUMBER, "which pixel has a neighbour that is something else?", "9935e48afa9f711a"
    ),
    "03.2": Exercise(
        PAIR, "first normalised to mean 0 and deviation 1, then our two rules", "e45b5223971463c2"
    ),
    "03.3": Exercise(
        FUNCTION, "norm, leaky ReLU of slope 0.2, convolution; twice; plus the shortcut", _is_block
    ),
    "03.4": Exercise(
        FUNCTION,
        "copy.deepcopy; then for each SPADE in modules() another param_free_norm",
        _normalises_instances,
    ),
    "04.1": Exercise(TRUTH, "is anything drawn at random on the way?", "4c0d723db4ea9b9a"),
    "04.2": Exercise(
        TEXT, "subtract one .iou from the other, and leave out the NaN", _class_that_loses_most
    ),
    "04.3": Exercise(
        FUNCTION,
        "deepcopy the generator; zero_() both weights of each SPADE of the block, norm_s included",
        _is_blind,
    ),
    "05.1": Exercise(TEXT, "print both figures", _more_alike),
    "05.2": Exercise(
        FUNCTION, "column 0 twice, then columns 1, 2 and so on; not around the rim", _shifts
    ),
    "05.3": Exercise(
        FUNCTION,
        "flip the mirror image's scores back, add, then argmax over the labels",
        _looks_twice,
    ),
    "06.1": Exercise(
        NUMBER,
        "start with one score and go back: a 4x4 convolution adds 3 steps of its input's grid",
        "b8101350120a237f",
    ),
    "06.2": Exercise(
        FUNCTION,
        "a style is looked up by its name, as in section 5; return the mean of two",
        _is_evening,
    ),
    "07.1": Exercise(PAIR, "which centres of pixels are how far away?", "8098ca19c50460e5"),
    "07.2": Exercise(
        TRUTH, "is the road behind the car connected with that in front of it?", "9589d8892ee57dc7"
    ),
    "07.3": Exercise(
        FUNCTION,
        "six strokes or more into the painting itself, on both sides; the largest at the rims",
        _plants_avenue,
    ),
    "07.4": Exercise(
        FUNCTION, "x mirrored is width - x; a stroke may continue the one before it", _paints_twice
    ),
    "07.5": Exercise(
        FUNCTION,
        "t = 0 is the image of a_ids; call the generator itself, without z and gradients",
        _is_between,
    ),
    "08.1": Exercise(NUMBER, "corners, sides and the inside", "19c88fca5d19ce54"),
    "08.2": Exercise(
        PAIR, "nine tenths of the old value, one tenth of the new one", "72d03b6b0b1e75cd"
    ),
    "08.3": Exercise(
        FUNCTION,
        "number the codes, label_codes(label_ids); table[row_of] is (B, H, W, C): permute it",
        _is_table,
    ),
}
