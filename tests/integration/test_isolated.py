"""Files that crash, hang or swell their decoder are refused; everybody else goes on."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
from PIL import Image as Picture

from cnsapp.bootstrap import App
from cnsapp.errors import StoreError, UnreadableImageError
from cnsapp.imaging import isolated, reader, wire
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.reading_pool import Readers
from cnsapp.imaging.reading_process import _too_much, memory_bound
from cnsapp.imaging.rule import ReadingRule
from cnsapp.services import images, projects
from cnsapp.services.importing import import_folder

ROOT = Path(__file__).resolve().parents[2]
posix_only = pytest.mark.skipif(os.name != "posix", reason="signals are sent to processes")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the kernel bounds the memory")

# What a start file of Python puts into the reading processes: a decoder that does, natively, what
# the last bytes of a file say. The product has no such door.
SABOTAGE = """
import ctypes, os, sys
if "cnsapp.imaging.reading_process" in sys.orig_argv:
    import PIL.Image
    honest = PIL.Image.open
    def sabotaged(fp, *arguments, **named):
        with open(getattr(fp, "name", fp), "rb") as file:
            order = file.read()[-5:]
        if order == b"SEGV!":
            ctypes.string_at(0)
        if order == b"ABRT!":
            os.abort()
        if order == b"HANG!":
            ctypes.PyDLL(None).sleep(1000)  # no other Python runs meanwhile
        if order == b"SLEEP":
            ctypes.CDLL(None).sleep(1000)
        if order == b"NOISE":
            os.write(1, b"libfoo: warning " * 1000)
        return honest(fp, *arguments, **named)
    PIL.Image.open = sabotaged
"""


def picture(seed: int = 0, side: int = 24) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def draw(path: Path, seed: int = 0, order: bytes = b"") -> Path:
    """Write a small sound PNG; decoders do not look at what stands behind its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = BytesIO()
    Picture.fromarray(picture(seed)).save(data, "PNG")
    path.write_bytes(data.getvalue() + order)
    return path


@pytest.fixture
def pool() -> Iterator[Readers]:
    made = Readers(2)
    yield made
    made.close()


@pytest.fixture
def sabotage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let files command the reading processes of this test."""
    folder = tmp_path / "sabotage"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SABOTAGE)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    isolated.readers().close()  # the shared ones were started without
    yield
    isolated.readers().close()


def soon(true: Callable[[], bool], seconds: float = 30) -> bool:
    """Wait until something is true; False when it does not come."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# the same pictures ---------------------------------------------------------------------------


def save(path: Path, **options: Any) -> Path:
    Picture.fromarray(picture(3, 40)).save(path, **options)
    return path


FORMATS: dict[str, Callable[[Path], Path]] = {
    "jpeg": lambda d: save(d / "a.jpg"),
    "png": lambda d: save(d / "a.png"),
    "webp": lambda d: save(d / "a.webp", lossless=True),
    "bmp": lambda d: save(d / "a.bmp"),
    "gif": lambda d: save(d / "a.gif"),
    "jpeg2000": lambda d: save(d / "a.jp2"),
    "tiff": lambda d: save(d / "a.tif", compression="tiff_lzw"),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_pixels_and_facts_are_those_of_the_reader(pool: Readers, tmp_path: Path, kind: str) -> None:
    path = FORMATS[kind](tmp_path)
    expected = reader.read_image(path)
    answer = pool.call("read", path)
    assert answer.array is not None and answer.array.dtype == np.uint8
    np.testing.assert_array_equal(answer.array, expected.pixels)
    assert isolated.facts_from_json(answer.facts) == expected.facts
    answer.array[0, 0] = 7  # the caller's own, not a window into somebody's memory


def test_facts_alone_are_those_of_the_picture(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", np.arange(600, dtype=np.uint16).reshape(20, 30))
    rule = ReadingRule(windows=(("uint16", 0.0, 300.0),))
    found = isolated.read_facts(tmp_path / "x.tif", rule, Limits(), strict=True)
    assert found == reader.read_image(tmp_path / "x.tif", rule).facts
    with pytest.raises(reader.WindowMissingError):
        isolated.read_facts(tmp_path / "x.tif", ReadingRule(), Limits(), strict=True)


def test_the_rule_reaches_the_other_process(tmp_path: Path) -> None:
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, np.array([[0, 500], [1000, 4000]], np.uint16))
    rule = ReadingRule((("uint16", 0.0, 1000.0),))
    result = isolated.read_image(path, rule)
    assert result.pixels[..., 0].tolist() == [[0, 128], [255, 255]]
    assert result.facts.window == (0.0, 1000.0)
    assert result.facts == reader.read_image(path, rule).facts
    assert isolated.read_sample_range(path) == reader.read_sample_range(path)
    assert isolated.read_sample_range(save(tmp_path / "flat.png")) is None


def test_thumbnails_are_those_that_this_process_would_make(tmp_path: Path) -> None:
    from cnsapp.imaging.thumbs import make_thumbs

    path = tmp_path / "large.png"
    Picture.fromarray(picture(5, 700)).save(path)
    here = (tmp_path / "x" / "aa" / "thumb.jpg", tmp_path / "x" / "aa" / "view.jpg")
    make_thumbs(reader.read_image(path).pixels, *here)
    facts = isolated.look_at(path, ReadingRule(), Limits(), root=tmp_path, sha256="ab" * 32)
    assert facts == reader.read_image(path).facts
    folder = tmp_path / "thumbs" / "ab"
    assert (folder / f"{'ab' * 32}.jpg").read_bytes() == here[0].read_bytes()
    assert (folder / f"{'ab' * 32}.view.jpg").read_bytes() == here[1].read_bytes()


@pytest.mark.parametrize("name", ["Präparat µ 🔬 #1 100%.png", "x" * 251 + ".png"])
def test_names_reach_it_as_they_are(pool: Readers, tmp_path: Path, name: str) -> None:
    answer = pool.call("read", draw(tmp_path / name, seed=2))
    np.testing.assert_array_equal(answer.array, picture(2))


@posix_only
def test_names_that_are_no_text_and_relative_ones_are_found(
    pool: Readers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "darwin":
        pytest.skip("its disks take only names that are text")
    path = draw(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")), seed=4)
    monkeypatch.chdir(tmp_path)
    for name in (path, Path(path.name)):
        np.testing.assert_array_equal(pool.call("read", name).array, picture(4))


# errors --------------------------------------------------------------------------------------


def test_a_refusal_is_the_same_error_with_the_same_words(pool: Readers, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 and no more")
    for path, limits in ((broken, Limits()), (save(tmp_path / "a.png"), Limits(max_pixels=100))):
        with pytest.raises(UnreadableImageError) as expected:
            reader.read_image(path, limits=limits)
        with pytest.raises(UnreadableImageError) as caught:
            pool.call("read", path, limits=limits)
        assert str(caught.value) == str(expected.value)
        assert (caught.value.why, caught.value.remedy) == (
            expected.value.why,
            expected.value.remedy,
        )


def test_a_missing_window_keeps_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, np.arange(16, dtype=np.uint16).reshape(4, 4))
    with pytest.raises(reader.WindowMissingError) as caught:
        isolated.read_image(path, strict=True)
    assert caught.value.kind == "uint16"


def test_a_disk_that_takes_no_thumbnail_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "thumbs").write_text("a file where a folder should be")
    with pytest.raises(OSError) as caught:
        isolated.look_at(
            draw(tmp_path / "a.png"), ReadingRule(), Limits(), root=tmp_path, sha256="ab" * 32
        )
    assert caught.value.errno is not None


def test_what_an_error_of_any_kind_becomes() -> None:
    for error in (StoreError("full", "why", "do"), UnreadableImageError("odd")):
        back = wire.error_from_json(wire.error_as_json(error))
        assert type(back) is type(error) and str(back) == str(error)
    assert isinstance(wire.error_from_json(wire.error_as_json(ZeroDivisionError("x"))),
                      UnreadableImageError)  # fmt: skip


def test_errors_that_are_causes_of_each_other_are_looked_through_once() -> None:
    """`raise e from e`, and longer rings, which once were walked for ever."""
    alone, first, second = ValueError("a"), ValueError("b"), ValueError("c")
    alone.__cause__ = alone
    first.__cause__, second.__context__ = second, first
    second.__cause__ = MemoryError()
    found: list[object] = []

    def look() -> None:
        found.extend(_too_much(error, 1_000_000) is not None for error in (alone, first, second))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(10)
    assert found == [False, True, True]


# crash, hang, memory -------------------------------------------------------------------------


@pytest.mark.usefixtures("sabotage")
@pytest.mark.parametrize("order", [b"SEGV!", b"ABRT!"])
def test_a_crash_refuses_its_file_and_nobody_else(
    pool: Readers, tmp_path: Path, order: bytes
) -> None:
    sound, bad = draw(tmp_path / "sound.png", 1), draw(tmp_path / "bad.png", 2, order)
    pool.call("read", sound)
    before = pool.process_ids()
    with pytest.raises(UnreadableImageError, match="The decoder crashed on the file") as caught:
        pool.call("read", bad)
    assert caught.value.remedy
    np.testing.assert_array_equal(pool.call("read", sound).array, picture(1))
    assert set(pool.process_ids()).isdisjoint(before)
    assert all(is_gone(pid) for pid in before)


@posix_only
def test_a_file_is_not_blamed_for_a_process_that_was_broken_before(
    pool: Readers, tmp_path: Path
) -> None:
    sound = draw(tmp_path / "sound.png", 1)
    pool.call("read", sound)
    (pid,) = pool.process_ids()
    os.kill(pid, signal.SIGSTOP)  # it takes the request and dies over it
    asking = ThreadPoolExecutor(1).submit(pool.call, "read", sound)
    time.sleep(0.3)
    os.kill(pid, signal.SIGKILL)
    np.testing.assert_array_equal(asking.result(60).array, picture(1))


@pytest.mark.usefixtures("sabotage")
@pytest.mark.parametrize("order", [b"HANG!", b"SLEEP"])
def test_a_hang_ends_at_its_time(pool: Readers, tmp_path: Path, order: bytes) -> None:
    sound, bad = draw(tmp_path / "sound.png", 1), draw(tmp_path / "bad.png", 2, order)
    pool.call("read", sound)
    (pid,) = pool.process_ids()
    with pytest.raises(UnreadableImageError, match=r"took longer than 1 s .*CNS_READ_SECONDS"):
        pool.call("read", bad, limits=Limits(read_seconds=1))
    assert is_gone(pid)
    np.testing.assert_array_equal(pool.call("read", sound).array, picture(1))


@pytest.mark.usefixtures("sabotage")
def test_what_a_decoder_prints_does_not_get_into_the_pictures(
    pool: Readers, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    noisy = draw(tmp_path / "noisy.png", 6, b"NOISE")
    np.testing.assert_array_equal(pool.call("read", noisy).array, picture(6))
    assert "libfoo" not in "".join(capfd.readouterr())


def tiff_around(data: bytes, compression: int, side: int = 64) -> bytes:
    """Return a TIFF of side x side 16-bit pixels whose one strip is `data`."""
    tags = [(256, 3, side), (257, 3, side), (258, 3, 16), (259, 3, compression), (262, 3, 1),
            (273, 4, 122), (277, 3, 1), (278, 3, side), (279, 4, len(data))]  # fmt: skip
    entries = b"".join(
        struct.pack("<HHIHH", tag, kind, 1, value, 0)
        if kind == 3
        else struct.pack("<HHII", tag, kind, 1, value)
        for tag, kind, value in tags
    )
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + data


def black_png16(side: int) -> bytes:
    """Return a 16-bit gray PNG of side x side zeros, made without holding it."""
    packer, row = zlib.compressobj(1), bytes(1 + 2 * side)
    data = b"".join([packer.compress(row) for _ in range(side)] + [packer.flush()])
    parts = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 16, 0, 0, 0, 0)), (b"IDAT", data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in [*parts, (b"IEND", b"")]
    )


@linux_only
def test_a_file_that_swells_beyond_its_limits_is_refused(pool: Readers, tmp_path: Path) -> None:
    """A TIFF that declares 64 x 64 pixels holds a PNG of 16,000 x 16,000: 512 MB."""
    bomb, sound = tmp_path / "bomb.tif", draw(tmp_path / "sound.png", 1)
    bomb.write_bytes(tiff_around(black_png16(16_000), 34933))
    limits = Limits(max_pixels=1_000_000)
    assert memory_bound(limits) < 400_000_000
    pool.call("read", sound, limits=limits)
    (pid,) = pool.process_ids()
    sizes: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            sizes.append(psutil.Process(pid).memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with pytest.raises(UnreadableImageError, match=r"takes more than 3\d\d MB of memory"):
            pool.call("read", bomb, limits=limits)
    finally:
        done.set()
        watcher.join()
    assert max(sizes) < 400_000_000
    np.testing.assert_array_equal(pool.call("read", sound).array, picture(1))


@linux_only
@pytest.mark.parametrize("operation", ["read", "sample_range", "levels"])
def test_a_small_file_may_not_take_what_the_largest_allowed_image_would(
    pool: Readers, tmp_path: Path, operation: str
) -> None:
    """The limits allow 5 GB; the header declares 64 x 64 pixels, and a PNG of 512 MB is inside."""
    bomb = tmp_path / "bomb.tif"
    bomb.write_bytes(tiff_around(black_png16(16_000), 34933))
    assert bomb.stat().st_size < 5_000_000
    more = {"page": "first"} if operation == "levels" else {}
    with pytest.raises(UnreadableImageError, match=r"takes more than [34]\d\d MB of memory"):
        pool.call(operation, bomb, **more)


@linux_only
def test_what_a_header_declares_is_room_enough(pool: Readers, tmp_path: Path) -> None:
    """Each page is allowed for by its own size, and one file's bound is not the next one's."""
    small, large = np.zeros((8, 8), np.float64), np.zeros((4000, 4000), np.float64)
    with tifffile.TiffWriter(tmp_path / "two.tif") as writer:
        for page in (small, large):
            writer.write(page, compression="zlib", photometric="minisblack")
    rule = ReadingRule(page="2", windows=(("float", 0.0, 1.0),))
    for _ in range(2):
        answer = pool.call("read", tmp_path / "two.tif", rule=rule)
        assert answer.array is not None and answer.array.shape == (4000, 4000, 3)
        pool.call("read", draw(tmp_path / "s.png", 1))


def test_a_process_that_kept_much_memory_is_replaced(
    pool: Readers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what has grown over many files: here a library that keeps 250 MB for itself."""
    folder = tmp_path / "greedy"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("kept = b'x' * 250_000_000\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    path = draw(tmp_path / "a.png", 1)
    for _ in range(2):
        np.testing.assert_array_equal(pool.call("read", path).array, picture(1))
        assert pool.process_ids() == []
    monkeypatch.delenv("PYTHONPATH")
    pool.call("read", path)
    (pid,) = pool.process_ids()
    pool.call("read", path)
    assert pool.process_ids() == [pid]  # a slender one stays


# life and death ------------------------------------------------------------------------------


@posix_only
@pytest.mark.usefixtures("sabotage")
@pytest.mark.parametrize("order", [b"", b"SLEEP", b"HANG!"], ids=["idle", "at work", "hanging"])
def test_no_process_outlives_its_app(tmp_path: Path, order: bytes) -> None:
    code = """
        import sys, threading
        from pathlib import Path
        from cnsapp.imaging import isolated
        from cnsapp.imaging.limits import Limits
        isolated.read_image(Path(sys.argv[1]))
        print(*isolated.readers().process_ids(), flush=True)
        isolated.read_image(Path(sys.argv[2]), limits=Limits(read_seconds=float(sys.argv[3])))
        threading.Event().wait()
    """
    files = [draw(tmp_path / "sound.png"), draw(tmp_path / "other.png", 0, order)]
    seconds = 4 if order == b"HANG!" else 600  # then only an alarm of its own can end it
    app = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, files), str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with app:
        assert app.stdout is not None
        pid = int(app.stdout.readline())
        time.sleep(1)
        assert not is_gone(pid)
        app.kill()
    assert soon(lambda: is_gone(pid))


@posix_only
def test_ctrl_c_in_the_terminal_is_for_the_app(pool: Readers, tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png", 1)
    pool.call("read", path)
    (pid,) = pool.process_ids()
    assert os.getpgid(pid) != os.getpgid(0)
    os.kill(pid, signal.SIGINT)
    pool.call("read", path)
    assert pool.process_ids() == [pid]


def test_processes_are_started_late_shared_and_used_again(pool: Readers, tmp_path: Path) -> None:
    assert pool.process_ids() == []
    paths = [draw(tmp_path / f"{n}.png", n) for n in range(40)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda path: pool.call("read", path), paths))
    for n, answer in enumerate(answers):
        np.testing.assert_array_equal(answer.array, picture(n))
    assert len(pool.process_ids()) <= 2
    known = set(pool.process_ids())
    for path in paths[:5]:
        pool.call("read", path)
    assert set(pool.process_ids()) <= known
    pool.close()
    assert soon(lambda: all(is_gone(pid) for pid in known))


@pytest.mark.usefixtures("sabotage")
def test_many_threads_and_a_bad_file_among_their_files(pool: Readers, tmp_path: Path) -> None:
    orders = {7: b"SEGV!", 13: b"ABRT!", 21: b"SEGV!"}
    paths = [draw(tmp_path / f"{n}.png", n, orders.get(n, b"")) for n in range(30)]

    def read(path: Path) -> Any:
        try:
            return pool.call("read", path).array
        except UnreadableImageError as error:
            return error.what

    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(read, paths))
    for n, outcome in enumerate(found):
        if n in orders:
            assert outcome == "The decoder crashed on the file."
        else:
            np.testing.assert_array_equal(outcome, picture(n))


def test_a_process_that_cannot_start_is_said_in_words(
    pool: Readers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "broken"
    (folder / "PIL").mkdir(parents=True)
    (folder / "PIL" / "__init__.py").write_text("raise ImportError('no Pillow today')")
    (folder / "sitecustomize.py").write_text(f"import sys; sys.path.insert(0, {str(folder)!r})")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    with pytest.raises(StoreError, match=r"cannot be started .*no Pillow today"):
        pool.call("read", draw(tmp_path / "a.png"))
    assert pool.process_ids() == []


# in the app ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("sabotage")
def test_an_import_skips_the_file_that_crashes_and_keeps_the_order(
    app: App, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    orders = {3: b"SEGV!", 8: b"HANG!", 11: b"ABRT!"}
    for n in range(16):
        draw(source / f"tile_{n:02}.png", n, orders.get(n, b""))
    project = projects.create_project(app.store, name="p").id
    quick = App(app.settings.model_copy(update={"read_seconds": 2.0}), app.store)
    report = import_folder(quick, project_id=project, path=source)
    assert (report.found, report.imported) == (16, 13)
    crashed = "The decoder crashed on the file."
    assert [(s.file, s.reason) for s in report.skipped] == [
        ("tile_03.png", crashed),
        ("tile_08.png", "Decoding the file took longer than 2 s and was stopped."),
        ("tile_11.png", crashed),
    ]
    page = images.list_images(app.store, project_id=project, limit=100)
    names = [f"tile_{n:02}.png" for n in range(16) if n not in orders]
    assert sorted(item.name for item in page.items) == names
    ids = {item.name: item.id for item in page.items}
    assert sorted(ids, key=lambda name: ids[name]) == names
    left = [p.name for p in app.store.path("images").rglob("*") if p.is_file()]
    assert len(left) == 13
    assert len(list(app.store.path("thumbs").rglob("*.jpg"))) == 13


@pytest.mark.parametrize("size", [(7000, 3301), (1777, 6411), (40, 7000), (3300, 3300), (1700, 9)])
def test_a_large_scan_is_shrunk_in_strips_as_pillow_does_it_whole(size: tuple[int, int]) -> None:
    from cnsapp.imaging.thumbs import VIEW_SIDE, _shrunk_pixels

    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    whole = Picture.fromarray(pixels)
    scale = VIEW_SIDE / max(size)
    expected = whole.resize(
        (max(1, round(width * scale)), max(1, round(height * scale))),
        Picture.Resampling.BICUBIC,
        reducing_gap=2.0,
    )
    np.testing.assert_array_equal(np.asarray(_shrunk_pixels(pixels, VIEW_SIDE)), expected)
