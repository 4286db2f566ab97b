"""The README's pictures: each made by a scene of tools/screenshots.py, there, and small."""

import io
import re
from pathlib import Path

import pytest
from PIL import Image
from screenshots import COLOURS, FOLDER, LARGEST, SCENES, compress, readme_example, trim

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = [scene.file for scene in SCENES]

WHITE, RED = (255, 255, 255), (255, 0, 0)


def test_every_picture_of_the_readme_is_made_by_a_scene_and_says_what_it_shows():
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)|<img([^>]*)>", README)
    for alt, path, tag in pictures:
        if tag:
            alt, path = (re.search(rf'{name}="([^"]+)"', tag)[1] for name in ("alt", "src"))
        assert alt.strip(), path
        assert path in {f"docs/{file}" for file in FILES}


def test_docs_holds_the_scenes_pictures_and_no_old_ones():
    assert sorted(path.name for path in FOLDER.glob("*.png")) == sorted(FILES)


@pytest.mark.parametrize("file", FILES)
def test_a_picture_is_small_and_shows_something(file):
    path = FOLDER / file
    assert path.stat().st_size <= LARGEST < 100_000
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width >= 400
        assert len(picture.convert("RGB").getcolors(COLOURS[0])) > 10


def test_the_example_is_the_readmes_shown_and_not_printed():
    example = readme_example()
    assert example.rstrip().endswith("\nledger")
    assert example in README.replace("print(ledger)", "ledger")


def test_trim_leaves_what_is_there_and_a_margin():
    picture = Image.new("RGB", (100, 60), WHITE)
    picture.paste(RED, (20, 10, 50, 30))
    trimmed = trim(picture, 4)
    assert trimmed.size == (30 + 8, 20 + 8)
    assert [trimmed.getpixel(at) for at in ((3, 3), (4, 4), (33, 23), (34, 24))] == [WHITE, RED, RED, WHITE]
    with pytest.raises(ValueError, match="nothing in the picture"):
        trim(Image.new("RGB", (5, 5), WHITE), 4)


def test_a_small_symbol_keeps_its_colour_among_many_greys():
    vermillion = (178, 79, 5)
    picture = Image.linear_gradient("L").convert("RGB")
    picture.paste(vermillion, (100, 100, 104, 104))
    small = Image.open(io.BytesIO(compress(picture))).convert("RGB")
    assert max(abs(a - b) for a, b in zip(small.getpixel((102, 102)), vermillion, strict=True)) < 16


def test_compress_takes_fewer_colours_until_it_fits():
    shades = Image.linear_gradient("L").convert("RGB")
    full = compress(shades)
    fewer = compress(shades, len(full) - 1)
    assert len(fewer) < len(full)
    counts = [len(Image.open(io.BytesIO(one)).convert("RGB").getcolors()) for one in (fewer, full)]
    assert counts[0] < counts[1] == COLOURS[0]
    assert compress(shades, 10) is None
