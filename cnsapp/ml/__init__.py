"""Backbones, features, heads, saliency and model files: torch lives here; no database."""

import os

# Read when torch is loaded, so it must be set before. Threads that wait for their next piece then
# sleep instead of spinning: with a browser and a web process on the same cores the features came
# 7 times as fast (32 images: 2 s against 14 s, two threads at nice 10 on two busy cores).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
