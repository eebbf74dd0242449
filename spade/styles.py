"""Styles: a classifier that keeps city and time of day in the latent, and latents with names."""

from collections.abc import Sequence
from functools import partial

import torch
from accelerate.state import PartialState
from torch import Tensor, nn

from utils.augmentation import Augmentation
from utils.engine.graphs import graphed, send
from utils.images import u8_to_pm1
from utils.progress import progress
from utils.scenes import Scenes

from .encoder import Encoder, sampled
from .losses import kl_divergence, style_cross_entropy

CLASSIFIER_RATE = 1e-3  # learning rate of the classifier; in the head start also of the encoder


class StyleClassifier(nn.Module):
    """Classifies a photo's city and time of day from its latent, by one linear layer.

    It is trained together with the encoder.  The encoder then has to put city and time of day into
    the latent, each in directions of its own, so the mean latent of a city represents this city.

    Args:
        classes: for each attribute of a photo, the names of its classes; see style_labels().
        z_dim: size of the latent.

    Not part of the published SPADE.
    """

    def __init__(self, classes: Sequence[Sequence[str]], z_dim: int):
        super().__init__()
        self.classes = [list(names) for names in classes]
        self.score = nn.Linear(z_dim, sum(map(len, self.classes)))
        # With weights of zero the encoder gets no gradient until the classifier has learned some.
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, z: Tensor) -> list[Tensor]:
        """z (B, z_dim) -> for each attribute the scores, (B, number of its classes)."""
        return list(self.score(z).split([len(names) for names in self.classes], dim=1))


def style_labels(scenes: Scenes) -> tuple[list[list[str]], Tensor]:
    """List the attributes of the scenes' styles, city and time of day, as classes and labels.

    An attribute that is the same in all scenes is left out.

    Returns:
        classes: for each attribute the names of its classes, sorted.
        labels: (len(scenes), number of attributes) long, each scene's index in these classes.

    Raises ValueError if no attribute is left.
    """
    pairs = [(scene.city, scene.time_of_day) for scene in scenes]
    columns = [column for column in zip(*pairs, strict=True) if len(set(column)) > 1]
    if not columns:
        raise ValueError(
            "All scenes have the same city and the same time of day: there are no styles to "
            "classify; take more scenes, or give styles a weight of 0."
        )
    classes = [sorted(set(column)) for column in columns]
    labels = [
        [names.index(name) for name in column]
        for names, column in zip(classes, columns, strict=True)
    ]
    return classes, torch.tensor(labels).T


def check_styles(
    recipe,
    discriminator: nn.Module,
    encoder: Encoder | None,
    classifier: StyleClassifier | None,
    scenes: Scenes,
) -> Tensor | None:
    """Return the scenes' style_labels(), (N, attributes) long; None without a classifier.

    Raises ValueError if the recipe, a spade.training.Recipe, has a weight for which a network is
    missing, or if the classes of classifier and scenes differ.
    """
    weight = recipe.style_weight or recipe.shown_style_weight
    if weight and (encoder is None or classifier is None):
        raise ValueError(
            f"Style has a weight of {weight}: expected a generator "
            "with a latent, its encoder and a classifier, or a weight of 0."
        )
    if recipe.shown_style_weight and getattr(discriminator, "style", None) is None:
        raise ValueError(
            f"shown_style_weight is {recipe.shown_style_weight}: expected a PixelDiscriminator "
            "with the classes of style_labels(scenes), or a weight of 0."
        )
    if recipe.other_styles and not hasattr(discriminator, "style"):
        raise ValueError(
            f"other_styles is {recipe.other_styles}: expected a PixelDiscriminator, or 0.  The "
            "published discriminator compares each image with its photo, whose style differs."
        )
    if classifier is None:
        return None
    classes, labels = style_labels(scenes)
    if classes != classifier.classes:
        raise ValueError(
            f"The classifier has the classes {classifier.classes}, but the scenes have {classes}: "
            "make the classifier from style_labels(scenes)."
        )
    return labels


def even_chances(scenes: Scenes) -> Tensor:
    """Return how often to draw each scene so that all cities are drawn equally often, (N,)."""
    cities = [scene.city for scene in scenes]
    return torch.tensor([1 / cities.count(city) for city in cities])


def draw(
    count: int,
    batch_size: int,
    z_dim: int | None,
    generator: torch.Generator,
    chances: Tensor | None = None,
) -> tuple[Tensor, bool, Tensor, Tensor]:
    """Draw everything that is random in a batch.

    Args:
        count: number of scenes.
        chances: (count,), how often each scene is drawn relative to the others; None: equally.

    Returns:
        The scenes' indices (B,), whether edges are drawn from instances, a seed for each scene's
        augmentation (B,), and the noise of the latents (B, z_dim).
    """
    if chances is None:
        chosen = torch.randint(count, (batch_size,), generator=generator)
    else:
        chosen = torch.multinomial(chances, batch_size, replacement=True, generator=generator)
    with_instances = bool(torch.rand((), generator=generator) < 0.5)
    seeds = torch.randint(2**62, (batch_size,), generator=generator)
    return chosen, with_instances, seeds, torch.randn(batch_size, z_dim or 0, generator=generator)


def give_head_start(
    encoder: Encoder | None,
    classifier: StyleClassifier | None,
    scenes: Scenes,
    labels: Tensor | None,
    recipe,
) -> None:
    """Train encoder and classifier on styles before the generator starts to learn the latents.

    This takes minutes, while the generator's training takes hours.  Every process does all of it.

    Args:
        classifier: with None, nothing is trained.
        labels: of the scenes, see style_labels().
        recipe: a spade.training.Recipe; its head_start is the number of pictures.
    """
    if classifier is None:
        return
    learning = [*encoder.parameters(), *classifier.parameters()]
    optimizer = torch.optim.Adam(learning, CLASSIFIER_RATE, betas=(0.0, 0.9))
    device, size = learning[0].device, recipe.batch_size
    step = partial(style_step, encoder, classifier, optimizer, recipe)
    step = graphed(step, [optimizer], device)
    augment = Augmentation(scenes.size, flip=0.5)
    generator = torch.Generator().manual_seed(recipe.seed)
    is_hidden = not PartialState().is_main_process
    encoder.train()
    for _ in progress(range(recipe.head_start // size), "encoder", hidden=is_hidden):
        chosen, _, seeds, noise = draw(len(scenes), size, encoder.settings["z_dim"], generator)
        (image_u8,) = augment(scenes.batch(chosen)[0], seeds=seeds)
        step(*(send(x, device) for x in (u8_to_pm1(image_u8), noise, labels[chosen])))
    optimizer.zero_grad()  # frees the GPU memory of the gradients


def style_step(
    encoder: Encoder,
    classifier: StyleClassifier,
    optimizer: torch.optim.Optimizer,
    recipe,
    real_pm1: Tensor,
    noise: Tensor,
    labels: Tensor,
) -> Tensor:
    """Train encoder and classifier for one step -> the loss."""
    mu, logvar = encoder(real_pm1)
    scores = classifier(sampled(mu, logvar, noise))
    loss = recipe.style_weight * style_cross_entropy(scores, labels)
    loss = loss + recipe.kl_weight * kl_divergence(mu, logvar)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def named_styles(encoder: Encoder, scenes: Scenes, batch_size: int = 32) -> dict[str, Tensor]:
    """Compute the mean latents, (z_dim,), of each city, each time of day, and each pair of them.

    Names are "dusk", "Sonnental", and "Sonnental, dusk" for a pair.  A data set with only one city
    or only one time of day has no pairs.  If some cities lack a time of day that others have, only
    these names exist: "Cambridge, day" and "Cambridge, dusk" for a city with several times of day,
    "Karlsruhe" for a city with one.
    """
    device = next(encoder.parameters()).device
    singles: dict[str, list[Tensor]] = {}
    pairs: dict[tuple[str, str], list[Tensor]] = {}
    for indices in progress(torch.arange(len(scenes)).split(batch_size), "styles"):
        part = [scenes[int(index)] for index in indices]
        image_u8 = torch.stack([scene.image_u8 for scene in part]).to(device)
        for scene, mu in zip(part, encoder(u8_to_pm1(image_u8))[0].cpu(), strict=True):
            pair = (scene.city, scene.time_of_day)
            pairs.setdefault(pair, []).append(mu)
            for name in pair:
                singles.setdefault(name, []).append(mu)
    cities, times = (sorted(set(names)) for names in zip(*pairs))
    styles = {name: singles[name] for name in sorted(singles)}
    if len(pairs) < len(cities) * len(times):
        several = [city for city in cities if sum(city == pair[0] for pair in pairs) > 1]
        named = {pair: ", ".join(pair) if pair[0] in several else pair[0] for pair in pairs}
        styles = {named[pair]: pairs[pair] for pair in sorted(pairs)}
    elif len(cities) > 1 and len(times) > 1:  # with one city, "Cambridge, dusk" would be "dusk"
        styles |= {", ".join(pair): pairs[pair] for pair in sorted(pairs)}
    return {name: torch.stack(latents).mean(0) for name, latents in styles.items()}
