"""Which modules count as layers: the model's own order, stacks of blocks taken apart."""

import pytest
import torch
from torch import nn
from torchvision import models

from layerlab.groups.depth import layers


def by_layer(model):
    """Layers from the input to the head, each with the names of its parameters."""
    where = layers(model)
    found = {}
    for name, p in model.named_parameters():
        found.setdefault((-where[id(p)].depth, where[id(p)].name), []).append(name)
    assert len(where) == len(list(model.parameters()))
    in_order = sorted(found)
    assert [depth for depth, _ in in_order] == list(range(1 - len(found), 1))  # none left out, head is 0
    return {name: found[depth, name] for depth, name in in_order}


def built(make, **options):
    with torch.device("meta"):
        return make(**options)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))


class Bert(nn.Module):
    """Named as in transformers: the stack lies two modules below the top, and a pooler comes after it."""

    def __init__(self):
        super().__init__()
        self.bert = nn.Module()
        self.bert.embeddings = nn.Embedding(3, 2)
        self.bert.encoder = nn.Module()
        self.bert.encoder.layer = nn.ModuleList([Block(), Block()])
        self.bert.pooler = nn.Linear(2, 2)
        self.classifier = nn.Linear(2, 2)


def test_resnet18():
    found = by_layer(built(models.resnet18))
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert list(found) == ["conv1", *blocks, "fc"]
    assert found["conv1"] == ["conv1.weight", "bn1.weight", "bn1.bias"]
    assert "layer2.0.downsample.1.bias" in found["layer2.0"]


def test_a_transformer_for_images():
    found = by_layer(built(models.vit_b_16))
    stem, *encoder, head = found
    assert (stem, head) == ("conv_proj", "heads.head")
    assert encoder == [f"encoder.layers.encoder_layer_{at}" for at in range(12)]
    assert found["conv_proj"] == [
        "class_token",
        "conv_proj.weight",
        "conv_proj.bias",
        "encoder.pos_embedding",
    ]
    assert "encoder.ln.weight" in found["encoder.layers.encoder_layer_11"]


def test_a_plain_chain_of_convolutions():
    found = by_layer(built(models.vgg11))
    assert list(found)[-3:] == ["classifier.0", "classifier.3", "classifier.6"]
    assert len(found) == 11


def test_a_stack_below_other_modules():
    assert list(by_layer(Bert())) == [
        "bert.embeddings",
        "bert.encoder.layer.0",
        "bert.encoder.layer.1",
        "bert.pooler",
        "classifier",
    ]


def test_a_whole_network_in_front_of_a_head():
    found = by_layer(nn.Sequential(Bert(), nn.Linear(2, 2)))
    assert list(found) == [
        "0.bert.embeddings",
        "0.bert.encoder.layer.0",
        "0.bert.encoder.layer.1",
        "0.bert.pooler",
        "0.classifier",
        "1",
    ]


def test_blocks_at_the_top_stay_whole():
    net = nn.Module()
    net.first, net.second = Block(), Block()
    assert list(by_layer(net)) == ["first", "second"]


def test_a_block_of_a_stack_stays_whole_whatever_lists_it_holds():
    """Experts of a mixture stand side by side, not one after the other."""
    net = nn.Module()
    net.layers = nn.ModuleList([nn.Module(), nn.Module()])
    for layer in net.layers:
        layer.gate = nn.Linear(2, 2)
        layer.experts = nn.ModuleList([Block(), Block()])
    net.head = nn.Linear(2, 2)
    assert list(by_layer(net)) == ["layers.0", "layers.1", "head"]


def test_a_model_of_one_module():
    assert by_layer(nn.Linear(2, 2)) == {"Linear": ["weight", "bias"]}


def test_what_comes_first_and_is_no_layer_belongs_to_the_first():
    net = nn.Module()
    net.token = nn.Parameter(torch.ones(1))
    net.norm = nn.LayerNorm(2)
    net.fc = nn.Linear(2, 2)
    net.last = nn.LayerNorm(2)
    assert list(by_layer(net)) == ["fc"]


def test_a_tied_head_lies_where_it_was_first_named():
    net = nn.Module()
    net.embed = nn.Embedding(3, 2)
    net.middle = nn.Linear(2, 2)
    net.head = nn.Linear(2, 3, bias=False)
    net.head.weight = net.embed.weight
    assert by_layer(net) == {"embed": ["embed.weight"], "middle": ["middle.weight", "middle.bias"]}


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_are_looked_through(wrap):
    inner = Bert()
    assert [layer.name for layer in layers(wrap(inner)).values()] == [
        layer.name for layer in layers(inner).values()
    ]
