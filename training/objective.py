"""The loss of a run, as its settings say, and the maps that it is computed with."""

from dataclasses import replace

from dataloader import Batch
from losses import Objective
from training.batch_maps import MADE_OF_BATCHES, MAPS, maps_of_batch
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
    """Which map the losses of a run need, and whether the slices bring it or each batch makes its own."""

    def __init__(self, settings: Settings, objective: Objective, num_classes: int):
        self.num_classes = num_classes
        name = objective.map_name(maps=settings.maps, region_wise=settings.region_wise_map)
        of_batch = settings.distance_map == MADE_OF_BATCHES and name in MAPS
        self.loaded, self.made = (None, name) if of_batch else (name, None)

    def add_to(self, batch: Batch) -> Batch:
        """The batch with the maps that the losses need."""
        if self.made is None:
            return batch
        return replace(batch, maps=maps_of_batch(batch.label, self.num_classes, self.made))
