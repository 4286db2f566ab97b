"""How many random cases: a few hundred by default, more with ``HYPOTHESIS_PROFILE=thorough``."""

import os

import torch
from hypothesis import HealthCheck, settings

COMMON = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("default", max_examples=200, derandomize=True, **COMMON)
settings.register_profile("thorough", max_examples=2500, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

torch.set_num_threads(1)
