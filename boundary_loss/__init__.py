"""Boundary losses, signed distance maps, schedules and metrics for segmentation; imports nothing of the pipeline.

    from boundary_loss import Boundary, distance_maps

Sources: Kervadec et al., Boundary loss for highly unbalanced segmentation (MIDL 2019, Medical Image Analysis 2021);
Valverde and Tohka, Region-wise loss for biomedical image segmentation (Pattern Recognition 2022).
"""

__version__ = "0.2.0"
