"""What a command does before anything else, with nothing but the standard library, so that it is done at once."""

import os

from environment.stops import leave_at_once
from environment.streams import repair_streams


def begin(name: str) -> None:
    """Get a command ready while the modules that it needs are still to be imported; ``name`` is its ``__name__``.

    Nothing where the command is imported itself.
    """
    if name == "__main__":
        repair_streams()
        leave_at_once()
        # NumPy and Matplotlib date with it what has no date here, and stumble over one that is no number.
        os.environ.pop("SOURCE_DATE_EPOCH", None)
