"""The optimiser of a run."""

import torch

from training.settings import Settings


def build_optimiser(settings: Settings, network: torch.nn.Module) -> torch.optim.Optimizer:
    """Adam, or SGD with Nesterov momentum 0.99 (nnU-Net's); fused on CUDA."""
    options = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    options["fused"] = next(network.parameters()).is_cuda
    if settings.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), momentum=0.99, nesterov=True, **options)
    return torch.optim.Adam(network.parameters(), betas=settings.betas, **options)
