"""Phantoms in folders that tests share: small ones that have every quirk."""
import phantom

SMALL = {
    "acdc": ["--cases", "5", "--in-plane", "96"],
    "busi": ["--cases", "20", "--in-plane", "96"],
    "brats": ["--cases", "9", "--in-plane", "80"],
    "kits": ["--cases", "5", "--in-plane", "64"],
    "nnunet": ["--cases", "6", "--in-plane", "64"],
}


def make(layout, out, *flags):
    """The folder `out` with a phantom of a layout in it; `flags` come after those of SMALL."""
    assert phantom.main([layout, "--out", str(out), *SMALL[layout], *flags]) == 0
    return out
