"""Trainers of nnU-Net v2 with the losses of the library: `nnUNetv2_train ... -tr nnUNetTrainerBoundary`.

nnU-Net finds them after `boundary-loss-nnunet install`. Maps are made in the loss, of the augmented label, on its
device, at each scale of deep supervision in mm of that scale, in 2D and 3D configurations; a patch without a class has
the zero map of that class in the boundary loss. An ignore label counts in no loss; region-based training is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from boundary_loss.contour import Boundary, RegionWise, RegionWiseCrossEntropy
from boundary_loss.cross_entropy import Focal
from boundary_loss.integrations.label_losses import DeepSupervision, LabelLoss, scale_weights
from boundary_loss.integrations.nnunet_volume import DepthTransform, DepthVolumes
from boundary_loss.regional import Dice, GeneralizedDice
from boundary_loss.schedules import Gradual, Rebalance


class LabelLossTrainer(nnUNetTrainer):
    """nnU-Net's trainer with a `LabelLoss`, which a subclass makes in `make_loss`.

    Raises:
        ValueError: for a data set of regions, and for an ignore label that the loss cannot leave out.
    """

    def __init__(
        self, plans: dict, configuration: str, fold: int, dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's own signature, which it reads)
    ) -> None:
        check_labels(type(self).__name__, dataset_json)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.make_loss()    # what it refuses is refused before anything is loaded

    def make_loss(self) -> LabelLoss:
        """The loss of one scale."""
        raise NotImplementedError(f"{type(self).__name__} has no make_loss()")

    @property
    def all_classes(self) -> tuple[int, ...]:
        return tuple(range(self.label_manager.num_segmentation_heads))

    @property
    def ignore_index(self) -> int | None:
        return self.label_manager.ignore_label

    def _build_loss(self) -> DeepSupervision:
        """nnU-Net's weights of the scales, and the spacing of the configuration."""
        spacing, patch = self.configuration_manager.spacing, self.configuration_manager.patch_size
        if len(spacing) < len(patch):
            found = f"{len(spacing)} in {self.plans_manager.plans_name} {self.configuration_name}"
            raise ValueError(f"plans: expected a spacing for each of the {len(patch)} axes of a patch, found {found}")
        scales = len(self._get_deep_supervision_scales()) if self.enable_deep_supervision else 1
        # DDP wants a gradient for every output, if a tiny one, unless the network is compiled: as in nnU-Net.
        last = 1e-6 if self.is_ddp and not self._do_i_compile() else 0.0
        return DeepSupervision(self.make_loss(), scale_weights(scales, last=last), spacing[-len(patch):])

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.loss.loss.set_epoch(self.current_epoch)


class RegionWiseTrainer(LabelLossTrainer):
    """The training of Valverde and Tohka 2022, section 4.1: Adam from 1e-4, polynomial decay, 300 epochs (ACDC).

    BraTS and KiTS had 100.
    """

    def __init__(
        self, plans: dict, configuration: str, fold: int, dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr = 1e-4
        self.num_epochs = 300

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        optimiser = torch.optim.Adam(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimiser, PolyLRScheduler(optimiser, self.initial_lr, self.num_epochs)


class nnUNetTrainerBoundary(LabelLossTrainer):
    """Generalised Dice and boundary loss (Kervadec et al. 2021), rebalanced over nnU-Net's own epochs.

    Optimiser, learning rate and epochs are nnU-Net's. alpha goes from 1 / epochs to 0.99, by 1 / epochs.
    """

    def make_loss(self) -> LabelLoss:
        step = 1 / self.num_epochs
        region, contour = GeneralizedDice(ignore_index=self.ignore_index), Boundary(ignore_index=self.ignore_index)
        return LabelLoss(region, contour, Rebalance(start=step, step=step))


class nnUNetTrainerDiceBoundary(RegionWiseTrainer):
    """Dice and boundary loss, all classes, weights (a, 1 - a), a = max(0.01, 1 - epoch / 100) (section 4.2)."""

    def make_loss(self) -> LabelLoss:
        contour = Boundary(self.all_classes, ignore_index=self.ignore_index)
        return LabelLoss(Dice(ignore_index=self.ignore_index), contour, Gradual())


class nnUNetTrainerDiceBoundary_authors(RegionWiseTrainer):
    """As their code: the map of an absent class is another's, an absent class costs 1 in the Dice loss."""

    def make_loss(self) -> LabelLoss:
        region = Dice(convention="authors", ignore_index=self.ignore_index)
        contour = Boundary(self.all_classes, ignore_index=self.ignore_index)
        return LabelLoss(region, contour, Gradual(), maps="authors-region-wise")


class nnUNetTrainerRRW(RegionWiseTrainer):
    """Region-wise loss with rectified maps (Eq. 1 and 4), of each patch in mm.

    The text makes them of whole volumes: `nnUNetTrainerRRWVolume`.
    """

    maps = "paper"

    def make_loss(self) -> LabelLoss:
        return LabelLoss(None, RegionWise(ignore_index=self.ignore_index), maps=self.maps)


class nnUNetTrainerRRW_authors(nnUNetTrainerRRW):
    """As their code: maps in pixels, a patch of background alone has the distances that SciPy gives it."""

    maps = "authors-region-wise"


class nnUNetTrainerRRWVolume(nnUNetTrainerRRW):
    """Rectified maps of whole volumes in mm, as the text has them, that move with the augmented patch.

    Nearest voxel at the coarser scales. The loss that nnU-Net logs of validation patches has maps of the patch.
    """

    maps = "volume"

    def get_tr_and_val_datasets(self) -> tuple:
        train, val = super().get_tr_and_val_datasets()
        first_axis = self.plans_manager.transpose_forward[0]
        spacing = self.configuration_manager.spacing
        return DepthVolumes(train, len(self.all_classes), spacing, first_axis, self.ignore_index), val

    @staticmethod
    def get_training_transforms(*args: Any, **options: Any) -> DepthTransform:
        return DepthTransform(nnUNetTrainer.get_training_transforms(*args, **options))


class nnUNetTrainerRRWCrossEntropy(RegionWiseTrainer):
    """Cross-entropy weighted by the rectified map of each patch (section 3.2); not in the authors' code."""

    def make_loss(self) -> LabelLoss:
        return LabelLoss(None, RegionWiseCrossEntropy(ignore_index=self.ignore_index))


class nnUNetTrainerDice(RegionWiseTrainer):
    """Dice loss, the background too."""

    def make_loss(self) -> LabelLoss:
        return LabelLoss(Dice(ignore_index=self.ignore_index), None)


class nnUNetTrainerDice_authors(RegionWiseTrainer):
    """As their code: an absent class costs 1, whatever the prediction."""

    def make_loss(self) -> LabelLoss:
        return LabelLoss(Dice(convention="authors", ignore_index=self.ignore_index), None)


class nnUNetTrainerFocal(RegionWiseTrainer):
    """Focal loss, gamma 2."""

    def make_loss(self) -> LabelLoss:
        return LabelLoss(Focal(ignore_index=self.ignore_index), None)


class nnUNetTrainerFocal_authors(RegionWiseTrainer):
    """As their code: the logarithm of softmax + 1e-15."""

    def make_loss(self) -> LabelLoss:
        return LabelLoss(Focal(convention="authors-region-wise", ignore_index=self.ignore_index), None)


def check_labels(trainer: str, dataset_json: Mapping) -> None:
    """ValueError for a data set of regions, in which a voxel may have several classes."""
    labels = dataset_json.get("labels")
    if not isinstance(labels, Mapping):
        raise ValueError(f"{trainer}: expected labels in dataset.json, found {type(labels).__name__}")
    for name, values in labels.items():
        if isinstance(values, (list, tuple)) and len(values) > 1:
            raise ValueError(
                f"{trainer}: expected labels of which a voxel has one, found the region {name} of {list(values)}; "
                "region-based training is not supported"
            )
