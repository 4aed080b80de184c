"""Which GPU of a machine a process takes: the one that the fewest runs have, told by files that live as they do."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def claimed_gpu(count: int, folder: Path | None = None) -> Iterator[int]:
    """Inside the block one more run has the GPU whose index this is: the first of those with the fewest.

    A claim is a file that its process holds locked, so that it ends with the process, however that ends. Processes that
    start at once choose one after the other. Runs of other programs are not counted.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"boundary-loss-gpus-{os.getuid()}"
    names = visible_names(count)
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        claims = [sum(is_held(claim) for claim in folder.glob(f"gpu-{name}-*")) for name in names]
        chosen = claims.index(min(claims))
        # A name of its own: containers that share the folder have the same process numbers.
        handle, name = tempfile.mkstemp(prefix=f"gpu-{names[chosen]}-", dir=folder)
        path, claim = Path(name), os.fdopen(handle)
        fcntl.flock(claim, fcntl.LOCK_EX)
    with claim:
        try:
            yield chosen
        finally:
            path.unlink(missing_ok=True)


def visible_names(count: int) -> list[str]:
    """The machine's own names of the GPUs that this process sees: CUDA counts from 0 whichever they are."""
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return names[:count] if len(names) >= count else [str(index) for index in range(count)]


def is_held(claim: Path) -> bool:
    """Whether the process that made a claim still lives; the claim of one that does not is removed."""
    try:
        with claim.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            claim.unlink()
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
