"""How many random cases: 200, always the same; ``make random-tests CASES=10000`` draws as many new ones."""

import os

import torch
from hypothesis import HealthCheck, settings

COMMON = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("default", max_examples=200, derandomize=True, **COMMON)
cases = os.environ.get("LAYERLAB_CASES", "")
if cases:
    settings.register_profile("many", max_examples=int(cases), **COMMON)
settings.load_profile("many" if cases else "default")

torch.set_num_threads(1)
