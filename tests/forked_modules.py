"""What the server of ``forked`` has before it forks: all that training and slicing import."""

import os
from pathlib import Path

import torch

import slicing.slicer  # noqa: F401
import training.session  # noqa: F401
from environment import devices

# As in conftest.py.
devices.CPUINFO = Path(os.devnull)

# Nothing is computed here: a thread pool would not survive a fork. The optimisers' module is loaded with the first.
torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
