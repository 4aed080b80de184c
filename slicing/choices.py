"""The names that flags of preprocess.py choose from, where what they name loads torch: --help does not wait for it."""

FITS = ("resize", "centre")
LABEL_RESIZES = ("nearest", "linear", "bicubic")
CONVENTIONS = ("paper", "authors")      # of signed distances
