"""DICOM files whose headers are odd, as scanners and archives write them: the levels that a viewer shows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from medfocus_bench.data.images import picture_size, read_picture
from medfocus_bench.data.pixels import PictureError
from medfocus_bench.errors import PictureWarning
from tests.data.source_trees import compressed, levels, new_dicom, own_range, store


def film(height: int = 40, width: int = 52) -> np.ndarray:
    """Stored values of 12 bits, 100 to 3,900."""
    rng = np.random.default_rng(5)
    ramp = np.linspace(100, 3000, width)[None, :] + np.linspace(0, 700, height)[:, None]
    return (ramp + rng.integers(0, 200, (height, width))).astype(np.int64)


def shown(folder: Path, dataset: FileDataset) -> np.ndarray:
    store(folder / "film.dcm", dataset)
    found = read_picture(folder / "film.dcm")
    assert picture_size(folder / "film.dcm") == found.shape[::-1]
    return found


def assert_shown(folder: Path, dataset: FileDataset, grey: np.ndarray) -> None:
    np.testing.assert_allclose(shown(folder, dataset), levels(grey), atol=1)


def table(first: int, entries: np.ndarray, bits: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [len(entries), first, bits], entries.astype("<u2").tobytes()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US" if first >= 0 else "SS", "OW"
    return item


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", True),
    ],
)
def test_low_values_are_bright_where_either_tag_says_so_and_never_twice(
    tmp_path, photometric, shape, inverted
):
    dataset = new_dicom(film())
    dataset.PhotometricInterpretation = photometric
    if shape is not None:
        dataset.PresentationLUTShape = shape
    grey = own_range(film())
    assert_shown(tmp_path, dataset, 1 - grey if inverted else grey)


@pytest.mark.parametrize("stated", [16, 14, 12, 10])
def test_a_lookup_table_counts_the_bits_that_its_entries_have(tmp_path, stated):
    """16 declared and 12 held gave levels 0 to 15; 10 declared and 12 held gave white."""
    entries = (np.linspace(0, 1, 4096) ** 2 * 4095).round()
    dataset = new_dicom(film())
    dataset.VOILUTSequence = [table(0, entries, stated)]
    assert_shown(tmp_path, dataset, entries[film()] / 4095)


def test_a_lookup_table_that_leaves_its_brightest_half_unused_is_taken_at_its_word(tmp_path):
    entries = np.linspace(0, 30_000, 4096).round()
    dataset = new_dicom(film())
    dataset.VOILUTSequence = [table(0, entries, 16)]
    assert_shown(tmp_path, dataset, entries[film()] / 65_535)


@pytest.mark.parametrize("first", [-1024, 64_512])
@pytest.mark.parametrize("lowest", [-1024, 0])
def test_the_first_value_of_a_table_may_be_stored_unsigned(tmp_path, first, lowest):
    """64,512 for -1,024 of signed pixels, whether or not one of them is negative."""
    stored = film() - 100 + lowest
    entries = np.linspace(0, 4095, 5120).round()
    dataset = new_dicom(stored, bits=16, signed=True)
    dataset.VOILUTSequence = [table(first, entries, 12)]
    assert_shown(tmp_path, dataset, entries[stored + 1024] / 4095)


def test_the_first_value_of_a_table_may_be_stored_unsigned_for_rescaled_pixels(tmp_path):
    entries = np.linspace(0, 4095, 5120).round()
    dataset = new_dicom(film())
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"
    dataset.VOILUTSequence = [table(64_512, entries, 12)]
    assert_shown(tmp_path, dataset, entries[film()] / 4095)


def test_the_first_value_of_a_modality_table_may_be_stored_unsigned(tmp_path):
    stored = film() - 2000
    entries = np.linspace(0, 1, 4096) ** 2 * 4095
    dataset = new_dicom(stored, bits=16, signed=True)
    dataset.ModalityLUTSequence = [table(63_536, entries.round(), 16)]
    assert_shown(tmp_path, dataset, own_range(entries.round()[film()]))


def test_a_first_value_in_the_upper_half_is_taken_at_its_word_where_values_reach_it(tmp_path):
    stored = film() * 16
    entries = np.linspace(0, 65_535, 30_000).round()
    dataset = new_dicom(stored, bits=16)
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1"
    dataset.VOILUTSequence = [table(34_000, entries, 16)]
    assert_shown(tmp_path, dataset, entries[np.clip(stored - 1 - 34_000, 0, 29_999)] / 65_535)


@pytest.mark.parametrize(
    ("signed", "written"), [(True, 63_536), (True, -2000), (False, 63_536), (False, -2000)]
)
def test_padding_is_found_however_its_sign_is_written(tmp_path, signed, written):
    stored = film() - 500 if signed else film() + 500
    stored[:, :6] = -2000 if signed else 63_536
    dataset = new_dicom(stored, bits=16, signed=signed)
    dataset.PixelPaddingValue = written
    dataset["PixelPaddingValue"].VR = "US" if written > 0 else "SS"
    grey = np.zeros(stored.shape)
    grey[:, 6:] = own_range(stored[:, 6:])
    assert_shown(tmp_path, dataset, grey)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("windowed", [False, True])
def test_twelve_bits_in_the_upper_part_of_sixteen_are_taken_from_there(tmp_path, signed, windowed):
    stored = film() - 2000 * signed
    dataset = new_dicom(stored * 16, bits=16, signed=signed)
    dataset.BitsStored, dataset.HighBit = 12, 15
    grey = own_range(film())
    if windowed:
        dataset.WindowCenter, dataset.WindowWidth = str(2048 - 2000 * signed), "4096"
        grey = (film() - 2047.5) / 4095 + 0.5
    assert_shown(tmp_path, dataset, grey)


@pytest.mark.parametrize("signed", [False, True])
def test_twelve_bits_in_the_lower_part_are_found_although_the_header_has_them_above(tmp_path, signed):
    """`HighBit` 15 is written by mistake, too; the bits tell."""
    stored = film() - 2000 * signed
    dataset = new_dicom(stored, bits=16, signed=signed)
    dataset.BitsStored, dataset.HighBit = 12, 15
    assert_shown(tmp_path, dataset, own_range(film()))


def test_overlays_in_the_unused_bits_are_not_shown(tmp_path):
    stored = film()
    stored[5:9, 5:9] |= 0x8000
    dataset = new_dicom(stored, bits=16)
    dataset.BitsStored, dataset.HighBit = 12, 11
    assert_shown(tmp_path, dataset, own_range(film()))


@pytest.mark.parametrize(("centre", "width"), [("60000", "100"), ("-5000", "100")])
def test_a_window_that_misses_all_values_is_an_error_that_names_it(tmp_path, centre, width):
    dataset = new_dicom(film())
    dataset.WindowCenter, dataset.WindowWidth = centre, width
    with pytest.raises(
        PictureError, match=rf"film\.dcm: .*its window \(centre {centre}, width 100\) shows all"
    ):
        shown(tmp_path, dataset)


def test_a_table_that_misses_all_values_is_an_error_that_names_it(tmp_path):
    dataset = new_dicom(film())
    dataset.VOILUTSequence = [table(10_000, np.arange(4096), 12)]
    with pytest.raises(PictureError, match=r"film\.dcm: .*its VOI lookup table shows all of its values"):
        shown(tmp_path, dataset)


def test_a_blank_film_is_an_error_and_one_of_few_levels_a_warning_both_name_the_file(tmp_path):
    with pytest.raises(PictureError, match=r"film\.dcm: is blank"):
        shown(tmp_path, new_dicom(np.full((40, 52), 700)))
    dataset = new_dicom(film() // 400)
    with pytest.warns(PictureWarning, match=r"film\.dcm: is shown in \d+ grey levels"):
        shown(tmp_path, dataset)


@pytest.mark.parametrize("outlier", [65_535, 0])
def test_one_outlier_without_a_window_does_not_darken_the_film(tmp_path, outlier):
    """At 65,535 it left 7 % of the levels to all else."""
    stored = film() + 20_000
    stored[11, 7] = outlier
    found = shown(tmp_path, new_dicom(stored, bits=16))
    rest = np.ones(stored.shape, dtype=bool)
    rest[11, 7] = False
    expected = levels(own_range(film()[rest]))
    np.testing.assert_allclose(found[rest].astype(int), expected.astype(int), atol=4)
    assert found[11, 7] == (255 if outlier else 0)


def test_a_bright_mark_is_no_outlier(tmp_path):
    """Letters on a film are more than a thousandth of it: the range is that of all pixels, as in viewers."""
    stored = film()
    stored[:4, :10] = 4095
    assert_shown(tmp_path, new_dicom(stored), own_range(stored))


def test_values_of_32_bits_are_shown_too(tmp_path):
    stored = film() * 100_000
    dataset = new_dicom(film())
    dataset.BitsAllocated = dataset.BitsStored = 32
    dataset.HighBit = 31
    dataset.PixelData = stored.astype("<u4").tobytes()
    assert_shown(tmp_path, dataset, own_range(stored))


def packed(segment: bytes) -> bytes:
    """Run lengths (PackBits) of a segment, runs and literals both."""
    out, place = bytearray(), 0
    while place < len(segment):
        run = 1
        while run < 128 and place + run < len(segment) and segment[place + run] == segment[place]:
            run += 1
        if run > 1:
            out += bytes((257 - run, segment[place]))
        else:
            out += bytes((0, segment[place]))
        place += run
    return bytes(out) + bytes(len(out) % 2)


def run_lengths(stored: np.ndarray) -> bytes:
    cells = stored.astype(">u2").tobytes()
    segments = [packed(cells[0::2]), packed(cells[1::2])]
    head = np.zeros(16, dtype="<u4")
    head[:3] = 2, 64, 64 + len(segments[0])
    return head.tobytes() + b"".join(segments)


@pytest.mark.parametrize("high", [11, 15])
def test_run_lengths_are_read(tmp_path, high):
    stored = film() * (16 if high == 15 else 1)
    dataset = compressed(new_dicom(stored), RLELossless, run_lengths(stored))
    dataset.BitsStored, dataset.HighBit = 12, high
    assert_shown(tmp_path, dataset, own_range(film()))


def test_the_run_lengths_of_the_library_are_read(tmp_path):
    dataset = new_dicom(film())
    dataset.compress(RLELossless, generate_instance_uid=False)
    assert_shown(tmp_path, dataset, own_range(film()))


def test_deflated_files_are_read(tmp_path):
    dataset = new_dicom(film())
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.WindowCenter, dataset.WindowWidth = "2000", "3000"
    assert_shown(tmp_path, dataset, (film() - 1999.5) / 2999 + 0.5)


@pytest.mark.parametrize("name", ["PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing"])
def test_pixels_that_are_not_square_are_refused_with_the_file_and_the_way_out(tmp_path, name):
    dataset = new_dicom(film())
    setattr(dataset, name, [2, 1] if name == "PixelAspectRatio" else ["0.286", "0.143"])
    store(tmp_path / "film.dcm", dataset)
    said = re.escape(f"{tmp_path / 'film.dcm'}: its pixels are not square ({name} ")
    for read in (read_picture, picture_size):
        with pytest.raises(PictureError, match=said + ".*resample the picture"):
            read(tmp_path / "film.dcm")


@pytest.mark.parametrize(
    ("name", "value"),
    [("PixelAspectRatio", [1, 1]), ("PixelAspectRatio", [143, 143]), ("PixelSpacing", ["0.143", "0.1431"])],
)
def test_square_pixels_are_square_but_for_rounding(tmp_path, name, value):
    dataset = new_dicom(film())
    setattr(dataset, name, value)
    assert_shown(tmp_path, dataset, own_range(film()))
