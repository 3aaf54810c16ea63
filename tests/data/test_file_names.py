"""Names in annotations that spell a file otherwise than the disk does."""

from __future__ import annotations

import os
import unicodedata

import pytest

from vtr_jax.data.check_data import check_data, report_text
from vtr_jax.data.find_files import find_files, find_frame_folders
from vtr_jax.data.frame_store import TooManyBadVideos
from vtr_jax.data.split import Split, VideoClip, find_video_files

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def split_of(*files):
    return Split("toy", "train", tuple(VideoClip(f"c{n}", f) for n, f in enumerate(files)), (), [])


def found_names(folder, *wanted):
    found, missing = find_video_files(split_of(*wanted), folder)
    assert missing == {}
    return [str(path.relative_to(folder)) for path in found.values()]


@pytest.mark.parametrize(
    ("on_disk", "wanted", "differences"),
    [
        (f"{DECOMPOSED}.mp4", f"{COMPOSED}.mp4", ["Unicode normalization"]),
        (f"{COMPOSED}.mp4", f"{DECOMPOSED}.mp4", ["Unicode normalization"]),
        ("UPPER.mp4", "upper.mp4", ["case"]),
        ("upper.mp4", "Upper.MP4", ["case"]),
        ("STRASSE.mp4", "straße.mp4", ["case"]),
        ("sub/a.mp4", "sub\\a.mp4", ["backslashes"]),
        ("sub\\a.mp4", "sub/a.mp4", ["backslashes"]),
        ("deep/er/sub/a.mp4", "sub\\a.mp4", ["backslashes"]),
        ("a.mp4", " a.mp4 ", ["surrounding spaces"]),
        (" a.mp4", "a.mp4", ["surrounding spaces"]),
        (f"Sub/{DECOMPOSED.upper()}.mp4", f"sub\\{COMPOSED}.mp4", ["case", "backslashes"]),
        ("UPPER.webm", "upper.mp4", ["case", "its extension"]),
    ],
)
def test_the_one_file_that_fits_is_taken_and_said(tmp_path, on_disk, wanted, differences):
    touch(tmp_path, on_disk, "other.mp4")
    assert found_names(tmp_path, wanted) == [on_disk]
    (how,) = find_files(split_of(wanted), tmp_path).respelled.values()
    assert all(each in how for each in (wanted, on_disk, *differences))


@pytest.mark.parametrize("name", [" lead.mp4", "trail .mp4", "a\\b.mp4", f"{DECOMPOSED}.mp4"])
def test_an_exact_name_comes_first_and_is_nothing_to_report(tmp_path, name):
    variants = {name.strip(), name.replace(" ", ""), name.replace("\\", "/").upper(), "x.mp4"}
    touch(tmp_path, name, *(variants - {name}))
    files = find_files(split_of(name), tmp_path)
    assert files.found == {"c0": tmp_path / name}
    assert (files.missing, files.respelled) == ({}, {})


def test_fewer_differences_come_first(tmp_path):
    touch(tmp_path, "SUB/a.mp4", "sub/A.mp4")
    assert found_names(tmp_path, "sub\\A.mp4") == ["sub/A.mp4"]


def test_several_files_that_fit_alike_are_all_shown(tmp_path):
    touch(tmp_path, "UPPER.mp4", "Upper.mp4")
    _, missing = find_video_files(split_of("upper.mp4"), tmp_path)
    assert all(name in missing["c0"] for name in ("UPPER.mp4", "Upper.mp4", "2 files"))


def test_nearest_names_are_shown_where_none_fits(tmp_path):
    touch(tmp_path, "video7012.mp4", "sub/video7013.mp4", "zebra.mp4")
    _, missing = find_video_files(split_of("video701.mp4"), tmp_path)
    assert "video7012.mp4" in missing["c0"] and "sub/video7013.mp4" in missing["c0"]
    assert "zebra" not in missing["c0"]


@pytest.mark.parametrize("name", ["x" * 300 + ".mp4", "a\0b.mp4", "a dog\nruns", "/", ".", ""])
def test_names_that_no_file_can_have_are_missing(tmp_path, name):
    touch(tmp_path, "a.mp4")
    files = find_files(split_of(name, "a.mp4"), tmp_path)
    assert set(files.missing) == {"c0"} and set(files.found) == {"c1"}


def test_folders_of_frames_are_found_alike(tmp_path):
    for name in (DECOMPOSED, "UPPER", "sub/a"):
        (tmp_path / name).mkdir(parents=True)
    split = split_of(f"{COMPOSED}.mp4", "upper.mp4", "sub\\a", "uper.mp4")
    files = find_frame_folders(split, tmp_path)
    assert [path.name for path in files.found.values()] == [DECOMPOSED, "UPPER", "a"]
    assert len(files.respelled) == 3 and "UPPER" in files.missing["c3"]


def test_an_unreadable_folder_is_said_to_be_one(tmp_path, monkeypatch):
    touch(tmp_path, "locked/a.mp4")
    scandir = os.scandir

    def fails(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fails)
    _, missing = find_video_files(split_of("a.mp4"), tmp_path)
    assert "locked cannot be read (Permission denied)" in missing["c0"]


def test_respelled_names_are_counted_in_both_reports(videos, prepare_small, tmp_path):
    (videos / "clip1.mp4").rename(videos / "CLIP1.mp4")
    table = tmp_path / "own.csv"
    table.write_text("video,caption\nclip0.mp4,x\nclip1.mp4,y\n")
    checked = check_data("table", table, videos_dir=videos, workers=1)
    assert checked.problems == () and set(checked.videos.respelled) == {"clip1"}
    report = prepare_small(split_of("clip0.mp4", "clip1.mp4"))
    assert set(report.respelled) == {"c1"} and report.as_dict()["respelled"] == report.respelled
    for text in (report_text(checked), str(report)):
        assert "1 clips" in text and "CLIP1.mp4" in text
    assert prepare_small(split_of("clip0.mp4", "clip1.mp4")).already_done == 2


def test_the_same_file_under_two_names_is_overlap(videos, prepare_small):
    """By their names they are two files."""
    (videos / "clip5.mp4").rename(videos / "CLIP5.mp4")
    train = Split("toy", "train", (VideoClip("a", "clip5.mp4", 0.0, 3.0),), (), [])
    test = Split("toy", "test", (VideoClip("b", "CLIP5.mp4", 2.0, 5.0),), (), [])
    assert prepare_small([train, test]).overlaps == {"test": ["b"]}


def test_a_missing_clip_shows_the_nearest_name(prepare_small, split_of_files):
    with pytest.raises(TooManyBadVideos, match=r"klip3\.mp4.*nearest names: clip3\.mp4"):
        prepare_small(split_of_files(["klip3.mp4"]))
