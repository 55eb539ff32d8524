"""Pictures of every kind, decoded as they are meant to be shown; whatever cannot be, refused by name."""

from __future__ import annotations

import io
import re
import struct
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import ExifTags, Image
from pydicom import FileDataset, dcmread
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
def test_a_dicom_is_shown_as_its_header_asks(tmp_path, kind):
    """Trap 31: rescale (also an empty one), window or table, then the inversion; all transfer syntaxes."""
    path = tmp_path / "a.dicom"
    shown = write_dicom(path, kind, picture())
    assert picture_size(path) == (52, 40)
    found = read_picture(path)
    assert found.dtype == np.uint8
    lossy = 2 if kind == "jpeg-baseline" else 1  # decoders of baseline JPEG may differ by a level
    np.testing.assert_allclose(found.astype(int), shown.astype(int), atol=lossy)
    assert len(np.unique(found)) > 20


def test_windowing_after_the_inversion_would_show():
    """The MONOCHROME1 fixture is not blind to the order of the steps."""
    dataset, shown = DICOM_KINDS["inverted"](picture())
    stored = np.frombuffer(dataset.PixelData, "<u2").reshape(40, 52).astype(float)
    swapped = np.clip((4000 + 4000 - 15 * 255 - stored - 2999.5) / 1999 + 0.5, 0, 1)
    assert np.abs(np.round(swapped * 255) - shown).mean() > 30


def test_bright_stays_bright_in_either_photometric_interpretation(tmp_path):
    for kind in ("explicit", "inverted"):
        write_dicom(tmp_path / kind, kind, picture())
        found = read_picture(tmp_path / kind)
        assert found[:, -5:].mean() > found[:, :5].mean() + 50, kind


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_each_window_function_is_that_of_the_standard(tmp_path, function):
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


def test_an_empty_window_counts_as_none(tmp_path):
    dataset, shown = DICOM_KINDS["explicit"](picture())
    dataset.WindowCenter, dataset.WindowWidth = "", ""
    store(tmp_path / "a.dcm", dataset)
    np.testing.assert_allclose(read_picture(tmp_path / "a.dcm"), shown, atol=1)


def test_a_colour_photograph_becomes_grey(tmp_path):
    image = picture()
    store(tmp_path / "a.dcm", dicom(8, **RGB, PixelData=np.repeat(image, 3).tobytes()))
    np.testing.assert_allclose(read_picture(tmp_path / "a.dcm"), image, atol=1)


def test_sixteen_bits_are_scaled_by_their_own_range(tmp_path):
    deep = picture().astype(np.uint16) * 9 + 700
    save(tmp_path / "a.png", deep)
    np.testing.assert_allclose(read_picture(tmp_path / "a.png"), np.round(own_range(deep) * 255), atol=1)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
def test_eight_bits_are_kept_as_they_are_in_every_kind_of_png(tmp_path, mode):
    Image.fromarray(picture()).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), picture())


def test_few_levels_are_read_with_a_warning_that_names_the_file_once(tmp_path):
    """Two levels do not make a radiograph, nor do the 15 of 12 bits in the place of 16."""
    path = tmp_path / "a.png"
    Image.fromarray(picture()).convert("1").save(path)
    with pytest.warns(PictureWarning, match=re.escape(f"{path}: is shown in 2 grey levels")):
        found = read_picture(path)
    assert set(np.unique(found)) == {0, 255}
    np.testing.assert_array_equal(read_picture(path), found)  # a second warning would be an error here


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_blank_picture_is_an_error_that_names_the_file(tmp_path, level):
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
def test_a_picture_is_turned_as_its_exif_data_say(tmp_path, kind, orientation):
    path = tmp_path / "a"
    path.write_bytes(turned_file(orientation, kind))
    stored = picture() if kind != "PNG16" else np.round(own_range(picture()) * 255)
    expected = TURNED[orientation](stored).astype(int)
    found = read_picture(path)
    np.testing.assert_allclose(found.astype(int), expected, atol=2 if kind == "JPEG" else 0)
    assert picture_size(path) == found.shape[::-1]
    assert header_size(path.read_bytes()) == found.shape[::-1]


def test_exif_data_behind_the_pixels_of_a_png_count_too():
    data = turned_file(6, "PNG")
    place = data.index(b"eXIf") - 4
    length = 12 + int.from_bytes(data[place : place + 4], "big")
    chunk, rest = data[place : place + length], data[:place] + data[place + length :]
    end = rest.index(b"IEND") - 4
    late = rest[:end] + chunk + rest[end:]
    assert header_size(late) == (40, 52)
    np.testing.assert_array_equal(decode_uint8(late, place="a"), np.rot90(picture(), -1))


@pytest.mark.parametrize("damage", ["nonsense", "orientation 9", "orientation 0"])
def test_damaged_exif_data_turn_nothing(damage):
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
def test_sixteen_bits_of_colour_or_with_alpha_are_scaled_as_grey_ones(channels, bits):
    """12 bits in 16 were near black: only the high byte of each channel was looked at."""
    grey = picture().astype(np.int64) * (16 if bits == 12 else 256) + 100
    values = np.repeat(grey[:, :, None], channels, axis=2)
    if channels != 3:
        values[..., -1] = 65_535
    found = decode_uint8(deep_png(values), place="a")
    np.testing.assert_allclose(found, own_range(grey) * 255, atol=0.51)


def test_colours_of_sixteen_bits_count_by_their_luma():
    values = np.random.default_rng(1).integers(0, 65_536, (40, 52, 3))
    found = decode_uint8(deep_png(values), place="a")
    luma = (values @ np.array([299, 587, 114])) // 1000
    np.testing.assert_allclose(found, own_range(luma) * 255, atol=0.51)


@pytest.mark.parametrize("kind", ["LA", "RGBA", "palette", "LA16", "RGBA16"])
def test_what_is_transparent_is_black_whatever_colour_it_hides(kind):
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
def test_one_outlier_does_not_darken_a_picture_of_sixteen_bits(tmp_path, outlier):
    deep = picture().astype(np.uint16) * 16 + 20_000
    deep[3, 4] = outlier
    save(tmp_path / "a.png", deep)
    rest = np.ones(deep.shape, dtype=bool)
    rest[3, 4] = False
    np.testing.assert_allclose(read_picture(tmp_path / "a.png")[rest], own_range(deep[rest]) * 255, atol=4)


def test_an_error_of_the_library_names_the_picture_and_no_place_in_memory():
    for data in (b"", b"nothing", turned_file(1, "PNG")[:20], b"\x89PNG\r\n\x1a\n" + bytes(40)):
        with pytest.raises(PictureError, match=r"^the picture: ") as caught:
            decode_uint8(data, place="the picture")
        assert "0x" not in str(caught.value)


def test_a_png_of_very_many_chunks_is_refused_before_any_is_looked_at():
    data = turned_file(1, "PNG")
    stuffed = data[:33] + png_chunk(b"teSt", b"") * 100_001 + data[33:]
    with pytest.raises(PictureError, match="more than 100,000 chunks"):
        decode_uint8(stuffed, place="a")


def test_the_bound_of_decoded_bytes_counts_the_channels():
    """80 million pixels are read of grey, and not of four channels of 16 bits: 640 MB."""
    check_size(10_000, 8_000, place="a", depth=4)
    data = deep_png(np.zeros((1, 1, 4), dtype=np.int64))
    with pytest.raises(PictureError, match="10000 x 8000 pixels of 8 bytes; at most 384 MiB are decoded"):
        decode_uint8(claiming(data, 10_000, 8_000), place="a")


def test_the_real_radiographs_are_read(real_data):
    for name in ("00000001_000.png", "00027426_000.png"):
        path = real_data / "cxr" / name
        assert picture_size(path) == (512, 512)
        assert 30 < read_picture(path).mean() < 220


def png_chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def claiming(png: bytes, width: int, height: int) -> bytes:
    """A PNG whose header claims another size, in good form."""
    header = struct.pack(">II", width, height) + png[24:29]
    return png[:8] + png_chunk(b"IHDR", header) + png[33:]


def dicom(bits: int = 12, **tags: object) -> FileDataset:
    """A sound radiograph but for these tags; None takes one away."""
    dataset = new_dicom(picture(), bits=bits)
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def saved(dataset: FileDataset) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def deflated_bomb() -> bytes:
    """A thousandth of what it unpacks to, 2 MiB."""
    dataset = dicom()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data = saved(dataset)
    end = 132 + 12 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    content = zlib.decompress(data[end:], -zlib.MAX_WBITS) + bytes(2**21)
    return data[:end] + packer.compress(content) + packer.flush()


def run_lengths(second: int, segments: bytes) -> FileDataset:
    """Two segments, of which the second begins at that byte."""
    frame = struct.pack("<16I", 2, 64, second, *[0] * 13) + segments
    return compressed(dicom(), RLELossless, frame)


def larger_jpeg() -> FileDataset:
    """The header says 52 x 40; the compressed data unpack to 50,000 x 50,000 if one lets them."""
    frame = bytearray(lossless_jpeg(picture().astype(np.uint16), 12))
    place = frame.index(b"\xff\xc3")
    frame[place + 5 : place + 9] = struct.pack(">HH", 50_000, 50_000)
    return compressed(dicom(), JPEGLosslessSV1, bytes(frame))


def larger_jpeg_2000() -> FileDataset:
    dataset, _ = DICOM_KINDS["jpeg-2000"](picture())
    data = bytearray(dataset.PixelData)
    place = data.index(b"\xff\x4f\xff\x51")
    data[place + 8 : place + 16] = struct.pack(">II", 50_000, 50_000)
    dataset.PixelData = bytes(data)
    return dataset


def no_frames() -> FileDataset:
    dataset = compressed(dicom(), JPEGLosslessSV1, b"ab")
    dataset.PixelData = b"\xfe\xff\x00\xe0" + bytes(4)  # an offset table without offsets, and nothing else
    return dataset


def damaged_table() -> FileDataset:
    dataset, _ = DICOM_KINDS["lookup-table"](picture())
    dataset.VOILUTSequence[0].LUTData = bytes(6)
    return dataset


RGB = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}

UNUSABLE: dict[str, Callable[[], FileDataset | bytes]] = {
    "no pixels": lambda: dicom(PixelData=None),
    "truncated pixels": lambda: dicom(PixelData=bytes(200)),
    "cut short": lambda: saved(dicom())[:600],
    "absurd size": lambda: dicom(Rows=65_000, Columns=65_000),
    "no size": lambda: dicom(Rows=None),
    "many frames": lambda: dicom(NumberOfFrames=1000),
    "palette": lambda: dicom(8, PhotometricInterpretation="PALETTE COLOR"),
    "deep colours": lambda: dicom(**RGB, PixelData=np.repeat(picture().astype("<u2") * 250, 3).tobytes()),
    "damaged table": damaged_table,
    "other transfer syntax": lambda: compressed(dicom(), MPEG2MPML, bytes(64)),
    "deflated bomb": deflated_bomb,
    "run length bomb": lambda: run_lengths(64 + 20_000, b"\x81\x00" * 20_000),  # each unpacks to 128 bytes
    "damaged run lengths": lambda: run_lengths(6_000, bytes(100)),
    "larger jpeg": larger_jpeg,
    "larger jpeg 2000": larger_jpeg_2000,
    "nonsense jpeg": lambda: compressed(dicom(), JPEGLosslessSV1, b"\xff\xd8 nothing \xff\xd9"),
    "nonsense jpeg 2000": lambda: compressed(dicom(), JPEG2000Lossless, bytes(64)),
    "no frames": no_frames,
    "text": lambda: b"<html>You need to sign in</html>",
    "empty": lambda: b"",
    "broken png": lambda: turned_file(1, "PNG")[:-30],
    "huge png": lambda: claiming(turned_file(1, "PNG"), 10_000, 8_900),
    "huge png beyond pil": lambda: claiming(turned_file(1, "PNG"), 60_000, 60_000),
}

BOMBS = ("larger jpeg", "larger jpeg 2000", "huge png", "absurd size", "deflated bomb", "run length bomb")
ABSURD = ("absurd size", "many frames", "deflated bomb", "other transfer syntax", "huge png", "text", "empty")


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_file_is_refused_by_name_and_a_bomb_before_anything_is_decoded(
    tmp_path, name, monkeypatch
):
    monkeypatch.setattr("medfocus_bench.data.dicom.MAX_FILE_BYTES", 2**20)
    made = UNUSABLE[name]()
    path = tmp_path / "the-picture.bin"
    path.write_bytes(made if isinstance(made, bytes) else saved(made))
    named = re.escape(str(path))
    if name in ABSURD:  # the header is enough
        with pytest.raises(PictureError, match=named):
            picture_size(path)
    if name in (*BOMBS, "other transfer syntax"):
        # The decoders are made to fail: a refusal that still comes was made without them.

        def decode(*given: object, **more: object) -> None:
            raise AssertionError("decoded")

        monkeypatch.setattr("pydicom.pixels.utils.pixel_array", decode)
        monkeypatch.setattr(Image.Image, "load", decode)
        named += r".*(claims|compressed data are of|not read|unpacks to more)"
    with pytest.raises(PictureError, match=named):
        read_picture(path)


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    write_dicom(tmp_path / "a.dicom", "explicit", picture())
    for name in [name for name in sys.modules if name.partition(".")[0] == "pydicom"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PictureError, match=r"pip install 'medfocus-bench\[dicom\]'"):
        read_picture(tmp_path / "a.dicom")


@pytest.mark.parametrize(
    "ref",
    ["", "../a.png", "a/../../b.png", "/etc/passwd", "a\\..\\b.png", "a\0.png", "..", "a/.."],
)
def test_a_reference_that_leads_elsewhere_is_refused(tmp_path, ref):
    with pytest.raises(PictureError, match="not a path below"):
        picture_at(tmp_path, ref)


def test_a_link_out_of_the_root_is_refused_and_one_within_is_followed(tmp_path):
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


def test_a_collection_of_the_root_may_be_a_link_but_none_within_it_may_leave(tmp_path):
    root, disk = tmp_path / "root", tmp_path / "disk"
    root.mkdir()
    save(disk / "big" / "b.png", picture())
    save(disk / "secret.png", picture())
    (root / "collection").symlink_to(disk / "big")
    assert read_picture(picture_at(root, "collection/b.png")).shape == (40, 52)
    (disk / "big" / "out.png").symlink_to(disk / "secret.png")
    with pytest.raises(PictureError, match="leads out of"):
        picture_at(root, "collection/out.png")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "gone.png", tmp_path):
        with pytest.raises(PictureError, match=re.escape(f"{path}: is not there")):
            picture_size(path)


def test_the_lossless_jpeg_of_the_fixtures_is_one(tmp_path):
    """Decoded by an independent decoder: the fixtures do not agree with the reader by accident."""
    stored = phantom_question(0).image.astype(np.uint16) * 15 + 100
    store(tmp_path / "a.dcm", compressed(new_dicom(stored), JPEGLosslessSV1, lossless_jpeg(stored, 12)))
    np.testing.assert_array_equal(dcmread(tmp_path / "a.dcm").pixel_array, stored)
