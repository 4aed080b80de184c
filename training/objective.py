"""The loss of a run, as its settings say, and the maps that it is computed with."""

from dataclasses import replace

from torch import Tensor

from boundary_loss.distance import distance_maps, region_wise_map
from dataloader import Batch
from losses import Objective
from training.authors_maps import MADE_OF_BATCHES, MAPS, maps_of_batch
from training.settings import Settings


def build_objective(settings: Settings, num_classes: int, *, ignore_index: int | None = None) -> Objective:
    """The losses of a run with their options and constant weights; voxels labelled ``ignore_index`` count in none."""
    classes = {"own": None, "all": tuple(range(num_classes)), "foreground": tuple(range(1, num_classes))}
    # The unet-ce of the boundary loss has no convention of the region-wise paper.
    unet_ce = "authors" if settings.cross_entropy == "authors" else "paper"
    options: dict[str, dict] = {
        "gdl": {"absent": settings.gdl_absent},
        "hausdorff": {"convention": settings.hausdorff},
        "dice": {"convention": settings.dice},
        "ce": {"convention": settings.cross_entropy},
        "focal": {"convention": settings.cross_entropy},
        "unet-ce": {"convention": unet_ce},
    }
    for loss, chosen in ((settings.region, settings.region_classes), (settings.contour, settings.contour_classes)):
        if classes[chosen] is not None:
            options.setdefault(loss, {})["classes"] = classes[chosen]
    return Objective(
        settings.region, settings.contour, options, contour_alone=settings.contour_alone_weight,
        region_factor=settings.cross_entropy_factor if settings.region == "ce" else 1.0, ignore_index=ignore_index,
    )


class BatchMaps:
    """Which map the losses of a run need, and whether the slices bring it or each batch makes its own.

    A batch that comes without the maps of its slices, because augmentation changed the labels, gets new ones.
    """

    def __init__(self, settings: Settings, objective: Objective, num_classes: int):
        self.num_classes, self.ignore_index = num_classes, objective.ignore_index
        self.convention = settings.distance_map
        self.name = objective.map_name(maps=settings.maps, region_wise=settings.region_wise_map)
        of_batch = self.convention == MADE_OF_BATCHES and self.name in MAPS
        self.loaded = None if of_batch else self.name

    def add_to(self, batch: Batch) -> Batch:
        """The batch with the maps that the losses need."""
        if self.name is None or batch.maps is not None:
            return batch
        return replace(batch, maps=self.maps_of(batch))

    def maps_of(self, batch: Batch) -> Tensor:
        """The maps (B, K, H, W) of the batch's labels within their slices, on their device."""
        if self.loaded is None:
            return maps_of_batch(batch.label, self.num_classes, self.name)
        if self.name == "phi2d":
            return distance_maps(
                batch.label, self.num_classes, batch.spacing, self.convention, ignore_index=self.ignore_index
            )
        return region_wise_map(batch.label, self.num_classes, self.name, batch.spacing, ignore_index=self.ignore_index)
