"""Whole slides: which files are some; their pixels, sizes and tissue are the right ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cnsapp.errors import InvalidInputError, UnreadableImageError
from cnsapp.imaging import slide_work
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.rule import Channel, ReadingRule
from cnsapp.imaging.slide_base import SlideFacts
from cnsapp.imaging.slides import is_slide, open_slide
from cnsapp.imaging.tiling import Tile, TileSettings, plan_tiles, tile_side
from cnsapp.imaging.tissue import find_tissue
from cnsapp.imaging.window import WindowMissingError
from tests import slides

LOSSLESS: dict[str, Callable[[Path, slides.Pixels], Path]] = {
    "generic.tif": slides.write_generic,
    "sub.tif": slides.write_sub_ifds,
    "colours.ome.tif": slides.write_ome,
}


@pytest.fixture(scope="module")
def pixels() -> slides.Pixels:
    return slides.draw()


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_region_at_full_size_is_the_slides_own_pixels(
    name: str, pixels: slides.Pixels, tmp_path: Path
) -> None:
    path = LOSSLESS[name](tmp_path / name, pixels)
    with open_slide(path) as slide:
        assert (slide.facts.width, slide.facts.height) == (1600, 1200)
        assert slide.facts.levels == ((1600, 1200), (800, 600), (400, 300))
        for x, y, side in ((0, 0, 128), (37, 251, 300), (1400, 1000, 200), (127, 129, 130)):
            region = slide.read_region(x, y, side, side)
            assert np.array_equal(region, pixels[y : y + side, x : x + side])


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_smaller_region_is_the_mean_of_the_pixels_below_it(
    name: str, pixels: slides.Pixels, tmp_path: Path
) -> None:
    path = LOSSLESS[name](tmp_path / name, pixels)
    with open_slide(path) as slide:
        region = slide.read_region(400, 200, 512, 128)  # a quarter: the third level itself
    mean = pixels[200:712, 400:912].reshape(128, 4, 128, 4, 3).mean(axis=(1, 3))
    assert np.abs(region - mean).max() <= 1.5


def test_a_scale_between_two_levels_comes_from_the_finer_one(
    pixels: slides.Pixels, tmp_path: Path
) -> None:
    path = slides.write_generic(tmp_path / "a.tif", pixels)
    with open_slide(path) as slide:
        region = slide.read_region(320, 320, 300, 200)  # 1.5 to 1, from level 0
    crop = Image.fromarray(pixels).crop((320, 320, 620, 620))
    expected = np.asarray(crop.resize((200, 200), Image.Resampling.BICUBIC))
    inside = np.s_[4:-4, 4:-4]  # at the rim the slide knows pixels that the crop does not
    assert np.abs(region[inside].astype(int) - expected[inside].astype(int)).max() <= 1


def test_neighbouring_resampled_tiles_meet_without_a_seam(
    pixels: slides.Pixels, tmp_path: Path
) -> None:
    path = slides.write_generic(tmp_path / "a.tif", pixels)
    with open_slide(path) as slide:
        whole = slide.read_region(300, 300, 600, 400)
        left = slide.read_region(300, 300, 300, 200)
        right = slide.read_region(600, 300, 300, 200)
    both = np.concatenate([left, right], axis=1)
    assert np.abs(both.astype(int) - whole[:200].astype(int)).max() <= 1


def test_outside_the_slide_it_is_white(pixels: slides.Pixels, tmp_path: Path) -> None:
    path = slides.write_generic(tmp_path / "a.tif", pixels)
    with open_slide(path) as slide:
        region = slide.read_region(1500, 1100, 200, 200)
    assert np.array_equal(region[:100, :100], pixels[1100:, 1500:])
    assert (region[100:] == 255).all()
    assert (region[:, 100:] == 255).all()


def test_an_aperio_slide_is_read_without_its_label_and_macro(
    pixels: slides.Pixels, tmp_path: Path
) -> None:
    path = slides.write_aperio(tmp_path / "a.svs", pixels)
    with open_slide(path) as slide:
        assert slide.facts.reader == "openslide"
        assert slide.facts.levels == ((1600, 1200), (400, 300))
        assert slide.facts.um_per_px == (0.5, 0.5)
        thumbnail = slide.thumbnail(400).astype(int)
        region = slide.read_region(200, 300, 256, 256)
    red, green, blue = thumbnail[..., 0], thumbnail[..., 1], thumbnail[..., 2]
    assert not ((red > 240) & (green < 30)).any()
    assert not ((green > 240) & (red < 30) & (blue < 30)).any()
    assert np.abs(region.astype(int) - pixels[300:556, 200:456]).mean() < 4  # JPEG
    own = tifffile.imread(path, key=0)[300:556, 200:456]  # decoded by another library
    assert np.abs(region.astype(int) - own).max() <= 3


def test_fluorescence_channels_are_laid_over_each_other_in_their_colours(tmp_path: Path) -> None:
    planes = np.zeros((3, 1200, 1400), np.uint16)
    planes[0, 100:300, 100:300] = 2000
    planes[1, 200:400, 200:400] = 1000
    planes[2] = 4000
    path = slides.write_ome_channels(tmp_path / "f.ome.tif", planes)
    rule = ReadingRule(channels=(Channel(0, "#FF0000", 0, 2000), Channel(1, "#00FF00", 0, 2000)))
    with open_slide(path, rule=rule) as slide:
        region = slide.read_region(0, 0, 512, 512)
    assert slide.facts.channels == 3
    assert region[150, 150].tolist() == [255, 0, 0]
    assert region[250, 250].tolist() == [255, 128, 0]
    assert region[350, 350].tolist() == [0, 128, 0]
    assert region[50, 50].tolist() == [0, 0, 0]


def test_deep_samples_need_the_projects_window_and_their_range_is_told(tmp_path: Path) -> None:
    planes = np.full((1, 1200, 1400), 900, np.uint16)
    planes[0, :600] = 300
    path = slides.write_ome_channels(tmp_path / "deep.ome.tif", planes)
    with pytest.raises(WindowMissingError):
        slide_work.look_at(path, ReadingRule(), Limits(), 500)
    found = slide_work.sample_range(path, ReadingRule(), Limits())
    assert found is not None
    assert (found.kind, found.low, found.high) == ("uint16", 300, 900)
    rule = ReadingRule().with_window("uint16", 0, 900)
    _, thumbnail = slide_work.look_at(path, rule, Limits(), 500)
    assert thumbnail[10, 10].tolist() == [85, 85, 85]
    assert thumbnail[-10, 10].tolist() == [255, 255, 255]


def test_what_is_a_slide_and_what_is_an_ordinary_image(
    pixels: slides.Pixels, tmp_path: Path
) -> None:
    small = pixels[:500, :700]
    tifffile.imwrite(tmp_path / "tiled.tif", pixels, tile=(128, 128), photometric="rgb")
    tifffile.imwrite(tmp_path / "plain.tif", pixels, photometric="rgb")
    Image.fromarray(pixels).save(tmp_path / "a.png")
    wide = np.zeros((64, 8192, 3), np.uint8)
    tifffile.imwrite(tmp_path / "wide.tif", wide, tile=(64, 256), photometric="rgb")
    (tmp_path / "a.svs").write_bytes(b"no slide at all")
    slides.write_generic(tmp_path / "small.tif", small)
    yes = [
        slides.write_generic(tmp_path / "generic.tif", pixels),
        slides.write_sub_ifds(tmp_path / "sub.tif", pixels),
        slides.write_ome(tmp_path / "o.ome.tif", pixels),
        slides.write_aperio(tmp_path / "tiny-aperio.tif", small),
        tmp_path / "wide.tif",
    ]
    no = [tmp_path / n for n in ("tiled.tif", "plain.tif", "a.png", "a.svs", "small.tif", "gone")]
    assert [path.name for path in [*yes, *no] if is_slide(path)] == [path.name for path in yes]
    asked = [path.name for path in [*yes, *no] if slide_work.is_slide(path, Limits())]
    assert asked == [path.name for path in yes]


def test_ordinary_problem_files_are_no_slides(real_data: Path) -> None:
    folder = real_data / "problem-files"
    if not folder.is_dir():
        pytest.skip("no folder of problem files")
    assert [path.name for path in folder.iterdir() if is_slide(path)] == []


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_a_slide_that_is_cut_off_is_refused_in_a_sentence(
    share: float, pixels: slides.Pixels, tmp_path: Path
) -> None:
    whole = slides.write_aperio(tmp_path / "whole.svs", pixels).read_bytes()
    path = tmp_path / "half.svs"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UnreadableImageError) as caught:
        slide_work.look_at(path, ReadingRule(), Limits(), 500)
        slide_work.cut(path, ReadingRule(), Limits(), [(x, 400, 256) for x in (0, 800)], 256)
    assert str(caught.value).endswith(".")


def test_a_damaged_slide_refuses_the_tile_it_concerns_and_the_reader_lives_on(
    pixels: slides.Pixels, tmp_path: Path
) -> None:
    good = slides.write_aperio(tmp_path / "good.svs", pixels)
    data = bytearray(good.read_bytes())
    with tifffile.TiffFile(good) as tiff:
        start = tiff.pages.first.dataoffsets[40]
    data[start : start + 400] = b"\xff\xd9" * 200
    bad = tmp_path / "bad.svs"
    bad.write_bytes(data)
    x, y = 40 % 13 * 128, 40 // 13 * 128
    with pytest.raises(UnreadableImageError, match="damaged"):
        slide_work.cut(bad, ReadingRule(), Limits(), [(x, y, 128)], 128)
    there = slide_work.cut(bad, ReadingRule(), Limits(), [(0, 0, 128)], 128)
    same = slide_work.cut(good, ReadingRule(), Limits(), [(0, 0, 128)], 128)
    assert np.array_equal(there, same)


# tissue -------------------------------------------------------------------------------------------


def test_tissue_is_found_as_it_was_drawn_without_specks_and_small_holes() -> None:
    picture = np.full((600, 800, 3), 238, np.uint8)
    truth = np.zeros((600, 800), bool)
    truth[100:400, 100:500] = True
    truth[250:520, 600:750] = True
    picture[truth] = (205, 140, 190)
    picture[40:43, 40:43] = (120, 60, 120)  # dust
    picture[200:206, 200:206] = 238  # a vessel
    big_hole = np.s_[300:380, 300:380]
    picture[big_hole] = 238
    truth[big_hole] = False
    rng = np.random.default_rng(1)
    noisy = (picture + rng.normal(0, 4, picture.shape)).clip(0, 255).astype(np.uint8)
    found = find_tissue(noisy)
    assert (found != truth).mean() < 0.002
    assert not found[35:50, 35:50].any()
    assert found[190:215, 190:215].all()


@pytest.mark.parametrize("glass", [250, 225, 200])
def test_pale_tissue_is_found_on_glass_of_any_brightness(glass: int) -> None:
    picture = np.full((400, 400, 3), glass, np.uint8)
    picture[100:300, 100:300] = (glass * np.array([0.93, 0.78, 0.9])).astype(np.uint8)
    found = find_tissue(picture)
    assert found[110:290, 110:290].all()
    assert not found[:90].any()


def test_blank_glass_has_no_tissue_and_a_black_margin_is_none() -> None:
    rng = np.random.default_rng(2)
    blank = (240 + rng.normal(0, 3, (300, 300, 3))).clip(0, 255).astype(np.uint8)
    assert not find_tissue(blank).any()
    blank[:, :60] = 0
    assert not find_tissue(blank).any()


def test_a_dark_fluorescent_slide_has_its_tissue_where_it_shines() -> None:
    picture = np.full((300, 300, 3), 8, np.uint8)
    picture[100:200, 100:200] = (20, 60, 180)
    found = find_tissue(picture)
    assert found[105:195, 105:195].all()
    assert found.sum() < 11_000


# tiles --------------------------------------------------------------------------------------------


def facts(width: int, height: int, um: float | None = 0.5) -> SlideFacts:
    return SlideFacts("x", "y", width, height, ((width, height),), None if um is None else (um, um))


def test_tiles_lie_on_a_grid_with_the_share_of_tissue_counted_by_hand() -> None:
    mask = np.zeros((40, 60), bool)  # one pixel of the mask is 10 px of the slide
    mask[0:10, 0:10] = True  # all of the first tile
    mask[0:5, 10:20] = True  # half of the second
    mask[15:20, 25:30] = True  # a quarter of one in the second row
    tiles = plan_tiles(facts(600, 400), mask, TileSettings(100, 0.5, 0.0, 0.25))
    assert tiles == [Tile(0, 0, 100, 1.0), Tile(100, 0, 100, 0.5), Tile(200, 100, 100, 0.25)]
    more = plan_tiles(facts(600, 400), mask, TileSettings(100, 0.5, 0.0, 0.3))
    assert more == tiles[:2]
    assert len(plan_tiles(facts(600, 400), mask, TileSettings(100, 0.5, 0.0, 0.0))) == 24


def test_a_tile_that_cuts_through_pixels_of_the_mask_counts_their_parts() -> None:
    mask = np.zeros((2, 3), bool)
    mask[0, 1] = True  # x 100 to 200, y 0 to 100
    tiles = plan_tiles(facts(300, 200), mask, TileSettings(150, 0.5, 0.0, 0.01))
    # both tiles cover a third of the first row's tissue: 50 x 100 of 150 x 150 pixels
    assert [(t.x, t.y, t.tissue) for t in tiles] == [(0, 0, 0.2222), (150, 0, 0.2222)]


def test_overlap_moves_the_grid_by_less_than_a_tile() -> None:
    mask = np.ones((10, 10), bool)
    tiles = plan_tiles(facts(500, 500), mask, TileSettings(200, 0.5, 0.25, 0.5))
    assert sorted({t.x for t in tiles}) == [0, 150, 300]
    assert len(tiles) == 9


@pytest.mark.parametrize(
    ("own", "wanted", "side"),
    [(0.25, 0.5, 1024), (0.5, 0.5, 512), (0.2527, 0.5, 1013), (0.55, 0.5, 465), (0.5, None, 512)],
)
def test_the_side_follows_from_the_micrometres(own: float, wanted: float | None, side: int) -> None:
    assert tile_side(facts(9000, 9000, own), TileSettings(512, wanted)) == side


def test_what_cannot_be_cut_says_what_to_do() -> None:
    with pytest.raises(UnreadableImageError, match="does not say how many micrometres"):
        tile_side(facts(9000, 9000, None), TileSettings())
    assert tile_side(facts(9000, 9000, None), TileSettings(slide_um_per_px=0.25)) == 1024
    assert tile_side(facts(9000, 9000, None), TileSettings(um_per_px=None)) == 512
    with pytest.raises(UnreadableImageError, match=r"scanned at 1 µm/px, coarser than the 0\.5"):
        tile_side(facts(9000, 9000, 1.0), TileSettings())
    with pytest.raises(UnreadableImageError, match="less than one tile of 512 px"):
        tile_side(facts(500, 9000), TileSettings())
    with pytest.raises(UnreadableImageError, match="CNS_MAX_SLIDE_TILES"):
        plan_tiles(facts(5000, 5000), np.ones((50, 50), bool), TileSettings(64), max_tiles=1000)
    for wrong in (
        {"tile_px": 8}, {"overlap": 1.0}, {"min_tissue": 1.5}, {"um_per_px": 50.0},
        {"slide_um_per_px": 0.0},
    ):  # fmt: skip
        with pytest.raises(InvalidInputError):
            TileSettings(**wrong).checked()  # type: ignore[arg-type]


def test_a_resolution_that_no_microscope_has_is_not_believed(tmp_path: Path) -> None:
    path = slides.write_generic(tmp_path / "a.tif", slides.draw(), um=25400 / 72)
    with open_slide(path) as slide:
        assert slide.facts.um_per_px is None


def test_a_large_area_is_read_in_parts_and_looks_the_same(
    pixels: slides.Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = slides.write_generic(tmp_path / "a.tif", pixels)
    with open_slide(path) as slide:
        once = slide.thumbnail(300)
        monkeypatch.setattr("cnsapp.imaging.slide_base.MAX_READ", 20_000)
        parts = slide.thumbnail(300)
    assert once.shape == parts.shape == (225, 300, 3)
    assert np.abs(once.astype(int) - parts.astype(int)).max() <= 2
