"""The names that a run's flags choose from, without what they name: --help and a wrong flag wait for no torch.

The registries have the same names in the same order; tests/test_startup.py holds both to that.
"""

CLASSES = ("own", "all", "foreground")
CONVENTIONS = ("paper", "authors")
# Where the slices are kept; auto is the first of the others that has the room.
RESIDENCES = ("auto", "device", "host", "stream")
# Networks without a --width.
FIXED_CHANNELS = ("resnet34-unet",)
CHOICES = {
    "network": ("unet", "resnet34-unet"),
    "region": (
        "gdl", "dice", "ce", "wce", "unet-ce", "focal", "dice-ce", "dice-focal", "exp-log", "tversky", "focal-tversky",
        "none",
    ),
    "contour": ("boundary", "hausdorff", "region-wise", "rrw-ce", "region-wise-squared", "active-contour", "none"),
    "maps": ("2d", "3d"),
    "region_wise_map": ("rrw", "boundary", "ac", "cao", "hausdorff"),
    "alpha": (
        "constant", "increase", "rebalance", "midl", "busi-linear", "busi-rebalance", "equal", "gradual", "authors",
        "busi-linear-authors", "busi-rebalance-authors",
    ),
    "region_classes": CLASSES,
    "contour_classes": CLASSES,
    "optimiser": ("adam", "sgd"),
    "lr_rule": ("plateau", "poly", "constant", "authors"),
    "augment": ("none", "flips", "affine"),
    "order": ("shuffled", "fixed"),
    "selection": ("volume", "slice", "pooled", "last"),
    "distance_map": (*CONVENTIONS, "authors-region-wise"),
    "hausdorff": CONVENTIONS,
    "dice": CONVENTIONS,
    "cross_entropy": (*CONVENTIONS, "authors-region-wise"),
    "gdl_absent": ("largest", "authors"),
    "precision": ("auto", "bf16", "fp32"),
}
