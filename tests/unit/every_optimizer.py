"""Every dense optimizer of torch, in the ways that differ: from parameters (or groups) to the optimizer."""

import torch

OPTIM = torch.optim

OPTIMIZERS = {
    "SGD": lambda p: OPTIM.SGD(p, 0.1),
    "SGD momentum": lambda p: OPTIM.SGD(p, 0.1, momentum=0.9),
    "SGD nesterov decay": lambda p: OPTIM.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "SGD dampening": lambda p: OPTIM.SGD(p, 0.1, momentum=0.9, dampening=0.5, maximize=True),
    "SGD foreach": lambda p: OPTIM.SGD(p, 0.1, momentum=0.9, foreach=True),
    # with momentum, fused SGD of torch 2.15 raises when a parameter joins later: not the ledger's concern
    "SGD fused": lambda p: OPTIM.SGD(p, 0.1, weight_decay=0.1, fused=True),
    "Adam": lambda p: OPTIM.Adam(p, 0.1),
    "Adam L2": lambda p: OPTIM.Adam(p, 0.1, weight_decay=0.1, amsgrad=True),
    "Adam fused": lambda p: OPTIM.Adam(p, 0.1, fused=True),
    "AdamW": lambda p: OPTIM.AdamW(p, 0.1),
    "AdamW foreach": lambda p: OPTIM.AdamW(p, 0.1, foreach=True),
    "NAdam": lambda p: OPTIM.NAdam(p, 0.1),
    "RAdam": lambda p: OPTIM.RAdam(p, 0.1),
    "Adamax": lambda p: OPTIM.Adamax(p, 0.1),
    "Adagrad": lambda p: OPTIM.Adagrad(p, 0.1, weight_decay=0.1),
    "Adadelta": lambda p: OPTIM.Adadelta(p, 1.0),
    "RMSprop": lambda p: OPTIM.RMSprop(p, 0.1, momentum=0.9, centered=True),
    "Rprop": lambda p: OPTIM.Rprop(p, 0.1),
    "ASGD": lambda p: OPTIM.ASGD(p, 0.1),
    "Adafactor": lambda p: OPTIM.Adafactor(p, 0.1, weight_decay=0.1),
}
