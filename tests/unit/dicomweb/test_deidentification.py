"""No value that identifies survives: thousands of SYNTHETIC data sets, and each hiding place by itself."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.datadict import DicomDictionary, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless

from dicomweb.deidentification.codestreams import BrokenCodestreamError, without_comments
from dicomweb.deidentification.dates import kept_time, moved_date, moved_instant
from dicomweb.deidentification.identity import Identity, Subject
from dicomweb.deidentification.instance import Deidentified, HeldBackError, deidentify
from dicomweb.deidentification.profile import Options, Profile
from dicomweb.deidentification.quiet_reading import quiet_reading
from dicomweb.deidentification.run import Project, deidentify_all
from dicomweb.deidentification.verification import verify
from fhir_server.bulk.pseudonyms import Pseudonymiser
from foramen.kernel.crypto.pseudonyms import ProjectPseudonyms
from foramen.kernel.errors import InvalidRequestError, UpstreamError

KEY = b"SYNTHETIC key of a project"
MR = "1.2.840.10008.5.1.4.1.1.4"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SECRETS = ("QUIXOTEA", "ZWYPLKOR", "王小东", "欧阳修远", "8675309441")
PROFILE = Profile(Options.of())
requirement = pytest.mark.requirement


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_reading():
        yield


def mr(**changes: Any) -> Dataset:
    """A SYNTHETIC MR instance, 16×16."""
    dataset = Dataset()
    values: dict[str, Any] = {
        **{"SOPClassUID": MR, "SOPInstanceUID": "1.2.3.4.5.111111", "StudyInstanceUID": "1.2.3.4.5.222222"},
        **{
            "SeriesInstanceUID": "1.2.3.4.5.333333",
            "Modality": "MR",
            "PatientID": "8675309441",
            "StudyDate": "20210304",
        },
        **{
            "PatientName": "QUIXOTEA^ZWYPLKOR=王小东",
            "ReferringPhysicianName": "欧阳修远",
            "IssuerOfPatientID": "DEMO",
            "Rows": 16,
            "Columns": 16,
        },
        **{"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 12},
        **{"HighBit": 11, "PixelRepresentation": 0, "SpecificCharacterSet": "ISO_IR 192"},
    }
    for name, value in (values | changes).items():
        setattr(dataset, name, value)
    if "PixelData" not in dataset:
        dataset.PixelData = np.arange(256, dtype="<u2").tobytes()
    meta: Any = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    return dataset


def identity_of(dataset: Dataset) -> Identity:
    return Identity(ProjectPseudonyms(KEY), Subject.of_file(dataset))


def done(dataset: Dataset, *, profile: Profile = PROFILE, blacken: bool = False) -> Deidentified:
    return deidentify(dataset, profile, identity_of(dataset), blacken=blacken)


def written(dataset: Dataset) -> bytes:
    target = BytesIO()
    dcmwrite(target, dataset, enforce_file_format=True)
    return target.getvalue()


def result_of(dataset: Dataset, **options: Any) -> bytes:
    return written(done(dataset, **options).dataset)


def forms(text: str) -> list[bytes]:
    return [text.encode(codec) for codec in ("utf-8", "gb18030", "utf-16-le")]


_TEXTS = [
    tag for tag in DicomDictionary if dictionary_VR(tag) in ("LO", "SH", "LT", "ST", "UT", "PN", "AE", "CS", "UC")
]
_OF_OUR_OWN = {0x00080005, 0x00080016, 0x00080060, 0x00280004, 0x00100010, 0x00100020, 0x00080090}
_CHOSEN = sorted(tag for tag in _TEXTS if tag >> 16 > 0x0002 and tag not in _OF_OUR_OWN)


@st.composite
def elements(draw: st.DrawFn) -> list[tuple[int, str, str]]:
    """Attributes of any group with a secret in them, alone or amid other words."""
    found = []
    for tag in draw(st.lists(st.sampled_from(_CHOSEN), min_size=1, max_size=12, unique=True)):
        vr = dictionary_VR(tag)
        secret = draw(st.sampled_from(SECRETS))
        text = (
            secret
            if vr in ("AE", "CS", "SH")
            else draw(st.sampled_from(["{}", "T2 {} sag", "{}^X", "for {}"])).format(secret)
        )
        found.append((tag, vr, text))
    return found


def planted(found: list[tuple[int, str, str]], depth: int, private: bool) -> Dataset:
    dataset = mr(Rows=4, Columns=4, PixelData=bytes(32))  # too small for text: the search for it has its own tests
    for tag, vr, text in found:
        dataset[tag] = DataElement(tag, vr, text)
    inner = Dataset()
    for tag, vr, text in found:
        inner[tag] = DataElement(tag, vr, text)
    for _ in range(depth):
        outer = Dataset()
        outer.ReferencedImageSequence = Sequence([inner])
        inner = outer
    dataset.ReferencedStudySequence = Sequence([inner])
    dataset.SourceImageSequence = Sequence([inner])
    if private:
        block = dataset.private_block(0x0029, f"{SECRETS[0]} HEADER", create=True)
        block.add_new(0x10, "UN", SECRETS[3].encode() + SECRETS[0].encode())
        block.add_new(0x11, "LO", SECRETS[1])
    return dataset


@requirement("PS3.15 E.1: no identifying value of the original in the result")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(found=elements(), depth=st.integers(0, 4), private=st.booleans())
def test_no_identifying_value_survives_wherever_it_stands(found, depth, private):
    dataset = planted(found, depth, private)
    content = result_of(dataset)
    for secret in SECRETS:
        for form in forms(secret):
            assert form not in content, secret
    for uid in ("1.2.3.4.5.111111", "1.2.3.4.5.222222", "1.2.3.4.5.333333"):
        assert uid.encode() not in content
    assert verify(dataset, content, shift_days=identity_of(dataset).shift_days) == []


@requirement("PS3.15 E.3.6: dates move together, distances stay")
@settings(max_examples=100, deadline=None, derandomize=True)
@given(first=st.dates(), second=st.dates())
def test_distances_between_dates_stay(first, second):
    from datetime import datetime

    one, two = (moved_date(f"{day:%Y%m%d}".rjust(8, "0"), 40) for day in (first, second))
    if one is None or two is None or first.year < 1000 or second.year < 1000:
        return  # outside the calendar
    parse = lambda text: datetime.strptime(text, "%Y%m%d").date()  # noqa: E731, DTZ007
    assert parse(two) - parse(one) == second - first


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20210304112233.5+0800", "20210413112233.5+0800"), ("202103", "202104"), ("2021", "2021"), ("garbage", None)],
)
def test_instants_keep_time_zone_and_precision(text, expected):
    assert moved_instant(text, 40) == expected


def test_what_is_no_time_goes():
    assert kept_time("112233.123") == "112233.123"
    assert kept_time("QUIXOTEA") is None


@requirement("PS3.15 E.3.9: UIDs are replaced consistently")
def test_pseudonyms_uids_and_shift_are_those_of_the_records_export():
    ours, theirs = ProjectPseudonyms(KEY), Pseudonymiser(KEY, "http://x/fhir", 2026)
    identity = Identity(ours, Subject.of_record("p1"))
    assert identity.pseudonym == theirs.pseudonym("Patient", "p1")
    assert identity.shift_days == theirs.shift_days("p1")
    assert identity.uid("1.2.3.4.5") == theirs.uid("1.2.3.4.5")
    assert ProjectPseudonyms(b"another").uid("1.2.3.4.5") != identity.uid("1.2.3.4.5")


def test_the_same_patient_without_the_record_is_one_subject_and_without_an_id_each_study_is():
    assert Subject.of_file(mr()) == Subject.of_file(mr(StudyInstanceUID="1.9"))
    assert Subject.of_file(mr(IssuerOfPatientID="OTHER")) != Subject.of_file(mr())
    assert Subject.of_file(mr(PatientID="")) != Subject.of_file(mr(PatientID="", StudyInstanceUID="1.9"))


@requirement("PS3.10 7.1: file meta information of the result is new")
def test_head_and_preamble_of_the_file_are_new():
    dataset = mr()
    dataset.file_meta.SourceApplicationEntityTitle = "QUIXOTEA"
    dataset.file_meta.PrivateInformationCreatorUID = "1.2.3"
    dataset.file_meta.PrivateInformation = b"ZWYPLKOR"
    dataset.preamble = b"QUIXOTEA" * 16
    content = result_of(dataset)
    assert content[:128] == b"\x00" * 128
    assert b"QUIXOTEA" not in content
    assert b"ZWYPLKOR" not in content


@requirement("PS3.15 E.3.3: overlays and curves")
def test_overlays_curves_icons_and_spare_bits_go():
    icon = Dataset()
    icon.Rows = icon.Columns = 2
    icon.PixelData = b"QUIXOTEA"
    dataset = mr(IconImageSequence=Sequence([icon]), PixelData=(np.arange(256, dtype="<u2") | 0xF000).tobytes())
    dataset[0x60003000] = DataElement(0x60003000, "OW", b"ZWYPLKOR")
    dataset[0x60004000] = DataElement(0x60004000, "LT", "ZWYPLKOR")
    dataset[0x50003000] = DataElement(0x50003000, "OW", b"QUIXOTEA")
    result = dcmread(BytesIO(result_of(dataset)))
    assert not [element.tag for element in result if element.tag.group in (0x6000, 0x5000)]
    assert "IconImageSequence" not in result
    assert (np.frombuffer(result.PixelData, "<u2") == np.arange(256)).all()


def test_bytes_behind_the_pixels_go():
    dataset = mr(PixelData=np.arange(256, dtype="<u2").tobytes() + b"QUIXOTEA")
    assert b"QUIXOTEA" not in result_of(dataset)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_comments_inside_compressed_frames_go_and_pixels_stay(syntax):
    pixels = np.random.default_rng(1).integers(0, 4095, (64, 64), dtype="<u2")
    dataset = mr(PixelData=pixels.tobytes(), Rows=64, Columns=64)
    if syntax == JPEG2000Lossless:
        dataset.compress(syntax, generate_instance_uid=False)
        (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
        marker, at = b"\xff\x64", 2 + 2 + int.from_bytes(frame[4:6], "big")
        comment = b"QUIXOTEA"
        segment = marker + (len(comment) + 4).to_bytes(2, "big") + b"\x00\x01" + comment
    else:
        frame = bytes.fromhex("ffd8 fff7000b080010001001011100 ffda0008010100000000 414243 ffd9")
        at, segment = 2, b"\xff\xfe\x00\x0aQUIXOTEA"
    poisoned = frame[:at] + segment + frame[at:] + b"ZWYPLKOR"
    clean = without_comments(poisoned, str(syntax))
    assert b"QUIXOTEA" not in clean
    assert b"ZWYPLKOR" not in clean
    if syntax == JPEG2000Lossless:
        dataset.PixelData = encapsulate([poisoned])
        result = dcmread(BytesIO(result_of(dataset)))
        assert result.file_meta.TransferSyntaxUID == syntax
        assert (result.pixel_array == pixels).all()
    else:
        assert clean.rstrip(b"\x00") == frame.rstrip(b"\x00")


def test_a_broken_codestream_is_not_given_out():
    with pytest.raises(BrokenCodestreamError):
        without_comments(b"QUIXOTEA", str(JPEG2000Lossless))


@requirement("PS3.15 E.3.4: clean structured content")
def test_structured_content_keeps_numbers_and_codes_and_loses_texts_and_names():
    def code(value: str, scheme: str, meaning: str) -> Sequence:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
        return Sequence([item])

    def content(value_type: str, name: Sequence, **values: Any) -> Dataset:
        item = Dataset()
        item.ValueType, item.ConceptNameCodeSequence = value_type, name
        for key, value in values.items():
            setattr(item, key, value)
        return item

    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "12.5", code("mm", "UCUM", "mm")
    report = mr(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", Modality="SR", ValueType="CONTAINER")
    for name in ("PixelData", "Rows", "Columns"):
        delattr(report, name)
    report.ConceptNameCodeSequence = code("126000", "DCM", "Imaging Measurement Report")
    report.ContentSequence = Sequence(
        [
            content("TEXT", code("121106", "DCM", "Comment"), TextValue="QUIXOTEA has pain"),
            content("PNAME", code("121008", "DCM", "Person Observer Name"), PersonName="ZWYPLKOR"),
            content("NUM", code("103355008", "SCT", "Width"), MeasuredValueSequence=Sequence([measured])),
            content("CODE", code("121071", "DCM", "Finding"), ConceptCodeSequence=code("X", "99LOCAL", "王小东")),
            content("DATE", code("111060", "DCM", "Study Date"), Date="20210304"),
        ]
    )
    bytes_ = result_of(report)
    result = dcmread(BytesIO(bytes_))
    kinds = [item.ValueType for item in result.ContentSequence]
    assert kinds == ["NUM", "DATE"]
    assert result.ContentSequence[0].MeasuredValueSequence[0].NumericValue == 12.5
    assert result.ContentSequence[0].ConceptNameCodeSequence[0].CodeMeaning == "Width"
    assert not any(form in bytes_ for secret in SECRETS for form in forms(secret))
    with pytest.raises(HeldBackError, match="structured-content"):
        done(report, profile=Profile(Options.of(off=["clean_structured_content"])))


@pytest.mark.parametrize(
    "uid", ["1.2.840.10008.5.1.4.1.1.104.1", "1.2.840.10008.5.1.4.1.1.77.1.1.1", "1.3.12.2.1107.5.9.1", ""]
)
def test_classes_without_a_rule_are_held_back(uid):
    with pytest.raises(HeldBackError, match="sop-class-not-covered"):
        done(mr(SOPClassUID=uid, EncapsulatedDocument=b"%PDF QUIXOTEA"))


def test_what_is_nested_too_deep_is_held_back():
    inner = Dataset()
    for _ in range(40):
        outer = Dataset()
        outer.ReferencedImageSequence = Sequence([inner])
        inner = outer
    with pytest.raises(HeldBackError, match="nested-too-deep"):
        done(mr(ReferencedImageSequence=Sequence([inner])))


def test_options_keep_what_they_name_and_say_so():
    chosen = Profile(
        Options.of(on=["device_identity", "patient_characteristics", "safe_private"], off=["modified_dates"])
    )
    dataset = mr(
        DeviceSerialNumber="SN12345", PatientAge="093Y", PatientSex="F", PatientWeight="61", StudyTime="101112"
    )
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", "800")
    block.add_new(0x0D, "CS", "QUIXOTEA")
    result = dcmread(BytesIO(result_of(dataset, profile=chosen)))
    assert (result.DeviceSerialNumber, result.PatientAge, result.PatientWeight) == ("SN12345", "090Y", 61)
    assert result.private_block(0x0019, "SIEMENS MR HEADER")[0x0C].value == 800
    assert 0x0D not in result.private_block(0x0019, "SIEMENS MR HEADER")
    assert result.StudyDate in ("", "19000101")
    assert result.LongitudinalTemporalInformationModified == "REMOVED"
    codes = [item.CodeValue for item in result.DeidentificationMethodCodeSequence]
    assert codes[0] == "113100"
    assert {"113109", "113108", "113111"} <= set(codes)
    assert "113107" not in codes
    plain = dcmread(BytesIO(result_of(dataset)))
    assert plain.DeviceSerialNumber == "REMOVED"
    assert "PatientAge" not in plain
    assert not [element.tag for element in plain if element.tag.is_private]


def test_uids_are_kept_only_when_asked():
    kept = dcmread(BytesIO(result_of(mr(), profile=Profile(Options.of(on=["uids"])))))
    assert kept.StudyInstanceUID == "1.2.3.4.5.222222"
    assert re.fullmatch(r"2\.25\.\d{1,39}", str(dcmread(BytesIO(result_of(mr()))).StudyInstanceUID))


def test_an_unknown_option_is_refused():
    with pytest.raises(InvalidRequestError):
        Options.of(on=["everything"])


def test_descriptions_keep_reviewed_words_alone():
    result = done(mr(SeriesDescription="T2 TSE sag L4/5 Quixotea 腰椎")).dataset
    assert result.SeriesDescription == "T2 TSE sag L4 5 腰椎"


def test_the_log_names_attributes_and_no_values():
    log = done(mr()).log
    assert log["PatientName", "emptied"] == 1
    assert not any(secret in str(log) for secret in SECRETS)


@requirement("PS3.15 E.3.1: clean pixel data")
def test_suspects_without_a_statement_are_held_back_and_a_declared_text_is():
    with pytest.raises(HeldBackError, match="burnt-in-text-not-excluded"):
        done(mr(SOPClassUID=SECONDARY_CAPTURE))
    with pytest.raises(HeldBackError, match="burnt-in-text-declared"):
        done(mr(BurnedInAnnotation="YES"))
    assert done(mr(SOPClassUID=SECONDARY_CAPTURE, BurnedInAnnotation="NO")).dataset.BurnedInAnnotation == "NO"
    with pytest.raises(HeldBackError, match="not-looked-for"):
        done(mr(SOPClassUID=SECONDARY_CAPTURE), profile=Profile(Options.of(off=["clean_pixel_data"])))


def test_short_and_undecodable_pixels_are_held_back():
    with pytest.raises(HeldBackError, match="undecodable"):
        done(mr(PixelData=b"\x00" * 10))


class TestVerification:
    """The independent scanner finds what a careless de-identifier would leave."""

    @pytest.mark.parametrize(
        "change",
        [
            {"SeriesDescription": "T2 QUIXOTEA"},
            {"ImageComments": "王小东"},
            {"PatientID": "8675309441"},
            {"StudyInstanceUID": "1.2.3.4.5.222222"},
            {"ContentDate": "20210304"},
        ],
    )
    def test_it_finds_what_is_left(self, change):
        original = mr()
        careless = done(original).dataset
        for name, value in change.items():
            setattr(careless, name, value)
        assert verify(original, written(careless), shift_days=identity_of(original).shift_days)

    def test_it_finds_bytes_in_pixels_and_never_says_the_value(self):
        original = mr()
        careless = done(original).dataset
        careless.PixelData = b"QUIXOTEA" + careless.PixelData[8:]
        (found,) = verify(original, written(careless), shift_days=identity_of(original).shift_days)
        assert (found.attribute, found.where) == ("PatientName", "pixel data")


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(changes=st.lists(st.tuples(st.integers(132, 2000), st.integers(0, 255)), min_size=1, max_size=20))
def test_a_file_broken_anywhere_never_ends_a_run_nor_lets_a_name_through(tmp_path_factory, changes):
    whole = bytearray(written(planted([(0x00081030, "LO", "QUIXOTEA"), (0x00104000, "LT", "ZWYPLKOR")], 1, True)))
    for place, value in changes:
        whole[place % len(whole)] = value
    folder = tmp_path_factory.mktemp("broken")
    project = Project("p", PROFILE, ProjectPseudonyms(KEY))
    report = deidentify_all([bytes(whole)], folder, project, Subject.of_file, lambda _: None)
    assert report.read == report.written + report.no_dicom + sum(report.held_back.values()) == 1
    for path in folder.rglob("*.dcm"):
        content = path.read_bytes()
        assert b"QUIXOTEA" not in content
        assert b"ZWYPLKOR" not in content


def test_a_disk_or_database_that_fails_ends_the_run(tmp_path):
    def fails(_):
        raise UpstreamError("no database")

    project = Project("p", PROFILE, ProjectPseudonyms(KEY))
    with pytest.raises(UpstreamError):
        deidentify_all([written(mr(Rows=4, Columns=4, PixelData=bytes(32)))], tmp_path, project, Subject.of_file, fails)
    assert not list(tmp_path.rglob("*.dcm"))
