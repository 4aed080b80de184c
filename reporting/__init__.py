import os

# Before any module here imports Matplotlib: no screen is needed, nor always there.
os.environ["MPLBACKEND"] = "Agg"
