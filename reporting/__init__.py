import os

# Before any module here imports Matplotlib: no screen is needed, nor always there, and a user's settings are not read,
# which change no figure but could stop one.
os.environ["MPLBACKEND"] = "Agg"
os.environ["MATPLOTLIBRC"] = os.devnull
