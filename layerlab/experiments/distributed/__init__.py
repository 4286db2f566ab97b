"""Freezing under DistributedDataParallel, run live by two processes on this machine; the engine of lesson 09.

`variants` has the training functions, `launch` starts two processes by torchrun and runs functions in them,
`outcome` says what came of each. Imports nothing: the processes (`worker`) must start before torch is there.
"""
