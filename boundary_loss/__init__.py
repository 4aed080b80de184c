"""Boundary losses, exact signed distance maps, schedules and metrics for highly unbalanced segmentation.

    from boundary_loss import Boundary, distance_maps

Sources: Kervadec et al., Boundary loss for highly unbalanced segmentation (MIDL 2019, Medical Image Analysis 2021);
Valverde and Tohka, Region-wise loss for biomedical image segmentation (Pattern Recognition 2022).
"""

from boundary_loss.distance import distance_maps, edt, region_wise_map, signed_distance, unsigned_distance
from boundary_loss.lesions import lesion_scores
from boundary_loss.losses import (
    ActiveContour,
    Batch,
    Boundary,
    CrossEntropy,
    Dice,
    DiceCrossEntropy,
    DiceFocal,
    DistanceWeightedCrossEntropy,
    ExponentialLogarithmic,
    Focal,
    FocalTversky,
    GeneralizedDice,
    Hausdorff,
    Loss,
    RegionWise,
    RegionWiseCrossEntropy,
    RegionWiseSquared,
    Tversky,
    WeightedCrossEntropy,
)
from boundary_loss.metrics import assd, dsc, hd, hd95, hd95_max, lesion_detection, surface_dice, volume_difference
from boundary_loss.schedules import Constant, Increase, Rebalance, Schedule

__version__ = "0.2.0"

__all__ = [
    "ActiveContour",
    "Batch",
    "Boundary",
    "Constant",
    "CrossEntropy",
    "Dice",
    "DiceCrossEntropy",
    "DiceFocal",
    "DistanceWeightedCrossEntropy",
    "ExponentialLogarithmic",
    "Focal",
    "FocalTversky",
    "GeneralizedDice",
    "Hausdorff",
    "Increase",
    "Loss",
    "Rebalance",
    "RegionWise",
    "RegionWiseCrossEntropy",
    "RegionWiseSquared",
    "Schedule",
    "Tversky",
    "WeightedCrossEntropy",
    "assd",
    "distance_maps",
    "dsc",
    "edt",
    "hd",
    "hd95",
    "hd95_max",
    "lesion_detection",
    "lesion_scores",
    "region_wise_map",
    "signed_distance",
    "surface_dice",
    "unsigned_distance",
    "volume_difference",
]
