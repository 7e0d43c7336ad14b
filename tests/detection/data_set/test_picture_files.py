"""Pictures before a run: missing, unlike what is listed, damaged, none at all; and the pixels of both data paths."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from nvidia.dali import fn, pipeline_def, types
from PIL import Image

from benchmarks.detection.data_path.pictures import Picture, decoded
from benchmarks.detection.data_set import picture_files, picture_forms
from benchmarks.detection.data_set.picture_files import Listed, check, fault


def photograph(mode: str = "RGB") -> Image.Image:
    """64 x 48, of a gradient and noise."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 60, (48, 64, 3)) + np.linspace(0, 190, 64)[None, :, None]
    picture = Image.fromarray(pixels.astype(np.uint8))
    if mode in {"RGBA", "LA"}:
        picture.putalpha(Image.linear_gradient("L").resize((64, 48)))
        return picture if mode == "RGBA" else picture.convert("LA")
    return picture.convert(mode)


def encoded(form: str, mode: str = "RGB", **how: object) -> bytes:
    file = io.BytesIO()
    photograph(mode).save(file, form, **how)  # type: ignore[arg-type]
    return file.getvalue()


def png16(channels: int) -> tuple[bytes, npt.NDArray[np.uint16]]:
    """A PNG file of 16 bits a channel, which Pillow writes in grey alone, and what it holds."""
    pixels = np.random.default_rng(channels).integers(0, 2**16, (48, 64, channels), dtype=np.uint16)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", 64, 48, 16, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""),
        pixels,
    )


def by_dali(path: Path) -> npt.NDArray[np.uint8]:
    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def graph() -> object:
        files, _ = fn.readers.file(files=[str(path)])
        return fn.decoders.image(
            files, device="cpu", output_type=types.RGB, adjust_orientation=False, jpeg_fancy_upsampling=True
        )

    pipe = graph()
    pipe.build()
    found: npt.NDArray[np.uint8] = np.array(pipe.run()[0].at(0))
    return found


def by_torch(path: Path) -> npt.NDArray[np.uint8]:
    pixels = decoded(Picture(1, path, np.empty((0, 4), dtype=np.float32), np.empty(0, dtype=np.int64)))
    assert pixels.dtype == torch.uint8
    return pixels.permute(1, 2, 0).numpy()


def bmp_of_5_bits() -> bytes:
    """A BMP file of 16 bits a pixel, which Pillow reads and does not write."""
    header = struct.pack("<IiiHHIIiiII", 40, 64, 48, 1, 16, 0, 64 * 48 * 2, 0, 0, 0, 0)
    pixels = np.random.default_rng(5).integers(0, 2**15, 64 * 48, dtype=np.uint16).astype("<u2").tobytes()
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + header + pixels


def tiff_of_a_colour_and_a_byte() -> bytes:
    """Grey, and beside each pixel a byte that says nothing: pixels of 2 bytes."""
    pixels = np.random.default_rng(6).integers(0, 255, 64 * 48 * 2, dtype=np.uint8).tobytes()
    tags = [
        (256, 64),
        (257, 48),
        (258, 8 | 8 << 16),
        (259, 1),
        (262, 1),
        (273, 0),
        (277, 2),
        (278, 48),
        (279, len(pixels)),
    ]
    tags.append((338, 0))
    begin = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(
        struct.pack("<HHII", tag, 3 if tag == 258 else 4, 1 + (tag == 258), begin if tag == 273 else value)
        for tag, value in tags
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + pixels


PACKED = ("packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "zstd")
LEVELS = np.asarray(photograph()).tobytes()
LET_THROUGH: dict[str, bytes] = {
    "rgb.jpg": encoded("JPEG"),
    "progressive.jpg": encoded("JPEG", progressive=True),
    "grey.jpg": encoded("JPEG", "L"),
    "cmyk.jpg": encoded("JPEG", "CMYK"),
    "called.jpg": encoded("PNG"),
    "grey.png": encoded("PNG", "L"),
    "alpha.png": encoded("PNG", "RGBA"),
    "grey alpha.png": encoded("PNG", "LA"),
    "palette.png": encoded("PNG", "P"),
    "palette with a hole.png": encoded("PNG", "P", transparency=3),
    "1 bit.png": encoded("PNG", "1"),
    **{f"16 bits {channels}.png": png16(channels)[0] for channels in (1, 2, 3, 4)},
    "rgb.webp": encoded("WEBP", lossless=True),
    "rgb.bmp": encoded("BMP"),
    "rgb.tif": encoded("TIFF"),
    **{f"turned {turn}.tif": encoded("TIFF", tiffinfo={274: turn}) for turn in range(2, 9)},
    **{f"{packed}.tif": encoded("TIFF", compression=packed) for packed in PACKED},
    "white is 0.tif": encoded("TIFF", "L", tiffinfo={262: 0}),
    "rgb.jp2": encoded("JPEG2000"),
    "grey.jp2": encoded("JPEG2000", "L"),
    "bare.jp2": encoded("JPEG2000", no_jp2=True),
    "rgb.ppm": encoded("PPM"),
    "padded.jpg": encoded("JPEG") + bytes(5000),
}


@pytest.mark.parametrize("name", LET_THROUGH)
def test_what_is_let_through_comes_out_the_same_from_both_data_paths(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(LET_THROUGH[name])
    assert check(tmp_path, [Listed(name, 64, 48)], tmp_path / "x.json", ignore).not_for_dali == []
    assert np.array_equal(by_dali(path), by_torch(path))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_a_channel_are_rounded_to_8(channels: int, tmp_path: Path) -> None:
    content, pixels = png16(channels)
    (tmp_path / "a.png").write_bytes(content)
    colours = pixels[..., :3] if channels > 2 else np.repeat(pixels[..., :1], 3, axis=2)
    assert np.array_equal(by_torch(tmp_path / "a.png"), np.rint(colours / 257))


@pytest.mark.parametrize("name", [name for name in LET_THROUGH if name != "cmyk.jpg"])
def test_a_panel_shows_the_pixels_that_were_seen(name: str, tmp_path: Path) -> None:
    """Of grey in 16 bits the picture at a run's end was white."""
    (tmp_path / name).write_bytes(LET_THROUGH[name])
    with Image.open(tmp_path / name) as picture:
        shown = np.asarray(picture_forms.as_stored(picture).convert("RGB")).astype(int)
    assert np.abs(shown - by_torch(tmp_path / name)).max() <= 2


JPEG, PNG = encoded("JPEG"), encoded("PNG")
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "html": (b"<html>403 Forbidden</html>", "an HTML page"),
    "doctype": (b"\n  <!DOCTYPE html><p>", "an HTML page"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML page"),
    "json": (b'{"error": 5}', "JSON"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
    "zeros": (bytes(3000), "zeros"),
    "newline": (b"\n" + JPEG, "behind white space"),
    "jpeg cut off": (JPEG[: len(JPEG) * 2 // 3], "cut off"),
    "jpeg without its end": (JPEG[:-2], "cut off"),
    "jpeg header": (JPEG[:100], "cut off or damaged in its header"),
    "png cut off": (PNG[: len(PNG) // 2], "cut off"),
    "webp cut off": (encoded("WEBP")[:-50], "cut off"),
    "gif": (encoded("GIF"), "a GIF file; convert it"),
    "gif header": (b"GIF89a" + bytes(20), "a GIF file cut off"),
    "avif": (encoded("AVIF"), "an AVIF file; convert it"),
    "cmyk tiff": (encoded("TIFF", "CMYK"), "colours CMYK; convert it"),
    "text": (b"not a picture", "begins with the bytes 6e 6f 74"),
}


NOT_FOR_DALI: dict[str, tuple[bytes, str]] = {  # which makes other pixels of them, or none
    "bmp of 5 bits": (bmp_of_5_bits(), "a BMP file of a rare form (BGR;15)"),
    "levels to 100": (b"P6 64 48 100 " + LEVELS, "a PPM file of a rare form"),
    "text of levels": (b"P3 64 48 255 " + b" ".join(b"%d" % each for each in LEVELS), "a PPM file of a rare form"),
    "grey and a byte": (tiff_of_a_colour_and_a_byte(), "a TIFF file of a rare form (LX)"),
    "tiff packed otherwise": (encoded("TIFF", compression="lzma"), "a TIFF file of a rare form (lzma)"),
    "jp2 of other colours": (encoded("JPEG2000", "YCbCr"), "a JPEG2000 file of a rare form (other colours)"),
}


@pytest.mark.parametrize("name", NOT_FOR_DALI)
def test_of_a_rare_form_is_told_and_what_needs_no_dali_reads_it(name: str, tmp_path: Path) -> None:
    """`detect` and runs without DALI were refused what they had read."""
    content, says = NOT_FOR_DALI[name]
    (tmp_path / "x").write_bytes(content)
    assert fault(tmp_path / "x") is None
    assert by_torch(tmp_path / "x").shape == (48, 64, 3)
    (told,) = check(tmp_path, [Listed("x", 64, 48)], tmp_path / "x.json", ignore).not_for_dali
    assert told.startswith(f"x: {says}")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_whole_picture_is_named_with_what_it_is(name: str, tmp_path: Path) -> None:
    content, says = REFUSED[name]
    (tmp_path / "x.jpg").write_bytes(content)
    assert says in (fault(tmp_path / "x.jpg") or "")


@pytest.mark.filterwarnings("ignore:Image size")
def test_a_decompression_bomb_is_not_decoded(tmp_path: Path) -> None:
    """20,000 x 20,000 px of one colour in 50 kB: 1.2 GB decoded."""
    content = bytearray(encoded("PNG"))
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    (tmp_path / "x.png").write_bytes(content)
    assert "178,956,970 px, expected 89,478,485 at most" in (fault(tmp_path / "x.png") or "")
    content[16:24] = struct.pack(">II", 10_000, 10_000)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    (tmp_path / "x.png").write_bytes(content)
    assert "10000 x 10000 px, expected 89,478,485 px at most" in (fault(tmp_path / "x.png") or "")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    assert fault(tmp_path / "pipe.jpg") == "not a file"
    assert "cannot be read" in (fault(tmp_path / "gone.jpg") or "")
    assert fault(tmp_path / "folder.jpg") is not None


@pytest.mark.filterwarnings("ignore")  # Pillow's, of what it finds odd
@pytest.mark.parametrize("count", [300, pytest.param(2_000, marks=pytest.mark.long)])
def test_whatever_the_bytes_there_is_an_answer(count: int, tmp_path: Path) -> None:
    rng, path = random.Random(count), tmp_path / "x.jpg"
    sources = [
        *LET_THROUGH.values(),
        *(content for content, _ in [*REFUSED.values(), *NOT_FOR_DALI.values()] if content),
    ]
    for _ in range(count):
        content = bytearray(rng.choice(sources))
        for _ in range(rng.choice([1, 2, 5, 20])):
            content[rng.randrange(rng.choice([min(30, len(content)), len(content)]))] = rng.choice(
                [0, 255, rng.randrange(256)]
            )
        path.write_bytes(content[: rng.choice([len(content), rng.randrange(1, len(content) + 1)])])
        said = [fault(path), picture_files.first_damaged(tmp_path, [path.name])]
        assert all(each is None or isinstance(each, str) for each in said)
        try:
            assert by_torch(path).dtype == np.uint8
        except RuntimeError as error:
            assert str(error).startswith(f"{path}: ")


# --- a PNG file is read to its end --------------------------------------------------------------------------------------


PNGS = [name for name, content in LET_THROUGH.items() if content.startswith(b"\x89PNG")]


def pixels_begin(content: bytes) -> tuple[int, int]:
    """Where the first part of a PNG file's compressed pixels begins and ends."""
    name = content.index(b"IDAT")
    return name + 4, name + 4 + int.from_bytes(content[name - 4 : name], "big")


@pytest.mark.parametrize("name", PNGS)
def test_a_flipped_bit_is_found_by_the_check_and_ends_no_process(name: str, tmp_path: Path) -> None:
    """torchvision 0.29.1 answers each of these with SIGSEGV. Of the file's last part the checksum alone may be wrong."""
    good, rng, path = LET_THROUGH[name], random.Random(name), tmp_path / "x.png"
    begin, end = pixels_begin(good)
    for place in (begin, end - 1, end, *(rng.randrange(8, len(good) - 12) for _ in range(20))):
        content = bytearray(good)
        content[place] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        assert "damaged" in (fault(path) or ""), place
        assert (picture_files.first_damaged(tmp_path, [path.name]) or "").startswith(f"{path}: "), place
        with pytest.raises(RuntimeError, match=r"x\.png: .*damaged"):
            by_torch(path)


@pytest.mark.parametrize("lines", [b"", b"\0" * 40, b"\7" * (48 * (3 * 64 + 1))], ids=["none", "few", "filter"])
def test_what_was_written_wrong_has_right_checksums_and_is_named_when_it_is_decoded(
    lines: bytes, tmp_path: Path
) -> None:
    def part(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = PNG[: PNG.index(b"IDAT") - 4]
    (tmp_path / "x.png").write_bytes(head + part(b"IDAT", zlib.compress(lines)) + part(b"IEND", b""))
    with pytest.raises(RuntimeError, match=r"x\.png: .*damaged"):
        by_torch(tmp_path / "x.png")
    assert (picture_files.first_damaged(tmp_path, ["x.png"]) or "").startswith(f"{tmp_path / 'x.png'}: ")


@pytest.mark.filterwarnings("error")
def test_transparency_is_left_out_without_a_word(tmp_path: Path) -> None:
    photograph("P").save(tmp_path / "x.png", transparency=bytes(range(256)))
    assert np.array_equal(by_torch(tmp_path / "x.png"), np.asarray(photograph("P").convert("RGB")))


# --- a folder of them ------------------------------------------------------------------------------------------------


def ignore(what: str, done: int, total: int) -> None:
    pass


def folder_of(tmp_path: Path, count: int) -> tuple[Path, list[Listed]]:
    names = [f"{'in/' if i % 2 else ''}{i:03}.jpg" for i in range(count)]
    for name in names:
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / name).write_bytes(JPEG)
    return tmp_path / "train", [Listed(name, 64, 48) for name in names]


def test_a_whole_folder_passes_and_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    folder, listed = folder_of(tmp_path, 6)
    check(folder, listed, Path("x.json"), lambda _, done, total: told.append((done, total)))
    assert told[-1] == (6, 6)


def test_what_is_there_may_go_while_they_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool's own, of miniatures say; and each link is a way to its files, whatever leads there besides."""
    folder_of(tmp_path, 4)
    for name in ("one", "other"):
        (tmp_path / "train" / name).symlink_to("in")
    (tmp_path / "train" / "gone").mkdir()
    (tmp_path / "train" / ".000.jpg.x7 gone").touch()
    stat = os.stat

    def racing(path: str, **how: bool) -> os.stat_result:
        if str(path).endswith("gone"):
            raise FileNotFoundError(path)
        return stat(path, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", racing)
    inside = [f"{at}/{name}.jpg" for at in ("in", "one", "other") for name in ("001", "003")]
    assert sorted(name for name, _ in picture_files.files(tmp_path / "train")) == ["000.jpg", "002.jpg", *inside]


def test_links_out_of_the_data_and_to_one_another_have_an_end(tmp_path: Path) -> None:
    """A link to the folder above made the check's own files a part of the data, and eight folders had 8! ways through them."""
    folder, others = tmp_path / "data" / "val", tmp_path / "others"
    folder.mkdir(parents=True)
    (tmp_path / "data" / "cache").write_text("what is no part of the data")
    for name in "abcdefgh":
        (others / name).mkdir(parents=True)
        (others / name / "x.jpg").touch()
        (folder / name).symlink_to(others / name)
        for other in "abcdefgh":
            (others / name / other).symlink_to(others / other)
    (folder / "in").mkdir()
    for number, target in enumerate((folder, tmp_path / "data", tmp_path, folder / "in", Path("/"))):
        (folder / "in" / f"{number}").symlink_to(target)
    elsewhere = tmp_path / "by another name"
    elsewhere.mkdir()
    (elsewhere / "val").symlink_to(folder)
    (folder / "back").symlink_to(elsewhere)
    for each in (folder, elsewhere / "val"):
        assert sorted(name for name, _ in picture_files.files(each)) == [f"{name}/x.jpg" for name in "abcdefgh"]


SPOIL: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: path.unlink(), r"train lacks what x\.json lists: 002\.jpg"),
    (lambda path: path.write_bytes(b""), r"train: 002\.jpg: empty"),
    (lambda path: path.write_bytes(encoded("GIF")), r"train: 002\.jpg: a GIF file"),
]


@pytest.mark.parametrize(("spoil", "says"), SPOIL)
def test_the_one_bad_file_is_named(spoil: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    folder, listed = folder_of(tmp_path, 6)
    spoil(folder / "002.jpg")
    with pytest.raises(ValueError, match=says):
        check(folder, listed, Path("x.json"), ignore)


@pytest.mark.parametrize(("listed", "there"), [("é.jpg", "e\u0301.jpg"), ("A.JPG", "a.jpg")])
def test_a_name_that_looks_alike_is_shown_by_its_letters(listed: str, there: str, tmp_path: Path) -> None:
    """An archive made on another system: the accent became a letter of its own, or capitals were lost."""
    (tmp_path / there).write_bytes(JPEG)
    with pytest.raises(ValueError, match="lacks what") as refused:
        check(tmp_path, [Listed(listed, 64, 48)], Path("x.json"), ignore)
    assert f"(there is {there!a}, not {listed!a})" in str(refused.value)


def test_the_first_ten_are_named(tmp_path: Path) -> None:
    folder, listed = folder_of(tmp_path, 30)
    with pytest.raises(ValueError, match=r"001\.jpg; and 14 more:\n(.*\n){9}.*15 in all") as refused:
        check(folder, listed[::2] + [Listed(f"in/x{i:03}.jpg", 1, 1) for i in range(1, 16)], Path("x.json"), ignore)
    assert "lacks what" in str(refused.value)


def test_a_size_that_is_another_than_listed(tmp_path: Path) -> None:
    folder, listed = folder_of(tmp_path, 4)
    turned = [Listed(listed[0].name, 48, 64), Listed(listed[1].name, 65, 48), *listed[2:]]
    with pytest.raises(ValueError, match=r"000\.jpg: is 64 x 48 px, listed as 48 x 64: .*EXIF") as refused:
        check(folder, turned, Path("x.json"), ignore)
    assert "in/001.jpg: is 64 x 48 px, listed as 65 x 48" in str(refused.value)


def test_a_turned_tiff_is_as_large_as_it_is_stored(tmp_path: Path) -> None:
    """Pillow turns it as it reads it, and alone: boxes of what a tool saw by Pillow were of other pixels than DALI's."""
    (tmp_path / "x.tif").write_bytes(LET_THROUGH["turned 6.tif"])
    assert "listed as 48 x 64: a tool turned it" in (fault(tmp_path / "x.tif", Listed("x.tif", 48, 64)) or "")
    sizes = picture_files.faults_and_sizes(tmp_path, ["x.tif"], "", ignore)
    assert list(sizes) == [("x.tif", None, (64, 48))]


def test_the_first_that_pillow_cannot_decode_is_found(tmp_path: Path) -> None:
    folder, listed = folder_of(tmp_path, 6)
    names = [each.name for each in listed]
    assert picture_files.first_damaged(folder, names) is None
    (folder / "004.jpg").write_bytes(JPEG[:-200])
    assert (picture_files.first_damaged(folder, names) or "").startswith(f"{folder / '004.jpg'}: cut off")


@pytest.mark.parametrize(
    ("form", "mode", "how", "decoders"),
    [
        ("JPEG", "RGB", {}, "baseline"),
        ("JPEG", "RGB", {"subsampling": 0}, "baseline"),
        ("JPEG", "L", {}, "baseline"),
        ("JPEG", "RGB", {"progressive": True}, "jpeg"),
        ("JPEG", "L", {"progressive": True}, "jpeg"),
        ("JPEG", "CMYK", {}, "jpeg"),
        ("PNG", "RGB", {}, "other"),
    ],
)
def test_a_gpu_s_engines_decode_baseline_jpeg_files(
    form: str, mode: str, how: dict[str, object], decoders: str, tmp_path: Path
) -> None:
    photograph(mode).save(tmp_path / "x", form, **how)  # type: ignore[arg-type]
    looked = check(tmp_path, [Listed("x", 64, 48)], tmp_path / "x.json", ignore)
    assert looked.forms == [decoders] and not looked.not_for_dali
