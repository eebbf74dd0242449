"""Convert a label map into the planes that the generator reads."""

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.engine.graphs import constant
from utils.labels import CATEGORIES, NUM_LABELS, check_label_ids, instance_edges

# The published Cityscapes weights fix the number of planes: one for each of the ids 0..33, one that
# is unused, and the edge plane.
LABEL_PLANES = 35
SEMANTIC_CHANNELS = LABEL_PLANES + 1
# (34, 7): 1 where a label belongs to a category; the category void is left out
_MEMBERS = tuple(map(tuple, F.one_hot(CATEGORIES)[:, 1:].tolist()))


def label_codes(
    label_ids: Tensor, instance_ids: Tensor | None = None, edges: bool = True, checked: bool = False
) -> Tensor:
    """Encode the semantic planes as one number per pixel: the label id, plus 35 on an edge.

    Args, Raises: see semantics.

    Returns:
        (B, H, W) int64 in 0..69 on the device of label_ids; B is 1 for a single map.
    """
    if not checked:
        check_label_ids(label_ids)
    if instance_ids is None:
        instance_ids = label_ids
    elif instance_ids.shape != label_ids.shape:
        raise ValueError(
            f"instance_ids has shape {tuple(instance_ids.shape)}, label_ids has "
            f"{tuple(label_ids.shape)}: resize both to one size with nearest-neighbour."
        )
    elif instance_ids.is_floating_point():
        raise ValueError(
            f"instance_ids has dtype {instance_ids.dtype}, expected integers: resize instance maps "
            "with nearest-neighbour and keep them int32."
        )
    height, width = label_ids.shape[-2:]
    classes = label_ids.reshape(-1, height, width).long()
    instances = instance_ids.to(classes.device).reshape(-1, height, width).long()
    return classes + LABEL_PLANES * instance_edges(instances) if edges else classes


def codes_to_planes(codes: Tensor) -> Tensor:
    """Convert codes (B, H, W) of label_codes() into planes (B, 36, H, W), see semantics()."""
    batch, height, width = codes.shape
    planes = torch.zeros(batch, SEMANTIC_CHANNELS, height, width, device=codes.device)
    planes.scatter_(1, (codes % LABEL_PLANES)[:, None], 1.0)
    planes[:, LABEL_PLANES] = codes >= LABEL_PLANES
    return planes


def semantics(
    label_ids: Tensor, instance_ids: Tensor | None = None, edges: bool = True, checked: bool = False
) -> Tensor:
    """Convert a label map into 35 one-hot planes and one plane of instance edges.

    Args:
        label_ids: (H, W) or (B, H, W) integers, Cityscapes label ids 0..33.  Resize the map
            (nearest neighbour) first, because edges are one pixel wide at the size of this map.
        instance_ids: the same shape, any integers that differ from object to object; None draws
            only the edges between classes, for maps that come without instances.
        edges: False leaves the edge plane empty, to see its effect; the published weights were
            trained with edges.
        checked: skip validation, for maps that Scenes or a network has already made valid; on a
            GPU, validating forces a synchronisation.

    Returns:
        (B, 36, H, W) float32 of 0 and 1 on the device of label_ids; B is 1 for a single map.

    Raises:
        ValueError: the map holds something other than label ids (train ids, colours, 255 ...), or
            the instance map has another shape or dtype.

    Source: Park et al., CVPR 2019, arXiv:1903.07291; the edge plane is pix2pixHD's
    (Wang et al., CVPR 2018, arXiv:1711.11585, section 3.3).
    """
    return codes_to_planes(label_codes(label_ids, instance_ids, edges, checked))


def categories(planes: Tensor) -> Tensor:
    """Convert semantic planes into one mask for each Cityscapes category except void.

    Args:
        planes: (B, 36, H, W), see semantics().

    Returns:
        (B, 7, H, W) of 0 and 1: flat, construction, object, nature, sky, human, vehicle.
    """
    members = constant(_MEMBERS, planes.device).to(planes.dtype)
    return torch.einsum("blhw,lc->bchw", planes[:, :NUM_LABELS], members)
