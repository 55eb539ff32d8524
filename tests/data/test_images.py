"""Pictures of every kind, decoded as they are meant to be shown; whatever cannot be, refused by name."""

from __future__ import annotations

import io
import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from pydicom import dcmread
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)

from medfocus_bench.data.images import (
    decode_levels,
    decode_uint8,
    header_size,
    picture_at,
    picture_size,
    read_picture,
)
from medfocus_bench.data.pixels import PictureError, check_size
from medfocus_bench.errors import PictureWarning
from tests.data.source_trees import (
    DICOM_KINDS,
    compressed,
    lossless_jpeg,
    new_dicom,
    own_range,
    phantom_question,
    save,
    store,
    write_dicom,
)


def picture(height: int = 40, width: int = 52) -> np.ndarray:
    rng = np.random.default_rng(3)
    ramp = np.linspace(0, 200, width)[None, :] + np.linspace(0, 40, height)[:, None]
    return (ramp + rng.integers(0, 15, (height, width))).astype(np.uint8)


@pytest.mark.parametrize("kind", DICOM_KINDS)
def test_a_dicom_is_shown_as_its_header_asks(tmp_path: Path, kind: str) -> None:
    """Trap 31: rescale (also an empty one), window or table, then the inversion; all transfer syntaxes."""
    path = tmp_path / "a.dicom"
    shown = write_dicom(path, kind, picture())
    assert picture_size(path) == (52, 40)
    found = read_picture(path)
    assert found.dtype == np.uint8
    lossy = 2 if kind == "jpeg-baseline" else 1  # decoders of baseline JPEG may differ by a level
    np.testing.assert_allclose(found.astype(int), shown.astype(int), atol=lossy)
    assert len(np.unique(found)) > 20


def test_windowing_after_the_inversion_would_show() -> None:
    """The MONOCHROME1 fixture is not blind to the order of the steps."""
    dataset, shown = DICOM_KINDS["inverted"](picture())
    stored = np.frombuffer(dataset.PixelData, "<u2").reshape(40, 52).astype(float)
    swapped = np.clip((4000 + 4000 - 15 * 255 - stored - 2999.5) / 1999 + 0.5, 0, 1)
    assert np.abs(np.round(swapped * 255) - shown).mean() > 30


def test_bright_stays_bright_in_either_photometric_interpretation(tmp_path: Path) -> None:
    for kind in ("explicit", "inverted"):
        write_dicom(tmp_path / kind, kind, picture())
        found = read_picture(tmp_path / kind)
        assert found[:, -5:].mean() > found[:, :5].mean() + 50, kind


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_each_window_function_is_that_of_the_standard(tmp_path: Path, function: str) -> None:
    stored = np.arange(0, 4000, 10, dtype=np.uint16).reshape(20, 20)
    dataset = new_dicom(stored)
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = "2000", "1000", function
    store(tmp_path / "a.dcm", dataset)
    x = stored.astype(float)
    expected = {
        "LINEAR": (x - 1999.5) / 999 + 0.5,
        "LINEAR_EXACT": (x - 2000) / 1000 + 0.5,
        "SIGMOID": 1 / (1 + np.exp(-4 * (x - 2000) / 1000)),
    }[function]
    np.testing.assert_allclose(read_picture(tmp_path / "a.dcm"), np.clip(expected, 0, 1) * 255, atol=0.6)


def test_an_empty_window_counts_as_none(tmp_path: Path) -> None:
    dataset, shown = DICOM_KINDS["explicit"](picture())
    dataset.WindowCenter, dataset.WindowWidth = "", ""
    store(tmp_path / "a.dcm", dataset)
    np.testing.assert_allclose(read_picture(tmp_path / "a.dcm"), shown, atol=1)


def test_a_colour_photograph_becomes_grey(tmp_path: Path) -> None:
    image = picture()
    dataset = new_dicom(image, bits=8)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = np.repeat(image[:, :, None], 3, axis=2).tobytes()
    store(tmp_path / "a.dcm", dataset)
    np.testing.assert_allclose(read_picture(tmp_path / "a.dcm"), image, atol=1)


def test_sixteen_bits_are_scaled_by_their_own_range(tmp_path: Path) -> None:
    deep = picture().astype(np.uint16) * 9 + 700
    save(tmp_path / "a.png", deep)
    np.testing.assert_allclose(read_picture(tmp_path / "a.png"), np.round(own_range(deep) * 255), atol=1)


def test_eight_bits_are_kept_as_they_are(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture() // 2 + 20)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), picture() // 2 + 20)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA"])
def test_other_kinds_of_png_become_the_same_grey(tmp_path: Path, mode: str) -> None:
    Image.fromarray(picture()).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), picture())


def test_few_levels_are_read_with_a_warning_that_names_the_file_once(tmp_path: Path) -> None:
    """Two levels do not make a radiograph, nor do the 15 of 12 bits in the place of 16."""
    path = tmp_path / "a.png"
    Image.fromarray(picture()).convert("1").save(path)
    with pytest.warns(PictureWarning, match=re.escape(f"{path}: is shown in 2 grey levels")):
        found = read_picture(path)
    assert set(np.unique(found)) == {0, 255}
    np.testing.assert_array_equal(read_picture(path), found)  # a second warning would be an error here


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_blank_picture_is_an_error_that_names_the_file(tmp_path: Path, level: int) -> None:
    path = save(tmp_path / "a.png", np.full((40, 52), level, dtype=np.uint8))
    with pytest.raises(PictureError, match=re.escape(f"{path}: is blank")):
        read_picture(path)
    assert decode_levels(path.read_bytes(), place="a mask").tolist() == [[level] * 52] * 40


TURNED = {
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).T,
    8: np.rot90,
}
"""The view of each orientation (EXIF 2.3, 4.6.4, tag 0x0112)."""


def turned_file(orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    deep = picture().astype(np.uint16) * 257
    Image.fromarray(deep if kind == "PNG16" else picture()).save(
        file, kind[:4].strip("1"), exif=exif, quality=100
    )
    return file.getvalue()


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PNG16"])
def test_a_picture_is_turned_as_its_exif_data_say(tmp_path: Path, kind: str, orientation: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(turned_file(orientation, kind))
    stored = picture() if kind != "PNG16" else np.round(own_range(picture()) * 255)
    expected = TURNED[orientation](stored).astype(int)
    found = read_picture(path)
    np.testing.assert_allclose(found.astype(int), expected, atol=2 if kind == "JPEG" else 0)
    assert picture_size(path) == found.shape[::-1]
    assert header_size(path.read_bytes()) == found.shape[::-1]


def test_exif_data_behind_the_pixels_of_a_png_count_too() -> None:
    data = turned_file(6, "PNG")
    place = data.index(b"eXIf") - 4
    length = 12 + int.from_bytes(data[place : place + 4], "big")
    chunk, rest = data[place : place + length], data[:place] + data[place + length :]
    end = rest.index(b"IEND") - 4
    late = rest[:end] + chunk + rest[end:]
    assert header_size(late) == (40, 52)
    np.testing.assert_array_equal(decode_uint8(late, place="a"), np.rot90(picture(), -1))


@pytest.mark.parametrize("damage", ["nonsense", "orientation 9", "orientation 0"])
def test_damaged_exif_data_turn_nothing(damage: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = int(damage[-1]) if damage[-1].isdigit() else 1
    data = b"Exif\0\0nonsense" if damage == "nonsense" else exif.tobytes()
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, "JPEG", exif=data, quality=100)
    assert header_size(file.getvalue()) == (52, 40)
    np.testing.assert_allclose(
        decode_uint8(file.getvalue(), place="a").astype(int), picture().astype(int), atol=2
    )


def deep_png(values: np.ndarray) -> bytes:
    """A PNG with 16 bits a channel; `values` (height, width, channels): grey and alpha, RGB, or RGBA."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in chunks)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("bits", [12, 16])
def test_sixteen_bits_of_colour_or_with_alpha_are_scaled_as_grey_ones(channels: int, bits: int) -> None:
    """12 bits in 16 were near black: only the high byte of each channel was looked at."""
    grey = picture().astype(np.int64) * (16 if bits == 12 else 256) + 100
    values = np.repeat(grey[:, :, None], channels, axis=2)
    if channels != 3:
        values[..., -1] = 65_535
    found = decode_uint8(deep_png(values), place="a")
    np.testing.assert_allclose(found, own_range(grey) * 255, atol=0.51)


def test_colours_of_sixteen_bits_count_by_their_luma() -> None:
    values = np.random.default_rng(1).integers(0, 65_536, (40, 52, 3))
    found = decode_uint8(deep_png(values), place="a")
    luma = (values @ np.array([299, 587, 114])) // 1000
    np.testing.assert_allclose(found, own_range(luma) * 255, atol=0.51)


@pytest.mark.parametrize("kind", ["LA", "RGBA", "palette", "LA16", "RGBA16"])
def test_what_is_transparent_is_black_whatever_colour_it_hides(kind: str) -> None:
    grey, clear = picture() // 2 + 100, np.zeros((40, 52), dtype=bool)
    clear[:, :10] = True
    expected = np.where(clear, 0, grey)
    if kind.endswith("16"):
        deep = np.repeat(grey[:, :, None].astype(np.int64) * 16, 2 if kind == "LA16" else 4, axis=2)
        deep[clear] = 60_000  # hidden, so no part of the range either
        deep[..., -1] = np.where(clear, 0, 65_535)
        data = deep_png(deep)
        expected = np.where(clear, 0, own_range(np.where(clear, grey[~clear].min(), grey)) * 255)
    else:
        file = io.BytesIO()
        image = Image.fromarray(np.where(clear, 255, grey).astype(np.uint8))
        if kind == "palette":
            image.convert("P").save(file, "PNG", transparency=255)
        else:
            both = image.convert(kind)
            both.putalpha(Image.fromarray(np.where(clear, 0, 255).astype(np.uint8)))
            both.save(file, "PNG")
        data = file.getvalue()
    np.testing.assert_allclose(decode_uint8(data, place="a"), expected, atol=0.51)


@pytest.mark.parametrize("outlier", [65_535, 0])
def test_one_outlier_does_not_darken_a_picture_of_sixteen_bits(tmp_path: Path, outlier: int) -> None:
    deep = picture().astype(np.uint16) * 16 + 20_000
    deep[3, 4] = outlier
    save(tmp_path / "a.png", deep)
    rest = np.ones(deep.shape, dtype=bool)
    rest[3, 4] = False
    np.testing.assert_allclose(read_picture(tmp_path / "a.png")[rest], own_range(deep[rest]) * 255, atol=4)


def test_an_error_of_the_library_names_the_picture_and_no_place_in_memory() -> None:
    for data in (b"", b"nothing", turned_file(1, "PNG")[:20], b"\x89PNG\r\n\x1a\n" + bytes(40)):
        with pytest.raises(PictureError, match=r"^the picture: ") as caught:
            decode_uint8(data, place="the picture")
        assert "0x" not in str(caught.value)


def test_a_png_of_very_many_chunks_is_refused_before_any_is_looked_at() -> None:
    data = turned_file(1, "PNG")
    stuffed = data[:33] + png_chunk(b"teSt", b"") * 100_001 + data[33:]
    with pytest.raises(PictureError, match="more than 100,000 chunks"):
        decode_uint8(stuffed, place="a")


def test_the_bound_of_decoded_bytes_counts_the_channels() -> None:
    """80 million pixels are read of grey, and not of four channels of 16 bits: 640 MB."""
    check_size(10_000, 8_000, place="a", depth=4)
    data = deep_png(np.zeros((1, 1, 4), dtype=np.int64))
    large = data[:16] + struct.pack(">II", 10_000, 8_000) + data[24:29] + bytes(4) + data[33:]
    fixed = large[:29] + struct.pack(">I", zlib.crc32(large[12:29])) + large[33:]
    with pytest.raises(PictureError, match="10000 x 8000 pixels of 8 bytes; at most 384 MiB are decoded"):
        decode_uint8(fixed, place="a")


def test_the_real_radiographs_are_read(real_data: Path) -> None:
    for name in ("00000001_000.png", "00027426_000.png"):
        path = real_data / "cxr" / name
        assert picture_size(path) == (512, 512)
        assert 30 < read_picture(path).mean() < 220


def png_chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png_bomb(width: int, height: int) -> bytes:
    """A sound PNG of that size, all black: a thousandth of what it unpacks to."""

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    chunks = (b"IHDR", header), (b"IDAT", data), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, part) for kind, part in chunks)


def no_pixels(path: Path) -> None:
    dataset = new_dicom(picture())
    del dataset.PixelData
    store(path, dataset)


def truncated_pixels(path: Path) -> None:
    dataset = new_dicom(picture())
    dataset.PixelData = dataset.PixelData[:200]
    store(path, dataset)


def cut_short(path: Path) -> None:
    write_dicom(path, "explicit", picture())
    path.write_bytes(path.read_bytes()[:600])


def absurd_size(path: Path) -> None:
    dataset = new_dicom(picture())
    dataset.Rows, dataset.Columns = 65_000, 65_000
    store(path, dataset)


def no_size(path: Path) -> None:
    dataset = new_dicom(picture())
    del dataset.Rows
    store(path, dataset)


def many_frames(path: Path) -> None:
    dataset = new_dicom(picture())
    dataset.NumberOfFrames = 1000
    store(path, dataset)


def deflated_bomb(path: Path) -> None:
    """250 KB that unpack to 257 MiB."""
    dataset = new_dicom(picture())
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    store(path, dataset)
    data = path.read_bytes()
    end = 132 + 12 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    parts = [packer.compress(zlib.decompress(data[end:], -zlib.MAX_WBITS))]
    parts += [packer.compress(bytes(2**20)) for _ in range(257)]
    path.write_bytes(data[:end] + b"".join(parts) + packer.flush())


def run_length_bomb(path: Path) -> None:
    """Each two bytes unpack to 128."""
    frame = struct.pack("<16I", 2, 64, 64 + 20_000, *[0] * 13) + b"\x81\x00" * 20_000
    store(path, compressed(new_dicom(picture()), RLELossless, frame))


def damaged_run_lengths(path: Path) -> None:
    frame = struct.pack("<16I", 2, 64, 6_000, *[0] * 13) + bytes(100)
    store(path, compressed(new_dicom(picture()), RLELossless, frame))


def other_transfer_syntax(path: Path) -> None:
    store(path, compressed(new_dicom(picture()), MPEG2MPML, bytes(64)))


def larger_jpeg(path: Path) -> None:
    """The header says 52 x 40; the compressed data unpack to 50,000 x 50,000 if one lets them."""
    frame = bytearray(lossless_jpeg(picture().astype(np.uint16), 12))
    place = frame.index(b"\xff\xc3")
    frame[place + 5 : place + 9] = struct.pack(">HH", 50_000, 50_000)
    store(path, compressed(new_dicom(picture()), JPEGLosslessSV1, bytes(frame)))


def larger_jpeg_2000(path: Path) -> None:
    dataset, _ = DICOM_KINDS["jpeg-2000"](picture())
    data = bytearray(dataset.PixelData)
    place = data.index(b"\xff\x4f\xff\x51")
    data[place + 8 : place + 16] = struct.pack(">II", 50_000, 50_000)
    dataset.PixelData = bytes(data)
    store(path, dataset)


def nonsense_jpeg(path: Path) -> None:
    store(path, compressed(new_dicom(picture()), JPEGLosslessSV1, b"\xff\xd8 nothing \xff\xd9"))


def nonsense_jpeg_2000(path: Path) -> None:
    store(path, compressed(new_dicom(picture()), JPEG2000Lossless, bytes(64)))


def no_frames(path: Path) -> None:
    dataset = compressed(new_dicom(picture()), JPEGLosslessSV1, b"ab")
    dataset.PixelData = b"\xfe\xff\x00\xe0" + bytes(4)  # an offset table without offsets, and nothing else
    store(path, dataset)


def palette(path: Path) -> None:
    dataset = new_dicom(picture(), bits=8)
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    store(path, dataset)


def deep_colours(path: Path) -> None:
    deep = np.repeat(picture().astype(np.uint16)[:, :, None] * 250, 3, axis=2)
    dataset = new_dicom(picture())
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = deep.tobytes()
    store(path, dataset)


def damaged_table(path: Path) -> None:
    dataset, _ = DICOM_KINDS["lookup-table"](picture())
    dataset.VOILUTSequence[0].LUTData = bytes(6)
    store(path, dataset)


def text(path: Path) -> None:
    path.write_text("<html>You need to sign in</html>")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def broken_png(path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, "PNG")
    path.write_bytes(file.getvalue()[:-30])


def huge_png(path: Path) -> None:
    path.write_bytes(png_bomb(10_000, 8_900))


def huge_png_beyond_pil(path: Path) -> None:
    path.write_bytes(png_bomb(60_000, 10)[:33].replace(struct.pack(">I", 10), struct.pack(">I", 60_000)))


UNUSABLE = {
    build.__name__: build
    for build in (
        *(no_pixels, truncated_pixels, cut_short, absurd_size, no_size, many_frames, larger_jpeg),
        *(deflated_bomb, run_length_bomb, damaged_run_lengths, other_transfer_syntax),
        *(larger_jpeg_2000, nonsense_jpeg, nonsense_jpeg_2000, no_frames, palette, damaged_table, text),
        *(empty, broken_png, huge_png, huge_png_beyond_pil, deep_colours),
    )
}


BOMBS = ("larger_jpeg", "larger_jpeg_2000", "huge_png", "absurd_size", "deflated_bomb", "run_length_bomb")
ABSURD = ("absurd_size", "many_frames", "deflated_bomb", "other_transfer_syntax", "huge_png", "text", "empty")


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_file_is_refused_by_name_and_a_bomb_before_anything_is_decoded(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "the-picture.bin"
    UNUSABLE[name](path)
    named = re.escape(str(path))
    if name in ABSURD:  # the header is enough
        with pytest.raises(PictureError, match=named):
            picture_size(path)
    if name in (*BOMBS, "other_transfer_syntax"):
        # The decoders are made to fail: a refusal that still comes was made without them.

        def decode(*given: object, **more: object) -> None:
            raise AssertionError("decoded")

        monkeypatch.setattr("pydicom.pixels.utils.pixel_array", decode)
        monkeypatch.setattr(Image.Image, "load", decode)
        named += r".*(claims|compressed data are of|not read|unpacks to more)"
    with pytest.raises(PictureError, match=named):
        read_picture(path)


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dicom(tmp_path / "a.dicom", "explicit", picture())
    for name in [name for name in sys.modules if name.partition(".")[0] == "pydicom"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PictureError, match=r"pip install 'medfocus-bench\[dicom\]'"):
        read_picture(tmp_path / "a.dicom")


@pytest.mark.parametrize(
    "ref",
    ["", "../a.png", "a/../../b.png", "/etc/passwd", "a\\..\\b.png", "a\0.png", "..", "a/.."],
)
def test_a_reference_that_leads_elsewhere_is_refused(tmp_path: Path, ref: str) -> None:
    with pytest.raises(PictureError, match="not a path below"):
        picture_at(tmp_path, ref)


def test_a_link_out_of_the_root_is_refused_and_one_within_is_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    save(tmp_path / "secret.png", picture())
    save(root / "b.png", picture())
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "in.png").symlink_to(root / "b.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    with pytest.raises(PictureError, match="leads out of"):
        picture_at(root, "out.png")
    assert read_picture(picture_at(root, "in.png")).shape == (40, 52)
    with pytest.raises(PictureError, match=r"loop\.png"):
        read_picture(picture_at(root, "loop.png"))


def test_a_collection_of_the_root_may_be_a_link_but_none_within_it_may_leave(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    root.mkdir()
    save(disk / "big" / "b.png", picture())
    save(disk / "secret.png", picture())
    (root / "collection").symlink_to(disk / "big")
    assert read_picture(picture_at(root, "collection/b.png")).shape == (40, 52)
    (disk / "big" / "out.png").symlink_to(disk / "secret.png")
    with pytest.raises(PictureError, match="leads out of"):
        picture_at(root, "collection/out.png")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.png", tmp_path):
        with pytest.raises(PictureError, match=re.escape(f"{path}: is not there")):
            picture_size(path)


def test_the_lossless_jpeg_of_the_fixtures_is_one(tmp_path: Path) -> None:
    """Decoded by an independent decoder: the fixtures do not agree with the reader by accident."""
    stored = phantom_question(0).image.astype(np.uint16) * 15 + 100
    store(tmp_path / "a.dcm", compressed(new_dicom(stored), JPEGLosslessSV1, lossless_jpeg(stored, 12)))
    np.testing.assert_array_equal(dcmread(tmp_path / "a.dcm").pixel_array, stored)
