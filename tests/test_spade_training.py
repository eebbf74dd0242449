"""The losses of SPADE by hand, styles, and a training that can be interrupted."""

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from examples import equal

import spade
from spade import discriminator as discriminator_module
from spade import perceptual as perceptual_module
from spade import styles, training
from spade.checkpoint import start_from, take_over
from spade.losses import (
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    kl_divergence,
    split_judgement,
    style_cross_entropy,
)
from spade.perceptual import PerceptualLoss, gram_matrices, texture_difference
from spade.pixel_discriminator import PixelDiscriminator
from spade.semantics import codes_to_planes
from spade.styles import (
    StyleClassifier,
    draw,
    even_chances,
    give_head_start,
    named_styles,
    style_labels,
)
from spade.training import (
    Recipe,
    VariationalGenerator,
    adversarial_step,
    generator_losses,
    save_preview,
    train_spade,
    training_batch,
    with_fresh_singular_vectors,
    xavier_start,
)
from utils.cache import cached
from utils.engine import make_accelerator
from utils.engine.averaging import RunningMean
from utils.images import pm1_to_imagenet, read_image, u8_to_pm1
from utils.labels import ID
from utils.scenes import open_scenes
from utils.segmentation import SegmentationNet


def judgement(*scores):
    """One scale a score: a layer of zeros, then the score."""
    return [[torch.zeros(1, 2, 3, 3), torch.tensor(score).reshape(1, 1, 1, -1)] for score in scores]


# ------------------------------------------------------------------------------ losses


def test_split_judgement():
    both = [[torch.arange(8.0).reshape(4, 2)], [torch.arange(4.0), torch.ones(4, 1, 5)]]
    fake, real = split_judgement(both)
    assert fake[0][0].tolist() == [[0, 1], [2, 3]] and real[0][0].tolist() == [[4, 5], [6, 7]]
    assert fake[1][0].tolist() == [0, 1] and real[1][0].tolist() == [2, 3]
    assert [len(scale) for scale in fake] == [len(scale) for scale in real] == [1, 2]


def test_hinge_losses_by_hand():
    # Fake: -2 costs nothing, 0 costs 1.  Real: 3 costs nothing, -1 costs 2.
    fake, real = judgement([-2.0, 0.0]), judgement([3.0, -1.0])
    assert hinge_discriminator(fake, real).item() == pytest.approx(0.5 + 1)
    # A second scale that is perfect halves the mean.
    fake, real = judgement([-2.0, 0.0], [-1.0]), judgement([3.0, -1.0], [1.0])
    assert hinge_discriminator(fake, real).item() == pytest.approx(0.75)
    assert hinge_generator(judgement([-2.0, 0.0])).item() == pytest.approx(1)
    assert hinge_generator(judgement([-2.0, 0.0], [5.0])).item() == pytest.approx(-2)


def test_feature_matching_by_hand():
    fake = [[torch.tensor([1.0, 2.0]), torch.tensor([0.0]), torch.tensor([9.0])]] * 2
    real = [[torch.tensor([0.0, 0.0]), torch.tensor([4.0]), torch.tensor([0.0])]] * 2
    assert feature_matching(fake, fake).item() == 0
    # 1.5 + 4 in each of the two scales; the last layer is the score and does not count.
    assert feature_matching(fake, real).item() == pytest.approx(5.5)
    # Only what belongs to the generated image gets a gradient.
    fake, real = ([[torch.ones(2, requires_grad=True), torch.ones(1)]] for _ in range(2))
    feature_matching([[fake[0][0] * 2, fake[0][1]]], real).backward()
    assert fake[0][0].grad.tolist() == [1, 1] and real[0][0].grad is None


def test_kl_divergence_by_hand():
    assert kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3)).item() == 0
    mu, logvar = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.zeros(2, 2)
    assert kl_divergence(mu, logvar).item() == pytest.approx(0.5 / 2)  # the mean of two pictures
    wide = kl_divergence(torch.zeros(1, 1), torch.ones(1, 1)).item()
    assert wide == pytest.approx(0.5 * (math.e - 1 - 1)), "a variance of e"


def test_style_cross_entropy_by_hand():
    sure, unsure = torch.tensor([[9.0, -9.0]]), torch.zeros(1, 4)
    right = style_cross_entropy([sure, unsure], torch.tensor([[0, 3]])).item()
    assert right == pytest.approx(math.log(4))
    # Of the first question both answers are wrong by 18; the mean of two photos.
    wrong = style_cross_entropy([sure.expand(2, 2)], torch.tensor([[1], [0]])).item()
    assert wrong == pytest.approx(18 / 2)


def photos(seed=0):
    return torch.rand(2, 3, 33, 47, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_perceptual_loss(segmenter):
    perceptual = PerceptualLoss.of_segmentation(copy.deepcopy(segmenter))
    one, other = photos(0).requires_grad_(), photos(1)
    assert perceptual(one, one.detach()).item() == 0
    loss = perceptual(one, other)
    near = perceptual(one, (0.9 * one + 0.1 * other).detach())
    assert loss.shape == () and 0 < near.item() < 0.5 * loss.item()
    loss.backward()
    assert one.grad.abs().sum() > 0


def test_the_texture_of_a_region_is_the_same_wherever_it_is_in_it():
    features = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 3, 20)
    masks[:, 0] = 1
    masks[:, 1, :8] = 1  # the third region is empty
    matrices = gram_matrices(features, masks)
    assert matrices.shape == (2, 3, 3, 3) and not matrices[:, 2].any()
    x = features.flatten(2)
    torch.testing.assert_close(matrices[1, 0, 0, 2], (x[1, 0] * x[1, 2]).mean())
    torch.testing.assert_close(matrices[1, 1, 0, 2], (x[1, 0] * x[1, 2])[:8].mean())
    elsewhere = x[:, :, [*torch.randperm(8), *range(8, 20)]].reshape(features.shape)
    torch.testing.assert_close(gram_matrices(elsewhere, masks), matrices)
    # Half precision would round a difference of textures away.
    with torch.autocast("cpu", torch.bfloat16):
        half = [x.bfloat16() for x in (features, elsewhere + 1)]
        assert texture_difference(*half).dtype == torch.float32


def test_textures_are_compared_region_by_region():
    def left_and_right(height, width, edge):
        regions = torch.zeros(1, 2, height, width)
        regions[:, 0, :, :edge], regions[:, 1, :, edge:] = 1, 1
        return regions

    random = torch.Generator().manual_seed(0)
    left, right = (torch.rand(1, 2, 4, 4, generator=random) for _ in range(2))
    one, swapped = torch.cat([left, right], 3), torch.cat([right, left], 3)
    regions = left_and_right(8, 16, edge=8)  # twice the size of the features
    assert texture_difference(one, one, regions).item() == 0
    # The photo as a whole has the same texture, and each of its halves has not.
    assert texture_difference(one, swapped).item() < 1e-6
    whole = torch.ones(1, 1, 16)
    difference = (gram_matrices(left, whole) - gram_matrices(right, whole)).abs().mean()
    torch.testing.assert_close(texture_difference(one, swapped, regions), difference)
    # Three quarters of a photo count for sqrt(3) times as much as the last one.
    regions = left_and_right(4, 8, edge=6)
    changed = one.clone()
    changed[..., 6:] += 1
    matrices = [gram_matrices(x, regions.flatten(2))[0, 1] for x in (changed, one)]
    expected = (matrices[0] - matrices[1]).abs().mean() / (1 + 3**0.5)
    torch.testing.assert_close(texture_difference(changed, one, regions), expected)


def test_the_perceptual_loss_adds_the_texture(segmenter):
    one, other = photos(0), photos(1)
    plain, textured = (
        PerceptualLoss.of_segmentation(copy.deepcopy(segmenter), texture) for texture in (0, 2)
    )
    regions = torch.rand(len(one), 3, 16, 16).round()
    assert textured(one, one, regions).item() == 0
    expected, x, y = plain(one, other), pm1_to_imagenet(one), pm1_to_imagenet(other)
    for stage in plain.stages:
        x, y = stage(x), stage(y)
        expected += 2 / 3 * texture_difference(x / y.std(), y / y.std(), regions)
    torch.testing.assert_close(textured(one, other, regions), expected)


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
def test_the_perceptual_loss_compares_an_encoders_first_feature_maps(backbone):
    network = SegmentationNet(backbone).eval()
    perceptual = PerceptualLoss.of_segmentation(network)
    x = torch.rand(1, 3, 32, 64)
    expected = network.encoder(x)[1:4]
    for stage, feature_map in zip(perceptual.stages, expected, strict=True):
        x = stage(x)
        torch.testing.assert_close(x, feature_map)
    assert perceptual.mean == network.backbone.mean and perceptual.std == network.backbone.std


def test_perceptual_loss_is_frozen(segmenter):
    perceptual = PerceptualLoss.of_segmentation(copy.deepcopy(segmenter).train())
    before = copy.deepcopy(perceptual.state_dict())
    assert perceptual.train() is perceptual and not any(x.training for x in perceptual.modules())
    torch.nn.Sequential(perceptual).train()
    assert not any(x.training for x in perceptual.modules())
    assert not any(parameter.requires_grad for parameter in perceptual.parameters())
    perceptual(photos(0), photos(1))
    assert equal(before, perceptual.state_dict())


def test_vgg19_is_cut_where_the_recipe_cuts_it(monkeypatch):
    def random_weights(weights, alternative):
        assert weights.url.endswith("vgg19-dcbb9e9d.pth") and "segmentation" in alternative
        with torch.device("meta"):
            state = perceptual_module.models.vgg19(init_weights=False).state_dict()
        nothing, random = torch.zeros(()), torch.Generator().manual_seed(0)
        return {
            key: torch.randn(x.shape, generator=random) * (2 / x[0].numel()) ** 0.5
            if key.startswith("features") and x.dim() == 4
            else nothing.expand(x.shape)
            for key, x in state.items()
        }

    monkeypatch.setattr(perceptual_module, "imagenet_weights", random_weights)
    perceptual = PerceptualLoss.of_vgg19()
    convolutions = [sum(type(x).__name__ == "Conv2d" for x in stage) for stage in perceptual.stages]
    assert convolutions == [1, 2, 2, 4, 4]  # up to relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
    assert [stage[-1].__class__.__name__ for stage in perceptual.stages] == ["ReLU"] * 5
    one, other = photos(0), photos(1)
    assert perceptual(one, one).item() == 0 and perceptual(one, other).item() > 0
    # By hand: the weights of the recipe, and no layer that changes another's output afterwards.
    expected, x, y = 0.0, *(pm1_to_imagenet(part) for part in (one, other))
    for stage, weight in zip(perceptual.stages, (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), strict=True):
        x, y = stage(x), stage(y)
        expected += weight * (x - y).abs().mean().item()
    assert perceptual(one, other).item() == pytest.approx(expected, rel=1e-4)


# ------------------------------------------------------------------------------ every pixel


@pytest.fixture(scope="module")
def real_streets():
    return open_scenes("streets", "train", size=(64, 32)).evenly_spaced(36)


@pytest.fixture(scope="module")
def pixel_judge(real_streets):
    torch.manual_seed(0)
    judge = PixelDiscriminator()
    judge.prepare(real_streets, count=12)
    return judge


def test_a_pixel_discriminator_knows_what_is_usual_in_real_photos(pixel_judge, real_streets):
    scenes = real_streets.evenly_spaced(12)
    maps = pixel_judge.features(u8_to_pm1(scenes.batch(range(12))[0]))
    assert [x.shape[1] for x in maps] == [320, 112, 40, 24, 16]
    assert [x.shape[2] for x in maps] == [1, 2, 4, 8, 16]
    for index, features in enumerate(maps):
        mean, std = (getattr(pixel_judge, f"{name}_{index}") for name in ("mean", "std"))
        torch.testing.assert_close(features.mean((0, 2, 3)), mean.flatten(), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(
            features.std((0, 2, 3), correction=0), std.flatten(), atol=1e-3, rtol=1e-2
        )
    weights = pixel_judge.class_weights
    assert weights[0] == 0 and weights[34] == 1, "unlabeled, and fake"
    assert weights[ID["pole"]] > weights[ID["road"]] > 0 == weights[ID["tunnel"]]


def test_a_pixel_discriminator_does_not_judge_what_it_has_never_seen(pixel_judge, real_streets):
    judge = copy.deepcopy(pixel_judge)
    judge.prepare(real_streets.evenly_spaced(4), count=2)
    assert torch.equal(judge.mean_0, pixel_judge.mean_0), "it is prepared once"
    scenes = open_scenes("toy", "train", size=(64, 32))[:4]
    with pytest.raises(ValueError, match="without .*trailer.*, which these scenes show"):
        judge.prepare(scenes)
    with pytest.raises(ValueError, match="backbone is 'resnet34': expected efficientnet_lite0 or"):
        PixelDiscriminator("resnet34")


def test_a_pixel_discriminators_losses_by_hand(pixel_judge):
    planes = codes_to_planes(torch.full((1, 32, 32), ID["road"]))
    scores = torch.zeros(2, 35, 32, 32)
    scores[0, 34] = math.log(66)  # of 100: surely fake; the real one: no idea
    road = pixel_judge.class_weights[ID["road"]].item()
    expected = math.log(100 / 66) + road * math.log(35)
    assert pixel_judge.loss((scores, []), planes, None).item() == pytest.approx(expected, rel=1e-5)
    fake_pm1 = torch.zeros(1, 3, 32, 32, requires_grad=True)
    judge = copy.deepcopy(pixel_judge).eval()
    losses = judge.generator_losses(planes, fake_pm1, fake_pm1, Recipe(), None)
    assert list(losses) == ["adversarial"]
    expected = F.cross_entropy(judge(None, fake_pm1)[0], torch.full((1, 32, 32), ID["road"]))
    assert losses["adversarial"].item() == pytest.approx(road * expected.item(), rel=1e-5)
    losses["adversarial"].backward()
    assert fake_pm1.grad.abs().sum() > 0


def test_styles_are_told_from_photos_and_asked_of_images(pixel_judge):
    """Dark photos of one city, bright ones of another: it learns which is which from real ones, and
    asks a generator for the city whose style was meant, not for that of the map."""
    torch.manual_seed(0)
    judge = PixelDiscriminator(classes=[["dark", "bright"]])
    judge.load_state_dict(pixel_judge.state_dict(), strict=False)
    planes = codes_to_planes(torch.full((4, 32, 32), ID["road"]))
    styles = torch.tensor([[0], [1], [0], [1]])
    real_pm1 = torch.rand(4, 3, 32, 32) * 0.2 + (1.6 * styles - 0.9).view(4, 1, 1, 1)
    optimizer = torch.optim.Adam(judge.style.parameters(), 1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        judgement = judge(None, torch.cat([-real_pm1, real_pm1]))  # fake ones lie
        judge.loss(judgement, planes, styles).backward()
        optimizer.step()
    recipe = Recipe(shown_style_weight=2)
    right, wrong = (
        judge.generator_losses(planes, x, real_pm1, recipe, styles) for x in (real_pm1, -real_pm1)
    )
    assert right["shown style"] < 0.5 and wrong["shown style"] > 2


def test_some_images_are_drawn_in_another_photos_style(pixel_judge):
    batch = planes, real_pm1, noise, labels = (
        codes_to_planes(torch.full((4, 32, 32), ID["road"])),
        torch.linspace(-1, 1, 4).view(4, 1, 1, 1).expand(4, 3, 32, 32),
        torch.zeros(4, 5),
        torch.arange(4).view(4, 1),
    )
    asked = {}

    class Judge(torch.nn.Module):
        def generator_losses(self, planes, fake_pm1, real_pm1, recipe, styles):
            asked["styles"] = styles.flatten().tolist()
            return {}

    def network(planes, style_pm1, noise):
        asked["photos"] = style_pm1
        return style_pm1, None, None

    def perceptual(fake_pm1, real_pm1, regions):
        asked["compared"] = len(fake_pm1)
        return (fake_pm1 - real_pm1).abs().sum()

    perceptual.texture = 0
    recipe = Recipe(other_styles=0.5)
    _, losses = generator_losses(network, Judge(), batch, recipe, perceptual, None)
    assert torch.equal(asked["photos"], real_pm1[[0, 1, 0, 1]])
    assert asked["styles"] == [0, 1, 0, 1]
    assert asked["compared"] == 2 and losses["perceptual"] == 0, "the others have no photo"


def test_its_backbone_never_learns(pixel_judge):
    judge = copy.deepcopy(pixel_judge).requires_grad_(False).requires_grad_(True).train()
    learning = {name.split(".")[0] for name, x in judge.named_parameters() if x.requires_grad}
    assert learning == {"laterals", "blocks", "last", "score"}
    before = {name: x.clone() for name, x in judge.stages.state_dict().items()}
    judge(None, torch.rand(2, 3, 32, 64))[0].mean().backward()
    assert equal(before, judge.stages.state_dict())


def test_while_the_discriminator_warms_up_the_generator_stays(pixel_judge):
    torch.manual_seed(0)
    generator = spade.SpadeGenerator(2, "more", None, (64, 64), hidden=4)
    scenes = open_scenes("streets", "train", size=(96, 96)).evenly_spaced(4)
    judge, before = copy.deepcopy(pixel_judge), copy.deepcopy(generator.state_dict())
    recipe = Recipe(pictures=4, batch_size=2, warm_up=4, scale=0.5, even_cities=True)
    history = train_spade(generator, judge, scenes, recipe)
    assert len(history["discriminator"]) == 2 and "matching" not in history
    weights = [name for name in before if name.endswith(("weight_orig", "bias"))]
    assert all(torch.equal(before[name], generator.state_dict()[name]) for name in weights)
    assert not torch.equal(judge.score.weight, pixel_judge.score.weight)
    train_spade(generator, judge, scenes, replace(recipe, warm_up=2))
    assert not all(torch.equal(before[name], generator.state_dict()[name]) for name in weights)


def test_all_cities_are_drawn_equally_often(real_streets):
    chances = even_chances(real_streets)
    generator = torch.Generator().manual_seed(0)
    chosen = draw(len(real_streets), 3000, None, generator, chances)[0]
    share = sum(real_streets.names[i].startswith("california") for i in chosen.tolist()) / 3000
    assert 0.45 < share < 0.55, "though they are a fifth of the scenes"


def test_xavier_start():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(30, 50, 3), torch.nn.BatchNorm2d(50))
    xavier_start(network)
    assert network[0].weight.std().item() == pytest.approx(0.02 * (2 / (9 * 80)) ** 0.5, rel=0.05)
    assert not network[0].bias.any() and (network[1].weight == 1).all()


# ------------------------------------------------------------------------------ batches


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    scenes = open_scenes("toy", "train", size=(64, 64))[:6]
    return cached(scenes, tmp_path_factory.mktemp("cache"))


def test_a_batch_depends_on_its_step_only(streets):
    planes, image_pm1, noise = training_batch(streets, step=5, batch_size=3, seed=0, z_dim=4)
    assert noise.shape == (3, 4) and noise.std() > 0.3
    assert planes.shape == (3, 36, 64, 64) and image_pm1.shape == (3, 3, 64, 64)
    assert image_pm1.dtype == torch.float32 and -1 <= image_pm1.min() < image_pm1.max() <= 1
    torch.manual_seed(7)
    training_batch(streets, 4, 3, 0)
    again = training_batch(streets, 5, 3, 0, 4)
    assert all(map(torch.equal, again, (planes, image_pm1, noise)))
    for step, seed in ((6, 0), (5, 1)):
        assert not torch.equal(training_batch(streets, step, 3, seed)[1], image_pm1)


def test_batches_are_mirrored_as_a_whole_and_see_instances_at_times(streets):
    one = streets[:1]
    scene = one[0]
    photo = u8_to_pm1(scene.image_u8)[None]
    expected = {
        instances: spade.semantics(scene.label_ids, scene.instance_ids if instances else None)
        for instances in (True, False)
    }
    assert not torch.equal(expected[True], expected[False])  # the scene has instances to see
    kinds = []
    for step in range(40):
        planes, image_pm1, _ = training_batch(one, step, 1, 0)
        mirrored = not torch.equal(image_pm1, photo)
        if mirrored:
            planes, image_pm1 = planes.flip(-1), image_pm1.flip(-1)
        assert torch.equal(image_pm1, photo)
        instances = torch.equal(planes, expected[True])
        assert torch.equal(planes, expected[instances])
        kinds.append((mirrored, instances))
    assert all(3 <= kinds.count(kind) <= 20 for kind in set(kinds)) and len(set(kinds)) == 4


# ------------------------------------------------------------------------------ training


def tiny_networks(seed=0):
    """Generator, discriminator, encoder."""
    torch.manual_seed(seed)
    generator = spade.SpadeGenerator(ngf=2, hidden=4, upsampling="more", z_dim=3, size=(64, 64))
    return generator, spade.MultiscaleDiscriminator(ndf=2), spade.Encoder(ngf=2, z_dim=3)


def test_a_head_start(streets, monkeypatch):
    monkeypatch.setattr(styles, "CLASSIFIER_RATE", 1e-2)  # fewer steps
    *_, encoder = tiny_networks()
    classes, labels = style_labels(streets)
    classifier = StyleClassifier(classes, z_dim=3)

    def loss():
        with torch.no_grad():
            scores = classifier(encoder.eval()(u8_to_pm1(streets.batch(range(6))[0]))[0])
        return style_cross_entropy(scores, labels).item()

    before = loss()
    assert before == pytest.approx(sum(math.log(len(names)) for names in classes))
    recipe = Recipe(batch_size=4, kl_weight=0.02, style_weight=5, head_start=160)
    give_head_start(encoder, classifier, streets, labels, recipe)
    assert loss() < 0.5 * before


def train(networks, scenes, pictures, recipe, **settings):
    generator, discriminator, encoder = networks
    recipe = replace(recipe, pictures=pictures)
    return train_spade(generator, discriminator, scenes, recipe, encoder, **settings)


PAIRS = Recipe(batch_size=2)


def state_of(networks):
    return [copy.deepcopy(network.state_dict()) for network in networks]


def test_a_recipes_head_start_comes_before_the_training(streets, monkeypatch):
    started = []
    monkeypatch.setattr(training, "give_head_start", lambda *given: started.append(given))
    classes, _ = style_labels(streets)
    recipe = replace(PAIRS, head_start=4, style_weight=1)
    train(tiny_networks(), streets, 2, recipe, classifier=StyleClassifier(classes, z_dim=3))
    ((_, _, scenes, _, given),) = started
    assert len(scenes) == len(streets) and given == replace(recipe, pictures=2)


def test_two_steps_change_the_weights_of_all(streets, segmenter):
    networks = tiny_networks()
    before = state_of(networks)
    perceptual = PerceptualLoss.of_segmentation(copy.deepcopy(segmenter))
    frozen = copy.deepcopy(perceptual.state_dict())
    history = train(networks, streets, 4, PAIRS, perceptual=perceptual)
    assert list(history) == ["adversarial", "matching", "perceptual", "kl", "discriminator"]
    assert all(len(values) == 2 and all(map(math.isfinite, values)) for values in history.values())
    assert min(history["perceptual"] + history["kl"]) > 0
    assert networks[0].history["kl"] == pytest.approx(history["kl"], abs=1e-3)
    for network, state in zip(networks, before, strict=True):
        weights = [key for key, parameter in network.named_parameters() if parameter.dim() > 1]
        moved = [key for key in weights if not torch.equal(network.state_dict()[key], state[key])]
        assert moved == weights
    assert equal(frozen, perceptual.state_dict())
    assert not networks[0].training and not networks[2].training
    assert all(parameter.requires_grad for parameter in networks[1].parameters())


def test_without_a_latent(streets):
    torch.manual_seed(0)
    generator = spade.SpadeGenerator(ngf=2, hidden=4, size=(64, 64))
    pair = replace(PAIRS, pictures=2)
    history = train_spade(generator, tiny_networks()[1], streets, pair)
    assert list(history) == ["adversarial", "matching", "discriminator"]
    with pytest.raises(ValueError, match="z_dim is None, the encoder's 3: expected the same"):
        VariationalGenerator(generator, tiny_networks()[2])
    with pytest.raises(ValueError, match="z_dim is 3, the encoder's None"):
        train_spade(*tiny_networks()[:2], streets, pair)


def test_weights_of_styles_need_networks_that_know_these_styles(streets, pixel_judge):
    generator, judge, encoder = tiny_networks()
    plain = spade.SpadeGenerator(ngf=2, hidden=4, size=(64, 64))  # without a latent
    classifier = StyleClassifier(style_labels(streets)[0], 3)
    for recipe, networks, message in (
        ({"style_weight": 1}, (generator, judge, encoder, None), "weight of 1: .* a classifier"),
        ({"style_weight": 1}, (plain, judge, None, classifier), "weight of 1: .* with a latent"),
        (
            {"style_weight": 1},
            (generator, judge, encoder, StyleClassifier([["A", "B"]], 3)),
            r"has the classes \[\['A', 'B'\]\], but the scenes",
        ),
        (
            {"shown_style_weight": 1},
            (generator, pixel_judge, encoder, classifier),
            "PixelDiscriminator with the classes",
        ),
        ({"other_styles": 0.5}, (generator, judge, encoder, classifier), "other_styles is 0.5"),
    ):
        *pair, encoder_, classifier_ = networks
        with pytest.raises(ValueError, match=message):
            train_spade(*pair, streets, Recipe(**recipe), encoder_, None, classifier_)


@pytest.mark.parametrize(
    "learner, rates, steps",
    [("generator", (4e-3, 0), 12), ("discriminator", (0, 4e-3), 12), ("classifier", (1e-2, 0), 20)],
)
def test_each_network_learns_its_own_side(streets, learner, rates, steps):
    """Photos become more alike, or are told apart, or tell their city and time of day."""
    generator, discriminator, encoder = tiny_networks()
    network = VariationalGenerator(generator, encoder)
    classes, labels = style_labels(streets)
    classifier = StyleClassifier(classes, z_dim=3) if learner == "classifier" else None
    of_network = [*network.parameters(), *(classifier.parameters() if classifier else ())]
    step = partial(
        adversarial_step,
        network=network,
        discriminator=discriminator,
        optimizers=[
            torch.optim.Adam(parameters, rate, betas=(0.0, 0.9))
            for parameters, rate in zip((of_network, discriminator.parameters()), rates)
        ],
        accelerator=make_accelerator(),
        recipe=Recipe(style_weight=20),
        classifier=classifier,
    )
    batch = training_batch(streets, 0, 4, 0, 3, labels=labels)
    losses = [step(*(batch if classifier else batch[:3])) for _ in range(steps)]
    first, last = losses[0], losses[-1]
    if learner == "generator":
        assert last["matching"] < 0.75 * first["matching"]
    elif learner == "classifier":
        assert last["style"] < 0.5 * first["style"]
    else:
        assert last["discriminator"] < 0.8 * first["discriminator"]
        # The generator's loss is the mean score of its photos, negated: they are scored lower.
        assert last["adversarial"] > first["adversarial"] + 0.2


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_the_rates_fall_to_zero_over_the_second_half(streets, monkeypatch, schedule):
    rates = []

    def record(*batch, optimizers, **given):
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
        return {"adversarial": torch.zeros(())}

    monkeypatch.setattr(training, "adversarial_step", record)
    train(tiny_networks(), streets, 4, Recipe(batch_size=1, schedule=schedule))
    last = {"linear": 0.5, "constant": 1}[schedule]
    assert [x for x, _ in rates] == pytest.approx([1e-4, 1e-4, 1e-4, last * 1e-4])
    assert [x for _, x in rates] == pytest.approx([4e-4, 4e-4, 4e-4, last * 4e-4])
    with pytest.raises(ValueError, match="schedule is 'cosine': expected one of linear, constant"):
        Recipe(schedule="cosine")


def test_the_networks_end_as_the_running_mean(streets, tmp_path):
    networks = tiny_networks()
    train(networks, streets, 12, Recipe(batch_size=2, learning_rate=1e-2), folder=tmp_path)
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    bias = "conv_img.bias"
    mean, current = last["averaged"], last["network"]
    assert torch.equal(networks[0].state_dict()[bias], mean[f"module.generator.{bias}"])
    assert not torch.equal(networks[0].state_dict()[bias], current[f"generator.{bias}"])
    # A mean weight has a singular value of its own, and the network divides by that one.
    layer = networks[0].head_0.conv_0
    largest = torch.linalg.matrix_norm(layer.normalized_weight().flatten(1), 2)
    assert largest.item() == pytest.approx(1, abs=0.02)


def test_the_running_mean_by_hand():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1, bias=False), torch.nn.BatchNorm2d(1))
    averaged = RunningMean(network, keep=0.3)
    values = [1.0, 2.0, 4.0]
    for value in values:
        torch.nn.init.constant_(network[0].weight, value)
        network[1].num_batches_tracked += 1
        averaged.update_parameters(network)
    # The first counts as it is; then 2/11 of the old one is kept, then 3/12.
    second = 2 / 11 * 1 + 9 / 11 * 2
    expected = 3 / 12 * second + 9 / 12 * 4
    assert averaged.module[0].weight.item() == pytest.approx(expected)
    assert averaged.module[1].num_batches_tracked.item() == 3
    assert with_fresh_singular_vectors(averaged)[0].weight.item() == pytest.approx(expected)


def test_interrupted_and_resumed_equals_uninterrupted(streets, tmp_path, monkeypatch, capsys):
    recipe = Recipe(batch_size=2, style_weight=1, head_start=8)
    classes, _ = style_labels(streets)

    def trained(networks, recipe=recipe, folder=tmp_path / "run", save_every=2, **settings):
        recipe, settings["folder"] = replace(recipe, save_every=save_every), folder
        classifier = StyleClassifier(classes, z_dim=3)
        settings |= {"classifier": classifier, "precision": "bf16"}
        return train(networks, streets, 8, recipe, **settings)

    whole = tiny_networks()
    expected = trained(whole, folder=None)
    assert capsys.readouterr().out == ""

    def interrupted(scenes, step, *arguments):
        if step == 3:
            raise KeyboardInterrupt
        return training_batch(scenes, step, *arguments)

    monkeypatch.setattr(training, "training_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(tiny_networks(), save_every=4)
    monkeypatch.undo()
    assert capsys.readouterr().out.startswith("4 pictures, ")  # so the third step was lost

    resumed = tiny_networks(seed=1)  # their own weights do not matter
    history = trained(resumed, preview=streets[:2])
    assert history == expected and len(history["matching"]) == 4
    assert equal(state_of(resumed), state_of(whole))
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["last.pt", "preview_000006.jpg", "preview_000008.jpg"]
    with pytest.raises(ValueError, match=r"last\.pt is the checkpoint of another .*, with kl"):
        trained(tiny_networks(), replace(recipe, kl_weight=1))
    network = SegmentationNet("resnet18")
    for perceptual, message in (
        (PerceptualLoss.of_segmentation(network, texture=5.0), "texture_weight 0; .* 5.0"),
        (PerceptualLoss.of_segmentation(network), "with without_perceptual True; .* False"),
    ):
        with pytest.raises(ValueError, match=message):
            trained(tiny_networks(), perceptual=perceptual)


def test_a_loss_that_is_no_number(streets, tmp_path, monkeypatch):
    def diverging(*arguments):
        calls.append(1)
        return feature_matching(*arguments) * (math.nan if len(calls) == 4 else 1)

    calls = []
    monkeypatch.setattr(discriminator_module, "feature_matching", diverging)
    message = r"The matching loss is nan in step 4: .*last\.pt holds the last good checkpoint"
    with pytest.raises(FloatingPointError, match=message):
        train(tiny_networks(), streets, 8, replace(PAIRS, save_every=4), folder=tmp_path)
    kept = torch.load(tmp_path / "last.pt", weights_only=True)
    assert len(kept["record"]["matching"]) == 2
    assert all(x.isfinite().all() for x in kept["network"].values())


def test_starting_from_files_of_weights(streets, tmp_path):
    generator, discriminator, encoder = networks = tiny_networks()
    train(networks, streets, 4, Recipe(batch_size=2, learning_rate=1e-2))
    paths = [tmp_path / "generator.safetensors", tmp_path / "encoder.safetensors"]
    spade.save_generator(generator, paths[0])
    spade.save_encoder(encoder, paths[1])
    network = VariationalGenerator(*tiny_networks(seed=1)[::2])
    planes, photo, noise = training_batch(streets, 0, 2, 0, 3)
    expected = VariationalGenerator(generator, encoder).eval()(planes, photo, noise)

    def distance():
        pairs = zip(network.eval()(planes, photo, noise), expected, strict=True)
        return max(((one - other).abs().mean() / other.std()).item() for one, other in pairs)

    assert distance() > 0.5
    judge = copy.deepcopy(discriminator.state_dict())
    start_from(paths, network, discriminator)
    assert equal(judge, discriminator.state_dict())
    assert distance() < 0.05
    with pytest.raises(ValueError, match="1 files to start from: expected a generator and its enc"):
        start_from(paths[:1], network, discriminator)
    other = VariationalGenerator(spade.SpadeGenerator(3, "more", 3, (64, 64), 4), encoder)
    with pytest.raises(ValueError, match="generator.safetensors does not fit the networks to tra"):
        start_from(paths, other, discriminator)
    # Weights that the file lacks begin at zero: the picture is the one without them.
    settings = generator.settings | {"styled_layers": True, "grain": True}
    styled = VariationalGenerator(spade.SpadeGenerator(**settings), tiny_networks()[2])
    start_from(paths, styled, discriminator)
    named = dict(styled.named_parameters())
    added = [weight for key, weight in named.items() if "mlp_style" in key or ".mix." in key]
    assert added and not any(weight.any() for weight in added)
    assert named["generator.grains.up_3.planes"].std() > 0.9, "something to mix in later"


def test_a_generator_of_another_size_gets_noise_planes_of_its_own():
    small, large = (
        spade.SpadeGenerator(3, upsampling, 3, size, 4, grain=True)
        for upsampling, size in (("normal", (128, 64)), ("more", (256, 128)))
    )
    own = {key: x.clone() for key, x in large.state_dict().items()}
    take_over(large, small.state_dict(), "small")
    given = small.state_dict()
    anew = [key for key in own if own[key].shape != given[key].shape]
    assert anew and all(key.endswith("planes") for key in anew)
    for key, weight in large.state_dict().items():
        assert torch.equal(weight, (own if key in anew else given)[key]), key


def test_starting_from_a_run_takes_its_classifier_over(streets, tmp_path):
    classes, _ = style_labels(streets)
    classifier = StyleClassifier(classes, z_dim=3)
    recipe = Recipe(batch_size=2, style_weight=1, head_start=8)
    train(tiny_networks(), streets, 4, recipe, classifier=classifier, folder=tmp_path)
    generator, discriminator, encoder = tiny_networks(seed=1)
    begun = StyleClassifier(classes, z_dim=3)
    network = VariationalGenerator(generator, encoder)
    start_from([tmp_path / "last.pt"], network, discriminator, begun)
    assert classifier.score.weight.any()
    assert torch.equal(begun.score.weight, classifier.score.weight)
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    assert equal(saved["network"], network.state_dict())
    # Generator and encoder of files go before the run's, which gives the discriminator.
    names = ("last.pt", "generator.safetensors", "encoder.safetensors")
    paths = [tmp_path / name for name in names]
    other = tiny_networks(seed=2)
    spade.save_generator(other[0], paths[1])
    spade.save_encoder(other[2], paths[2])
    start_from(paths, network, other[1])
    assert equal(saved["discriminator"], other[1].state_dict())
    assert torch.equal(network.generator.conv_img.bias, other[0].conv_img.bias)
    assert torch.equal(network.encoder.fc_mu.bias, other[2].fc_mu.bias)
    # A run without a classifier leaves the new one as it is.
    train(tiny_networks(), streets, 4, PAIRS, folder=tmp_path / "without")
    start_from([tmp_path / "without" / "last.pt"], network, discriminator, begun)
    assert torch.equal(begun.score.weight, classifier.score.weight)


# ------------------------------------------------------------------------------ styles


class Mean(torch.nn.Module):
    """An encoder whose latent is the mean colour: so that means of it are easy to tell."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image_pm1):
        return image_pm1.mean((2, 3)), None


def told(scenes, places):
    """The same scenes, in other places and at other times."""
    return [
        replace(scene, city=city, time_of_day=time)
        for scene, (city, time) in zip(scenes, places, strict=True)
    ]


def test_the_labels_are_cities_and_times_of_day(streets):
    places = [("B", "noon"), ("A", "dusk"), ("B", "noon")] * 2
    classes, labels = style_labels(told(streets, places))
    assert classes == [["A", "B"], ["dusk", "noon"]]
    assert labels.tolist() == [[1, 1], [0, 0], [1, 1]] * 2
    # In one city only, there is only the time of day to ask for.
    classes, labels = style_labels(told(streets, [("A", time) for _, time in places]))
    assert classes == [["dusk", "noon"]] and labels.tolist() == [[1], [0], [1]] * 2
    with pytest.raises(ValueError, match="same city and the same time of day: .*weight of 0"):
        style_labels(told(streets, [("A", "noon")] * 6))


def test_styles_are_mean_latents(streets):
    places = [("A", "noon"), ("A", "dusk"), ("B", "noon"), ("B", "dusk"), *[("A", "noon")] * 2]
    styles = named_styles(Mean(), told(streets, places), batch_size=4)
    assert list(styles) == ["A", "B", "dusk", "noon", "A, dusk", "A, noon", "B, dusk", "B, noon"]
    colors = torch.stack([u8_to_pm1(scene.image_u8).mean((1, 2)) for scene in streets])
    torch.testing.assert_close(styles["A"], colors[[0, 1, 4, 5]].mean(0))
    torch.testing.assert_close(styles["noon"], colors[[0, 2, 4, 5]].mean(0))
    torch.testing.assert_close(styles["A, noon"], colors[[0, 4, 5]].mean(0))
    one_city = told(streets, [("A", "noon"), ("A", "dusk")] * 3)
    assert list(named_styles(Mean(), one_city)) == ["A", "dusk", "noon"]
    # B was never seen at dusk: its name stands for the only time that it has.
    places = [("A", "noon"), ("A", "dusk"), ("B", "noon")] * 2
    styles = named_styles(Mean(), told(streets, places))
    assert list(styles) == ["A, dusk", "A, noon", "B"]
    torch.testing.assert_close(styles["B"], colors[[2, 5]].mean(0))


def test_styles_history_and_encoder_come_back_from_their_files(tmp_path):
    generator, _, encoder = tiny_networks()
    generator.styles = {"Sonnental, dusk": torch.tensor([1.0, -2.0, 0.25])}
    generator.history = {"matching": [3.0, 2.5]}
    spade.save_generator(generator, tmp_path / "generator.safetensors", compact=True)
    read = spade.load_generator(tmp_path / "generator.safetensors")
    assert read.history == generator.history
    assert read.style("Sonnental, dusk").tolist() == [[1.0, -2.0, 0.25]]
    assert read.style("mean") is None
    with pytest.raises(ValueError, match="no style 'dawn'; its styles: Sonnental, dusk, mean"):
        read.style("dawn")
    spade.save_encoder(encoder, tmp_path / "encoder.safetensors")
    again = spade.load_encoder(tmp_path / "encoder.safetensors")
    photo = photos()
    for one, other in zip(encoder.eval()(photo), again(photo), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match="generator.safetensors holds no style encoder: expected"):
        spade.load_encoder(tmp_path / "generator.safetensors")
    with pytest.raises(ValueError, match="encoder.safetensors was not written by spade.save_gen"):
        spade.load_generator(tmp_path / "encoder.safetensors")
    for network, save, load in (
        (generator, spade.save_generator, spade.load_generator),
        (encoder, spade.save_encoder, spade.load_encoder),
    ):
        network.settings["of_tomorrow"] = True
        save(network, tmp_path / "newer.safetensors")
        with pytest.raises(ValueError, match="newer.safetensors .*of_tomorrow.*"):
            load(tmp_path / "newer.safetensors")


def test_one_style_for_several_maps(streets):
    generator = tiny_networks()[0].eval()
    xavier_start(generator, gain=1)
    label_ids = streets.batch(range(2))[1]
    z = torch.randn(1, 3, generator=torch.Generator().manual_seed(0))
    both = generator.synthesize(label_ids, z=z)
    assert torch.equal(both, generator.synthesize(label_ids, z=z.expand(2, 3)))
    assert not torch.equal(both, generator.synthesize(label_ids))
    planes = spade.semantics(label_ids)
    torch.testing.assert_close(generator(planes, z), generator(planes, z.expand(2, 3)))


def test_preview(streets, tmp_path):
    generator, _, encoder = tiny_networks()
    save_preview(generator, streets[:3], tmp_path / "preview.png", encoder)
    picture = read_image(tmp_path / "preview.png")
    assert picture.shape == (3, 3 * 64, 4 * 64)
    save_preview(generator, streets[:3], tmp_path / "without.png")
    assert read_image(tmp_path / "without.png").shape == (3, 3 * 64, 3 * 64)
    assert torch.equal(picture[:, 64:128, :64], streets[1].image_u8)
