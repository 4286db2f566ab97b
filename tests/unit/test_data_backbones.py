"""Backbones from files and a server made here, and from the real files where LAYERLAB_DATA has them."""

import hashlib
import io
import os
import pickle
import socket
from collections import OrderedDict
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from data_server import cut, serving, status, whole
from torch import nn
from torchvision.models import Weights, WeightsEnum, resnet18, resnet50

from layerlab.data import DataError, backbone, checkpoints

GIVEN = os.environ.get("LAYERLAB_DATA")  # before the tests take it away
FOUR = tuple(f"layer4.{block}.conv{conv}.weight" for block in range(2) for conv in (1, 2))


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setenv("LAYERLAB_DATA", str(data))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    return data


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def trained():
    """A resnet18 that nobody else has, as the file of a checkpoint."""
    torch.manual_seed(5)
    model = resnet18()
    for tensor in model.state_dict().values():
        tensor.copy_(
            torch.randint_like(tensor, 1, 9) if not tensor.is_floating_point() else torch.rand_like(tensor)
        )
    return model.state_dict()


@pytest.fixture(scope="module")
def content(trained):
    return saved(trained)


def publish(monkeypatch, content, address="http://127.0.0.1:9"):
    """Let torchvision's entry for resnet18 be of this content, at this address, with its true checksum."""
    name = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"

    class Here(WeightsEnum):
        IMAGENET1K_V1 = Weights(url=f"{address}/models/{name}", transforms=partial(int), meta={})

    monkeypatch.setattr(checkpoints, "published", lambda arch: Here.IMAGENET1K_V1)
    return name


def has(model, state, but=()):
    own = model.state_dict()
    return {name for name in state if not torch.equal(own[name].cpu(), state[name])} == {
        "fc.weight",
        "fc.bias",
        *but,
    }


def test_the_entries_are_torchvisions_own():
    for arch, digest in (("resnet18", "f37072fd"), ("resnet50", "0676ba61")):
        entry = checkpoints.published(arch)
        assert entry.meta["num_params"] == sum(
            p.numel() for p in getattr(torchvision.models, arch)().parameters()
        )
        assert checkpoints.file_name(entry) == f"{arch}-{digest}.pth"


@pytest.mark.parametrize(("arch", "made"), [("resnet18", resnet18), ("resnet50", resnet50)])
def test_random_weights(arch, made, own_places):
    found = backbone(arch, None, classes=7, seed=3)
    torch.manual_seed(3)
    expected = made()
    head = nn.Linear(expected.fc.in_features, 7)
    assert has(found.model, {**expected.state_dict(), "fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)})
    assert torch.equal(found.model.fc.weight, head.weight)
    assert torch.equal(found.model.fc.bias, head.bias)
    assert type(found.model) is torchvision.models.ResNet
    assert [name for name, _ in found.model.named_parameters()] == [n for n, _ in expected.named_parameters()]
    assert found.missing == ()
    assert found.came_from == (
        f"torchvision's {arch} with random weights; a new random head of 7 outputs (seed 3)"
    )


def test_random_numbers_outside_are_left_alone():
    state = torch.get_rng_state()
    backbone(weights=None)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_head_is_the_same_whatever_the_weights(own_places, monkeypatch, content):
    (own_places / publish(monkeypatch, content)).write_bytes(content)
    assert torch.equal(backbone(seed=4).model.fc.weight, backbone(weights=None, seed=4).model.fc.weight)
    assert not torch.equal(backbone(seed=5).model.fc.weight, backbone(seed=4).model.fc.weight)


def test_torchvisions_own_file(own_places, monkeypatch, trained, content, capfd):
    name = publish(monkeypatch, content)
    (own_places / name).write_bytes(content)
    found = backbone()
    assert has(found.model, trained)
    assert found.missing == ()
    assert found.came_from == (
        f"torchvision's Here.IMAGENET1K_V1, from {name} where LAYERLAB_DATA says, verified; "
        "a new random head of 2 outputs (seed 0)"
    )
    assert capfd.readouterr() == ("", "")


def test_a_file_of_that_name_with_another_checksum(own_places, monkeypatch, content):
    name = publish(monkeypatch, content)
    (own_places / name).write_bytes(content + b"!")
    with pytest.raises(DataError, match=f"{name} is damaged or something else: its SHA-256 begins with"):
        backbone()


@pytest.fixture
def hub(tmp_path):
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_torch_hubs_cache(hub, monkeypatch, trained, content):
    name = publish(monkeypatch, content)
    hub.mkdir(parents=True)
    (hub / name).write_bytes(content)
    assert has(backbone().model, trained)
    (hub / name).write_bytes(content[:-1])
    with pytest.raises(DataError, match="Delete it"):
        backbone()


FAULTS = {
    "not found": (status(404), r"404 \(Not Found\)"),
    "cut off": (lambda handler: cut(handler.server.content)(handler), "wrong bytes came, or not all|cut off"),
    "wrong bytes": (whole(b"<html>Please log in"), "wrong bytes came"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_download_that_fails_and_then_succeeds(fault, hub, monkeypatch, trained, content, capfd):
    with serving() as server:
        name = publish(monkeypatch, content, server.url)
        server.content = content
        server.answer, says = FAULTS[fault]
        with pytest.raises(DataError, match=says) as caught:
            backbone()
        assert f"Get {name} in another way and put it into " in str(caught.value)
        assert list(hub.iterdir()) == []
        server.answer = whole(content)
        found = backbone()
        assert has(found.model, trained)
        assert found.came_from.startswith("torchvision's Here.IMAGENET1K_V1, verified; ")
        assert [path.name for path in hub.iterdir()] == [name]
        backbone()
    assert server.asked == [f"/models/{name}"] * 2
    assert capfd.readouterr() == ("", "")
    assert socket.getdefaulttimeout() is None


def test_without_a_network(hub, monkeypatch, content):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    publish(monkeypatch, content, nobody)
    with pytest.raises(DataError, match="no network, or the server cannot be reached"):
        backbone()


def test_a_server_that_never_answers(monkeypatch, content):
    monkeypatch.setattr(checkpoints, "PATIENCE", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        publish(monkeypatch, content, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(DataError, match="did not answer in time"):
            backbone()
    assert socket.getdefaulttimeout() is None


def write_without_layer4(folder, state):
    torch.save(state, folder / "resnet18_imagenet_without_layer4_convs.pt")


def test_without_layer4_only_when_asked(own_places, monkeypatch, trained, content):
    write_without_layer4(own_places, {name: value for name, value in trained.items() if name not in FOUR})
    found = backbone("resnet18", "imagenet-without-layer4", seed=2)
    assert has(found.model, trained, but=FOUR)
    assert found.missing == FOUR
    scratch = backbone(weights=None, seed=2).model
    for name in FOUR:
        assert torch.equal(found.model.get_parameter(name), scratch.get_parameter(name))
        assert name in found.came_from
    publish(monkeypatch, content)
    with pytest.raises(DataError, match="no network"):
        backbone()


def change(state, **changes):
    changed = OrderedDict(state)
    for name, value in changes.items():
        if value is None:
            del changed[name.replace("__", ".")]
        else:
            changed[name.replace("__", ".")] = value
    return changed


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"conv1__weight": None}, r"do not fit resnet18: conv1\.weight is missing\."),
        ({"fc__bias": None}, r"fc\.bias is missing"),
        ({"fc__bias": torch.zeros(2)}, r"fc\.bias has shape \(2,\), not \(1000,\)"),
        ({"layer9__weight": torch.zeros(2)}, r"layer9\.weight has no place in it"),
        ({FOUR[1].replace(".", "__"): torch.zeros(512, 512, 3, 3)}, "should be missing and is not"),
        ({"conv1__weight": torch.zeros(64, 3, 7, 7, dtype=torch.uint8)}, "is torch.uint8, not torch.float32"),
        (
            {f"layer1__0__conv{n}__weight": None for n in (1, 2)}
            | {"conv1__weight": None, "fc__weight": None},
            r"conv1\.weight is missing; layer1\.0\.conv1\.weight is missing; .*; and 1 more\.",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(changes, says, own_places, trained):
    state = {name: value for name, value in trained.items() if name not in FOUR}
    write_without_layer4(own_places, change(state, **changes))
    with pytest.raises(DataError, match=says):
        backbone("resnet18", "imagenet-without-layer4")


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil"),))


@pytest.mark.parametrize(
    ("damaged", "says"),
    [
        (b"", "cannot be read as a file of weights"),
        (b"<html>", "cannot be read as a file of weights"),
        (saved({"a": torch.zeros(999)})[:-99], "cannot be read as a file of weights"),
        (pickle.dumps(Evil()), "cannot be read as a file of weights"),
        (saved([torch.zeros(1)]), r"holds no tensors by name \(a state_dict\), but a list"),
        (saved({"state_dict": {}}), "holds no tensors by name"),
    ],
    ids=["empty", "page", "cut", "code", "list", "nested"],
)
def test_a_file_that_holds_no_weights(damaged, says, own_places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (own_places / "resnet18_imagenet_without_layer4_convs.pt").write_bytes(damaged)
    with pytest.raises(DataError, match=says):
        backbone("resnet18", "imagenet-without-layer4")
    assert not Path("evil").exists()


def test_no_file_no_substitute(monkeypatch):
    for where in ("set", "not set"):
        if where == "not set":
            monkeypatch.delenv("LAYERLAB_DATA")
        with pytest.raises(DataError, match=r"There is no resnet18_imagenet_without_layer4_convs\.pt"):
            backbone("resnet18", "imagenet-without-layer4")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (dict(arch="vgg11"), "arch must be one of resnet18, resnet50, not 'vgg11'"),
        (dict(weights="IMAGENET"), "resnet18 has no 'IMAGENET'"),
        (
            dict(arch="resnet50", weights="imagenet-without-layer4"),
            "resnet50 has no 'imagenet-without-layer4'",
        ),
        (dict(classes=0), "classes must be a positive whole number, not 0"),
        (dict(classes=2.0), "not 2.0"),
        (dict(classes=True), "not True"),
    ],
)
def test_what_does_not_exist_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        backbone(**{"weights": None, **wrong})


def needs(name):
    if GIVEN is None or not (Path(GIVEN) / name).is_file():
        pytest.skip(f"needs LAYERLAB_DATA to name a folder with {name}")
    return torch.load(Path(GIVEN) / name, weights_only=True)


def test_the_real_resnet50(monkeypatch):
    state = needs("resnet50_imagenet_fp16.pt")
    monkeypatch.setenv("LAYERLAB_DATA", GIVEN)
    found = backbone("resnet50")
    assert has(found.model, state)
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32}
    assert found.missing == ()
    assert "not torchvision's own, from resnet50_imagenet_fp16.pt" in found.came_from
    plain = resnet50()
    plain.load_state_dict(state, strict=True)


def test_the_real_resnet18_without_layer4(monkeypatch):
    state = needs("resnet18_imagenet_without_layer4_convs.pt")
    monkeypatch.setenv("LAYERLAB_DATA", GIVEN)
    found = backbone("resnet18", "imagenet-without-layer4")
    assert has(found.model, state)
    plain = resnet18().load_state_dict(state, strict=False)
    assert sorted(plain.missing_keys) == sorted(found.missing)
    assert plain.unexpected_keys == []
