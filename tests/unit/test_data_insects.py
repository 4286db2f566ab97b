"""Ants and bees from archives and folders, whole and broken; the real ones where LAYERLAB_DATA names them."""

import io
import os
import pickle
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from data_server import cut, serving, status, unannounced, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from layerlab.data import DataError, ants_and_bees, insects
from layerlab.data.fetch import RECORDED

GIVEN = os.environ.get("LAYERLAB_DATA")  # before the tests take it away
TOP = "hymenoptera_data/"


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAYERLAB_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(insects, "URL", "http://127.0.0.1:9/no-test-may-ask-this")


def picture(seed, size, mode="RGB", kind="JPEG"):
    channels = {"RGB": 3, "L": 1, "P": 1, "RGBA": 4}[mode]
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise.squeeze()).convert(mode).save(file, kind)
    return file.getvalue()


SMALL = {
    "train/bees/2.jpg": picture(1, (50, 40)),
    "train/bees/10.jpg": picture(2, (31, 60)),
    "train/ants/a b.jpg": picture(3, (40, 40), "L"),
    "train/ants/ä.jpeg": picture(4, (9, 13)),
    "val/ants/x.jpg": picture(5, (33, 32)),
    "val/bees/X.png": picture(6, (32, 33), "RGBA", "PNG"),
    "val/bees/1.png": picture(7, (90, 20), "P", "PNG"),
}
IN_ORDER = {
    "train": ["train/ants/a b.jpg", "train/ants/ä.jpeg", "train/bees/10.jpg", "train/bees/2.jpg"],
    "val": ["val/ants/x.jpg", "val/bees/1.png", "val/bees/X.png"],
}
BESIDE = {
    "train/ants/imageNotFound.gif": b"no picture",
    "train/ants/.DS_Store": b"no picture",
    "train/.hidden/ants.jpg": b"no picture",
    ".ipynb_checkpoints/ants/1.jpg": b"no picture",
    "train/bees/below/1.jpg": b"no picture",
    "train/README.txt": b"no picture",
    "__MACOSX/train/ants/._1.jpg": b"no picture",
    "test/ants/1.jpg": b"no picture",
}
SIDE = 28  # so that the shorter side becomes 32


def zipped(files, top=TOP):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(top + name, data)
    return content.getvalue()


def write_zip(path, files, top=TOP):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zipped(files, top))
    return path


def write_folder(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def archive(tmp_path):
    return write_zip(tmp_path / "data" / "hymenoptera_data.zip", SMALL)


def by_hand(content, side=SIDE):
    """The same with Pillow and numpy alone."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    width, height = image.size
    shorter = side * 256 // 224
    if width <= height:
        image = image.resize((shorter, int(shorter * height / width)), Image.Resampling.BILINEAR)
    else:
        image = image.resize((int(shorter * width / height), shorter), Image.Resampling.BILINEAR)
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    cropped = image.crop((left, top, left + side, top + side))
    return torch.from_numpy(np.array(cropped)).permute(2, 0, 1)


def is_small(both):
    for images, split in zip(both, ("train", "val"), strict=True):
        assert images.classes == ("ants", "bees")
        names = IN_ORDER[split]
        assert images.labels.tolist() == [int("/bees/" in name) for name in names]
        assert torch.equal(images.pixels, torch.stack([by_hand(SMALL[name]) for name in names]))
    return True


def test_pictures_are_decoded_as_by_hand_and_in_the_order_of_their_names(archive, capfd):
    both = ants_and_bees(archive, SIDE)
    assert is_small(both)
    assert [images.pixels.dtype for images in both] == [torch.uint8] * 2
    assert capfd.readouterr() == ("", "")


@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 40))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_middle_of_any_picture_and_of_any_side(width, height, side):
    content = picture(width * 100 + height, (width, height), kind="PNG")
    assert torch.equal(insects.decode(content, side), by_hand(content, side))


def test_archive_and_folder_wherever_they_lie(tmp_path, archive, monkeypatch):
    unpacked = write_folder(tmp_path / "unpacked" / "hymenoptera_data", SMALL)
    flat = write_zip(tmp_path / "flat" / "hymenoptera_data.zip", SMALL, top="")
    other_name = write_zip(tmp_path / "insects.zip", SMALL)
    places = [archive, archive.parent, unpacked, unpacked.parent, flat, other_name, str(archive)]
    for place in places:
        assert is_small(ants_and_bees(place, SIDE))
    for place in [archive.parent, unpacked, unpacked.parent]:
        monkeypatch.setenv("LAYERLAB_DATA", str(place))
        assert is_small(ants_and_bees(side=SIDE))


@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_what_is_no_picture_is_left_out(write, tmp_path):
    place = write(tmp_path / "mixed", {**BESIDE, **SMALL})
    assert is_small(ants_and_bees(place, SIDE))


def test_where_they_came_from_is_said_without_a_path(tmp_path, archive, monkeypatch):
    train, validation = ants_and_bees(archive, SIDE)
    assert train.came_from == (
        "4 training photographs, not the original's 244, of ants and bees (hymenoptera), "
        "read from the archive that was named"
    )
    assert validation.came_from.startswith("3 validation photographs, not the original's 153, of ants")
    monkeypatch.setenv("LAYERLAB_DATA", str(archive.parent))
    train, _ = ants_and_bees(side=SIDE)
    assert "read from hymenoptera_data.zip where LAYERLAB_DATA says; no checksum" in train.came_from
    assert str(tmp_path) not in train.came_from


HOSTILE = [
    "../outside.jpg",
    "hymenoptera_data/train/ants/../../../../outside.jpg",
    "hymenoptera_data/..",
    "/outside.jpg",
    "\\outside.jpg",
    "..\\outside.jpg",
    "C:/outside.jpg",
    "c:outside.jpg",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_leads_out_of_the_archive(name, tmp_path, archive):
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(name, SMALL["val/ants/x.jpg"])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="leads out of it: do not use it") as caught:
        ants_and_bees(archive, SIDE)
    assert repr(name) in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_an_archive_cut_short(share, archive):
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"hymenoptera_data\.zip is no complete zip archive .*get a new copy"):
        ants_and_bees(archive, SIDE)
    archive.write_bytes(content)
    assert is_small(ants_and_bees(archive, SIDE))


def test_a_changed_byte_in_the_archive(archive):
    content = bytearray(archive.read_bytes())
    place = content.index(SMALL["val/ants/x.jpg"]) + 200
    content[place] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"val/ants/x\.jpg cannot be read"):
        ants_and_bees(archive, SIDE)


@pytest.mark.parametrize("content", [b"", b"<html>", SMALL["train/bees/2.jpg"][:700]])
@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_a_picture_that_cannot_be_decoded_is_named(content, write, tmp_path):
    place = write(tmp_path / "broken", {**SMALL, "train/bees/2.jpg": content})
    with pytest.raises(DataError, match=r"train/bees/2\.jpg cannot be decoded"):
        ants_and_bees(place, SIDE)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "train/ must have pictures of ants and bees, but has none"),
        ({name: data for name, data in SMALL.items() if "val" not in name}, "val/ must have"),
        ({name: data for name, data in SMALL.items() if "train/ants" not in name}, r"but has \['bees'\]"),
        ({**SMALL, "train/cats/1.jpg": b""}, r"but has \['ants', 'bees', 'cats'\]"),
    ],
)
def test_something_else_than_ants_and_bees(files, says, tmp_path):
    with pytest.raises(DataError, match=says):
        ants_and_bees(write_zip(tmp_path / "other.zip", files), SIDE)


@pytest.mark.parametrize("side", [0, -1, 2.5, True, "224"])
def test_a_side_must_be_a_number_of_pixels(side, archive):
    with pytest.raises(ValueError, match="side must be a positive whole number"):
        ants_and_bees(archive, side)


def test_a_place_without_them_is_not_replaced_by_a_download(tmp_path, monkeypatch):
    with serving() as server, pytest.raises(DataError, match=r"is neither hymenoptera_data\.zip nor"):
        monkeypatch.setattr(insects, "URL", server.url)
        ants_and_bees(tmp_path, SIDE)
    assert server.asked == []


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (status(404), r"404 \(Not Found\)"),
        (cut(zipped(SMALL)), "cut off"),
        (unannounced(zipped(SMALL)[:-50]), "no complete zip archive"),
        (whole(b"<html>Please log in"), "wrong bytes came: .* no complete zip archive"),
        (whole(zipped({"../outside": b""})), "wrong bytes came: .* leads out of it"),
        (whole(zipped({"train/cats/1.jpg": b""})), "wrong bytes came: train/ must have"),
        (whole(zipped(SMALL).replace(SMALL["val/ants/x.jpg"][-99:], b"!" * 99)), "wrong bytes came: val"),
    ],
    ids=["404", "cut off", "cut unannounced", "log-in page", "hostile", "other pictures", "changed bytes"],
)
def test_a_download_that_fails_and_then_succeeds(fault, says, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("LAYERLAB_DATA", str(tmp_path))  # where there is none: so it is downloaded
    with serving() as server:
        monkeypatch.setattr(insects, "URL", f"{server.url}/hymenoptera_data.zip")
        server.answer = fault
        with pytest.raises(DataError, match=says) as caught:
            ants_and_bees(side=SIDE)
        assert "which LAYERLAB_DATA names: it is not there" in str(caught.value)
        left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
        assert set(left) <= {".hymenoptera_data.zip.lock"}
        server.answer = whole(zipped(SMALL))
        both = ants_and_bees(side=SIDE)
        assert is_small(both)
        assert is_small(ants_and_bees(side=SIDE))
    assert len(server.asked) == 2
    assert both[0].came_from.endswith(f"downloaded from {server.url}/hymenoptera_data.zip; {RECORDED}")
    assert capfd.readouterr() == ("", "")


def kept(tmp_path):
    return sorted((tmp_path / "cache").glob("*.pt"))


def test_an_archive_is_decoded_once(tmp_path, archive, monkeypatch):
    first = ants_and_bees(archive, SIDE)
    assert len(kept(tmp_path)) == 1
    monkeypatch.setattr(insects, "decode", None)
    second = ants_and_bees(archive, SIDE)
    assert is_small(second)
    assert [images.came_from for images in second] == [images.came_from for images in first]


def test_another_side_or_archive_is_decoded_anew(tmp_path, archive):
    ants_and_bees(archive, SIDE)
    assert ants_and_bees(archive, 14)[0].pixels.shape == (4, 3, 14, 14)
    write_zip(archive, {**SMALL, "val/ants/x.jpg": SMALL["train/bees/2.jpg"]})
    _, validation = ants_and_bees(archive, SIDE)
    assert torch.equal(validation.pixels[0], by_hand(SMALL["train/bees/2.jpg"]))
    assert len(kept(tmp_path)) == 3


def test_a_folder_is_read_each_time(tmp_path):
    folder = write_folder(tmp_path / "hymenoptera_data", SMALL)
    ants_and_bees(folder, SIDE)
    (folder / "val/ants/x.jpg").write_bytes(SMALL["train/bees/2.jpg"])
    assert torch.equal(ants_and_bees(folder, SIDE)[1].pixels[0], by_hand(SMALL["train/bees/2.jpg"]))
    assert kept(tmp_path) == []


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil"),))


def changed(content, where):
    return content[:where] + bytes([content[where] ^ 255]) + content[where + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:-300],
    "garbage": lambda content: b"PK\x03\x04" + bytes(500),
    "a pixel": lambda content: changed(content, len(content) // 2),
    "code": lambda content: pickle.dumps(Evil()),
    "a number": lambda content: saved(7),
    "of another archive": lambda content: saved(black(loaded(content))),
    "no sums": lambda content: saved({key: value for key, value in loaded(content).items() if key != "sums"}),
}


def saved(what):
    file = io.BytesIO()
    torch.save(what, file)
    return file.getvalue()


def loaded(content):
    return torch.load(io.BytesIO(content), weights_only=True)


def black(found):
    """Whole and right, but for another key."""
    pixels = {split: torch.zeros_like(tensor) for split, tensor in found["pixels"].items()}
    sums = {split: zlib.crc32(bytes(tensor.numel())) for split, tensor in pixels.items()}
    return {"key": "sha256 0 side 28 Pillow 0", "pixels": pixels, "sums": sums}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_again(damage, tmp_path, archive, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ants_and_bees(archive, SIDE)
    (file,) = kept(tmp_path)
    good = file.read_bytes()
    file.write_bytes(DAMAGES[damage](good))
    assert is_small(ants_and_bees(archive, SIDE))
    assert not Path("evil").exists()
    assert kept(tmp_path) == [file]
    monkeypatch.setattr(insects, "decode", None)
    assert is_small(ants_and_bees(archive, SIDE))


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, archive):
    (tmp_path / "cache").write_text("a file, no folder")
    assert is_small(ants_and_bees(archive, SIDE))


def test_a_full_disk_leaves_no_half_cache(tmp_path, archive, monkeypatch):
    def fail(what, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc] . unexpected pos")  # as torch.save says it

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", fail)
        assert is_small(ants_and_bees(archive, SIDE))
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".lock"}


def test_bars_when_asked_for(archive, capfd):
    ants_and_bees(archive, SIDE, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "decoding training photographs" in err
    assert "4/4" in err


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if GIVEN is None or not (Path(GIVEN) / "hymenoptera_data.zip").is_file():
        pytest.skip("needs LAYERLAB_DATA to name a folder with hymenoptera_data.zip")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LAYERLAB_DATA", GIVEN)
        patched.setenv("LAYERLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return ants_and_bees()


def test_the_real_ones(real):
    train, validation = real
    assert repr(train) == "Images(244 of 3×224×224 uint8; ants: 123, bees: 121)"
    assert repr(validation) == "Images(153 of 3×224×224 uint8; ants: 70, bees: 83)"
    assert train.came_from.startswith("244 training photographs of ants and bees (hymenoptera), read from")
    assert validation.came_from.startswith("153 validation photographs of ants and bees")


def test_a_real_one_by_hand(real):
    with zipfile.ZipFile(Path(GIVEN) / "hymenoptera_data.zip") as archive:
        content = archive.read("hymenoptera_data/val/bees/abeja.jpg")
    assert torch.equal(real[1].pixels[-1], by_hand(content, 224))
