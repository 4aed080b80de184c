"""torch.compile, with a fallback to the network as it is."""

import sys

import torch
from torch import Tensor, nn


class Compiled(nn.Module):
    """A network through ``torch.compile``; as it is, after one warning, from the call on that cannot be compiled."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        # Static shapes: a second graph for the last, smaller batch, and full speed for all others in every epoch.
        self.call = torch.compile(network, dynamic=False)
        # The backward pass is compiled with the forward one, where a failure can still be gone around.
        from torch._functorch import config

        if hasattr(config, "force_non_lazy_backward_lowering"):  # older versions do not know it
            config.force_non_lazy_backward_lowering = True

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.call is self.network:
            return self.network(*inputs)
        # Imported by torch.compile's first call in any case, and too slow for a run that does not compile.
        from torch._dynamo.exc import TorchDynamoException

        try:
            return self.call(*inputs)
        except TorchDynamoException as error:
            cause = getattr(error, "inner_exception", None) or error.__cause__ or error
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None
            # Whatever else is wrong with the network itself is raised again without the compiler.
            line = next(iter(str(cause).strip().splitlines()), "")
            print(f"warning: going on without torch.compile: {type(cause).__name__}: {line}", file=sys.stderr)
            self.call = self.network
            return self.network(*inputs)
