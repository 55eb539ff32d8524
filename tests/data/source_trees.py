"""Small folders in the exact formats of the licensed sources, written anew for every test that asks.

Pictures are phantoms, so that the tiny models have something to find; ids and sentences are made up.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    generate_uid,
)

from medfocus_bench.data.questions import Question
from medfocus_bench.phantom.render import render
from medfocus_bench.phantom.track import box_of, patient_of, phantom_questions

Rows = Sequence[Mapping[str, object]]

SIDE = 224
WIDTH = 260
"""Pictures are wider than high: a black margin on the right."""

IMAGENOME_TABLE = "chest-imagenome/1.0.0/gold_dataset/gold_object_attribute_with_coordinates.txt"
VINDR_TABLE = "vindr-cxr/1.0.0/annotations/annotations_test.csv"
PADCHEST_TABLE = "filtered_studies.json"
NIH_TABLE = "nih-chest-xray14/BBox_List_2017.csv"

IMAGENOME_BOXES = "chest-imagenome/1.0.0/gold_dataset/gold_bbox_coordinate_annotations_1000images.csv"
IMAGENOME_BOX_HEADER = (
    *("image_id", "x1", "bbox_name", "annot_id"),
    *("original_x1", "coord224", "coord_original"),
)

IMAGENOME_HEADER = (
    *("patient_id", "study_id", "image_id", "row_id", "bbox", "relation", "label_name", "context"),
    *("categoryID", "sentence", "annot_id", "coord224", "coord_original"),
)


@cache
def phantom_question(number: int) -> Question:
    """A phantom with one lesion, its picture made wider than high."""
    (question,) = phantom_questions([number], "lesion")
    wide = np.zeros((SIDE, WIDTH), dtype=np.uint8)
    wide[:, :SIDE] = question.image
    return Question(
        question.source, number, question.patient_id, question.finding, wide, question.boxes, "lesion"
    )


def write_all(root: Path) -> Path:
    """All four sources below `root`: 12, 13, 8 (+ 3 dev) and 6 questions."""
    for write in (write_imagenome, write_vindr, write_padchest, write_nih):
        write(root)
    return root


IMAGENOME_IDS = (
    # patient, study: not in the order of the table, and not the same as numbers and as text
    *((10000032, 50414267), (9000001, 53189527), (10000032, 9911762), (10000980, 59988438)),
    *((10000980, 50985099), (10001217, 50000014), (9000001, 58108228), (10000764, 57375967)),
)


def imagenome_rows() -> list[dict[str, object]]:
    """Rows of the gold table: per picture one asserted lesion in two anatomies, and rows of other kinds."""
    rows: list[dict[str, object]] = []
    for number, (patient, study) in enumerate(IMAGENOME_IDS):
        question = phantom_question(number)
        x1, y1, x2, y2 = (int(value) for value in question.boxes[0])
        common = {"patient_id": patient, "study_id": study, "image_id": f"{image_id(number)}.dcm"}

        kind = "disease" if number % 3 else "anatomicalfinding"
        parts = [
            ("right lung", 1, question.finding, kind, [x1, y1, x2, y2]),
            ("left lung", 0, "pneumothorax", "anatomicalfinding", [0, 0, 50, 50]),
            ("right lower lung zone", 1, question.finding, kind, [x1, y1, min(x2 + 4, WIDTH), y2]),
            ("right lung", 1, "abnormal", "nlp", [0, 0, 50, 50]),
            (
                "right lung",
                1,
                question.finding,
                kind,
                [x1, y1, x2, y2],
            ),  # from a second sentence, too
        ]
        if number % 2:
            parts.append(("right lung", 1, "lung opacity", "anatomicalfinding", [x1, y1, x2, y2]))
        for bbox, relation, label, category, coordinates in parts:
            rows.append(
                common
                | {"row_id": f"{study}|{len(rows)}", "bbox": bbox, "relation": relation, "label_name": label}
                | {"context": "yes" if relation else "no", "categoryID": category, "annot_id": len(rows)}
                | {"sentence": 'The "heart" is\tenlarged, compared to the prior.'}
                | {"coord224": "[1, 2, 3, 4]", "coord_original": str(coordinates)}
            )
    return rows


def image_id(number: int) -> str:
    return f"{number:08x}-5f5d2cd9-a3c1b2d4-00000000-{number * 7919:08x}"


@cache
def _concept_boxes(number: int) -> dict[str, list[int]]:
    """Every concept but the mediastinum, which the box list does not have, and one of another name."""
    concepts = render(patient_of(number)).concepts
    boxes = {name: box_of(mask)[0].astype(int).tolist() for name, mask in concepts.items()}
    return {name: box for name, box in boxes.items() if name != "mediastinum"} | {"spine": [100, 0, 124, 224]}


def imagenome_boxes() -> list[dict[str, object]]:
    return [
        {"image_id": f"{image_id(number)}.dcm", "bbox_name": name, "coord_original": str(box)}
        for number in range(len(IMAGENOME_IDS))
        for name, box in _concept_boxes(number).items()
    ]


def write_imagenome(
    root: Path, rows: Rows | None = None, *, pictures: bool = True, anatomy: bool = True
) -> Path:
    """12 questions about 8 pictures, or these rows; returns the table."""
    table = IMAGENOME_TABLE
    write_rows(root / table, IMAGENOME_HEADER, rows or imagenome_rows(), delimiter="\t")
    if anatomy:
        write_rows(root / IMAGENOME_BOXES, IMAGENOME_BOX_HEADER, imagenome_boxes())
    for number, (patient, study) in enumerate(IMAGENOME_IDS if pictures else ()):
        name = f"p{str(patient)[:2]}/p{patient}/s{study}/{image_id(number)}.jpg"
        save(root / "mimic-cxr-jpg/2.1.0/files" / name, phantom_question(number).image, quality=95)
    return root / table


VINDR_IDS = tuple(f"{(number * 2654435761 + 17) % 2**64:016x}{number:016x}" for number in range(9))
"""In another order than sorted."""


def vindr_rows() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number, name in enumerate(VINDR_IDS):
        question = phantom_question(20 + number)
        (box,) = question.boxes
        rows.append({"image_id": name, "class_name": question.finding, **corners(box)})
        if number % 2:
            wider = np.add(box, (0.25, 0, 0.5, 0))
            rows.append({"image_id": name, "class_name": "Other lesion", **corners(wider)})
            rows.append({"image_id": name, "class_name": "Other lesion", **corners(box)})
    rows.append({"image_id": "f" * 32, "class_name": "No finding"})
    return rows


def corners(box: Sequence[float]) -> dict[str, object]:
    return dict(zip(("x_min", "y_min", "x_max", "y_max"), map(float, box), strict=True))


def write_vindr(root: Path, rows: Rows | None = None, *, pictures: bool = True) -> Path:
    """13 questions about 9 pictures, each DICOM of another kind, or these rows; returns the table."""
    header = ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")
    write_rows(root / VINDR_TABLE, header, rows or vindr_rows(), terminator="\r\n")
    for number, name in enumerate(VINDR_IDS if pictures else ()):
        path = root / "vindr-cxr/1.0.0/test" / f"{name}.dicom"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_dicom_file(number))
    return root / VINDR_TABLE


@cache
def _dicom_file(number: int) -> bytes:
    dataset, _ = [*DICOM_KINDS.values()][number](phantom_question(20 + number).image)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def padchest_studies() -> list[dict[str, object]]:
    """2,130 studies, of which the first seven and the last two have findings with boxes."""
    studies = []
    for number in range(2130):
        findings: list[dict[str, object]] = [
            padchest_finding(["normal"], [], abnormal=False),
            padchest_finding(["scoliosis"], [], abnormal=True),
        ]
        if number < 7 or number >= 2128:
            question = phantom_question(40 + number % 32)
            (box,) = question.boxes / [WIDTH, SIDE, WIDTH, SIDE]
            findings.append(padchest_finding([question.finding], [box.tolist()]))
            if number in (3, 2129):
                findings.append(padchest_finding(["infiltrates", "nodule"], [], extra=[box.tolist()]))
        studies.append(
            {
                "StudyID": f"2514880345577323389595{number:05d}",
                "ImageID": padchest_image(number),
                "PreviousStudyID": None,
                "PreviousImageID": None,
                "findings": findings,
            }
        )
    return studies


def padchest_image(number: int) -> str:
    return f"216840111366964013{number:05d}_04-014-084.png"


def padchest_finding(
    labels: Sequence[str],
    boxes: Sequence[Sequence[float]],
    *,
    abnormal: bool = True,
    extra: Sequence[Sequence[float]] = (),
) -> dict[str, object]:
    return {
        "sentence_en": f"There is {labels[0]}.",
        "sentence_es": f"Se observa {labels[0]}: lóbulo.",
        "abnormal": abnormal,
        "boxes": boxes,
        "extra_boxes": extra,
        "labels": labels,
        "locations": ["lung"],
        "progression": None,
    }


def write_padchest(root: Path, studies: Rows | None = None, *, pictures: bool = True) -> Path:
    """8 test questions about 7 pictures of 16 bits, 3 dev questions about 2; returns the table."""
    path = root / PADCHEST_TABLE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(studies or padchest_studies(), ensure_ascii=False), encoding="utf-8")
    master = [
        {"StudyID": f"2514880345577323389595{number:05d}", "ImageID": "x", "PatientID": f"8{number // 2}"}
        for number in range(2130)
    ]
    write_rows(root / "master_table.csv", ("StudyID", "ImageID", "PatientID"), master)
    for number in (*range(7), 2128, 2129) if pictures else ():
        deep = phantom_question(40 + number % 32).image.astype(np.uint16) * 97 + 1000
        save(root / "PadChest_GR" / padchest_image(number), deep)
    return path


NIH_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


def write_nih(root: Path, *, pictures: bool = True) -> Path:
    """6 questions about 5 pictures of 512 pixels, half of what the boxes speak of; returns the table."""
    lines = [NIH_HEADER]
    for number in range(5):
        question = phantom_question(60 + number)
        name = f"{number * 977 % 31:08d}_{number:03d}.png"
        x1, y1, x2, y2 = question.boxes[0] * 1024 / SIDE
        lines.append(f"{name},{question.finding.capitalize()},{x1},{y1},{x2 - x1},{y2 - y1}")
        if number == 2:
            lines.append(f"{name},Infiltrate,{x1},{y1},{x2 - x1},{y2 - y1}")
        if pictures:
            square = Image.fromarray(question.image[:, :SIDE]).resize((512, 512))
            save(root / f"nih-chest-xray14/images_{number % 2 + 1:03d}/images" / name, np.asarray(square))
    path = root / NIH_TABLE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join(lines) + "\n").encode())
    return path


def write_rows(
    path: Path,
    header: Sequence[str],
    rows: Rows,
    *,
    delimiter: str = ",",
    terminator: str = "\n",
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, header, delimiter=delimiter, lineterminator=terminator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def save(path: Path, image: np.ndarray, **settings: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **settings)
    return path


# DICOM ----------------------------------------------------------------------------------------------------


def new_dicom(image: np.ndarray, *, bits: int = 12, signed: bool = False) -> FileDataset:
    """A radiograph of these stored values, uncompressed, without rescale and window."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PatientName, dataset.BodyPartExamined = "DX", "Anonymous", "CHEST"
    dataset.Rows, dataset.Columns = image.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 if bits == 8 else 16
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, int(signed)
    kind = {(8, False): "<u1", (8, True): "<i1"}.get((bits, signed), "<i2" if signed else "<u2")
    dataset.PixelData = image.astype(kind).tobytes()
    return dataset


def store(path: Path, dataset: FileDataset) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def compressed(dataset: FileDataset, syntax: str, frame: bytes) -> FileDataset:
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    return dataset


def own_range(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    return (values - values.min()) / (values.max() - values.min())


def levels(grey: np.ndarray) -> np.ndarray:
    return np.round(np.clip(grey, 0, 1) * 255).astype(np.uint8)


def _explicit(image: np.ndarray) -> tuple[FileDataset, np.ndarray]:
    """No window, and a rescale slope that is there but empty."""
    stored = image.astype(np.uint16) * 15 + 100
    dataset = new_dicom(stored)
    dataset.RescaleSlope, dataset.RescaleIntercept = "", ""
    return dataset, levels(own_range(stored))


def _implicit_window(image: np.ndarray) -> tuple[FileDataset, np.ndarray]:
    """Two windows, of which the first holds, on rescaled values."""
    stored = image.astype(np.uint16) * 15 + 100
    dataset = new_dicom(stored)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.RescaleSlope, dataset.RescaleIntercept = "2", "-200"
    dataset.WindowCenter, dataset.WindowWidth = ["3000", "100"], ["4001", "10"]
    values = stored.astype(np.float64) * 2 - 200
    return dataset, levels((values - 2999.5) / 4000 + 0.5)


def _inverted(image: np.ndarray) -> tuple[FileDataset, np.ndarray]:
    """MONOCHROME1 with a window that cuts at one end only: the order of the two steps shows."""
    stored = 4000 - image.astype(np.uint16) * 15
    dataset = new_dicom(stored)
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.WindowCenter, dataset.WindowWidth = "3000", "2000"
    return dataset, levels(1 - np.clip((stored - 2999.5) / 1999 + 0.5, 0, 1))


def _lookup_table(image: np.ndarray) -> tuple[FileDataset, np.ndarray]:
    """A VOI lookup table, which wins over the window beside it."""
    stored = image.astype(np.uint16) * 15 + 100
    table = (np.linspace(0, 1, 4096) ** 2 * 4095).round().astype(np.uint16)
    dataset = new_dicom(stored)
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 12], table.tobytes()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    dataset.VOILUTSequence = [item]
    dataset.WindowCenter, dataset.WindowWidth = "10", "10"
    return dataset, levels(table[stored] / 4095)


def _signed(image: np.ndarray) -> tuple[FileDataset, np.ndarray]:
    """Signed values with a frame of padding, which does not belong to the picture's range."""
    stored = image.astype(np.int16) * 4 - 500
    stored[:, :6] = -2000
    dataset = new_dicom(stored, signed=True)
    dataset.PixelPaddingValue = -2000
    dataset["PixelPaddingValue"].VR = "SS"
    shown = np.zeros(stored.shape, dtype=np.uint8)
    shown[:, 6:] = levels(own_range(stored[:, 6:]))
    return dataset, shown


def _jpeg_baseline(image: np.ndarray) -> tuple[FileDataset, np.ndarray]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95)
    decoded = np.asarray(Image.open(file))
    return compressed(new_dicom(image, bits=8), JPEGBaseline8Bit, file.getvalue()), levels(own_range(decoded))


def _jpeg_lossless(image: np.ndarray) -> tuple[FileDataset, np.ndarray]:
    stored = image.astype(np.uint16) * 15 + 100
    frame = lossless_jpeg(stored, precision=12)
    return compressed(new_dicom(stored), JPEGLosslessSV1, frame), levels(own_range(stored))


def _jpeg_2000(image: np.ndarray) -> tuple[FileDataset, np.ndarray]:
    stored = image.astype(np.uint16) * 15 + 100
    dataset = new_dicom(stored)
    dataset.compress(JPEG2000Lossless, stored, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    return dataset, levels(own_range(stored))


def _plain_8_bit(image: np.ndarray) -> tuple[FileDataset, np.ndarray]:
    return new_dicom(image, bits=8), levels(own_range(image))


DICOM_KINDS: dict[str, Callable[[np.ndarray], tuple[FileDataset, np.ndarray]]] = {
    "explicit": _explicit,
    "implicit-window": _implicit_window,
    "inverted": _inverted,
    "lookup-table": _lookup_table,
    "signed": _signed,
    "jpeg-baseline": _jpeg_baseline,
    "jpeg-lossless": _jpeg_lossless,
    "jpeg-2000": _jpeg_2000,
    "plain-8-bit": _plain_8_bit,
}
"""By name: from a picture to a dataset, and to what it should be shown as."""


def write_dicom(path: Path, kind: str, image: np.ndarray) -> np.ndarray:
    """Writes a DICOM of that kind and returns the picture that it should be shown as."""
    dataset, shown = DICOM_KINDS[kind](image)
    store(path, dataset)
    return shown


def lossless_jpeg(values: np.ndarray, precision: int) -> bytes:
    """A lossless JPEG (process 14, first predictor): every category has a code of five bits."""
    height, width = values.shape
    predicted = np.empty(values.shape, dtype=np.int64)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << (precision - 1)
    bits = []
    for difference in (values.astype(np.int64) - predicted).ravel().tolist():
        category = abs(difference).bit_length()
        bits.append(format(category, "05b"))
        if category:
            extra = difference if difference > 0 else difference + (1 << category) - 1
            bits.append(format(extra, f"0{category}b"))
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    data = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    table = bytes([0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    return b"".join(
        (
            b"\xff\xd8",
            b"\xff\xc4" + (len(table) + 3).to_bytes(2, "big") + b"\x00" + table,
            b"\xff\xc3" + (11).to_bytes(2, "big") + bytes([precision]),
            height.to_bytes(2, "big") + width.to_bytes(2, "big") + b"\x01\x01\x11\x00",
            b"\xff\xda" + (8).to_bytes(2, "big") + b"\x01\x01\x00\x01\x00\x00",
            data,
            b"\xff\xd9",
        )
    )
