"""check-data: known and other counts, overlap, cut captions, videos of every kind; its output."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from vtr_jax.cli import main
from vtr_jax.data.annotations import READERS
from vtr_jax.data.check_data import check_data, report_text
from vtr_jax.data.check_data.known import known_counts

CUT = {"train": 2901, "val": 1275, "test": 1275}


@pytest.fixture(scope="module")
def real(shared_dir) -> Path:
    return shared_dir / "annotations"


@pytest.mark.parametrize(
    "dataset, splits, missing",
    [
        ("msvd", {"train": 1200, "val": 100, "test": 670}, set()),
        ("activitynet", {"train": 10_009, "val": 4917, "test": 4917}, set()),
        ("didemo", {"val": 1065, "test": 1004}, {"train"}),
        ("msrvtt", {"test": 1000}, {"train", "val"}),
    ],
)
def test_real_folders_are_as_known(real, dataset, splits, missing):
    report = check_data(dataset, real / dataset)
    assert report.problems == ()
    assert {each.name: each.clips for each in report.splits} == splits
    assert set(report.missing) == missing
    assert all(each.as_known for each in report.splits)
    assert not any("texts or order differ" in note for each in report.splits for note in each.notes)
    assert all(not each.clips or each.expected for each in report.overlaps)
    assert "no problems" in report_text(report)


def test_real_paragraphs_that_are_cut(real):
    report = check_data("activitynet", real / "activitynet")
    assert {each.name: each.captions_cut for each in report.splits} == CUT
    assert {each.max_words for each in report.splits} == {64}
    shorter = check_data("activitynet", real / "activitynet", splits=["val"], max_words=32)
    assert shorter.splits[0].captions_cut == sum(
        count for tokens, count in shorter.splits[0].tokens.items() if tokens > 32
    )


def test_clips_of_the_same_youtube_video_are_counted(real):
    """MSVD's lists cut through the clips of a few videos; that is how they are published."""
    report = check_data("msvd", real / "msvd")
    ids = {
        name: (real / "msvd" / f"{name}_list.txt").read_text().split()
        for name in ("train", "val", "test")
    }
    for each in report.overlaps:
        sources = {clip_id[:11] for clip_id in ids[each.one]}
        assert each.same_source == sum(clip_id[:11] in sources for clip_id in ids[each.other])
    assert "more from the same source videos" in report_text(report)
    assert check_data("didemo", real / "didemo").overlaps[0].same_source is None


def test_synthetic_lines_are_not_the_known_number(real):
    report = check_data("lsmdc", real / "lsmdc")
    assert "train: 14 captions, expected 101079" in report.problems
    assert [each.as_known for each in report.splits] == [False] * 3
    assert "DIFFERENT: expected 1000 clips, 1000 captions" in report_text(report)
    assert "DIFFERENT: expected 101079 captions" in report_text(report)


def test_real_lists_without_captions(real, capsys):
    assert main(["check-data", "--dataset=vatex", f"--annotations={real / 'vatex'}"]) == 1
    shown = capsys.readouterr()
    assert "25991 videos in train_list.txt" in shown.out
    assert "no split of vatex is there" in shown.out
    assert "  train: 25991 clips, as known\n  val: 1500 clips, as known" in shown.out
    assert "  val and test: none" in shown.out
    assert shown.err.strip() == "vtr check-data: 1 problem, listed above"


def test_lists_without_captions_are_checked_for_overlap_and_videos(tmp_path):
    for name, ids in {"train": "abc", "val": "de", "test": "cf"}.items():
        (tmp_path / f"{name}_list.txt").write_text("\n".join(ids))
    (tmp_path / "videos").mkdir()
    for dataset in ("vatex", "msvd"):
        report = check_data(dataset, tmp_path, videos_dir=tmp_path / "videos")
        assert [(each.name, each.clips) for each in report.lists] == [
            ("train", 3),
            ("val", 2),
            ("test", 2),
        ]
        assert report.videos.clips == len(report.videos.missing) == 6
        expected = known_counts(dataset, "train", {}).clips
        assert f"train: 3 clips in its list, expected {expected}" in report.problems
        assert "train and test share 1 clips: c" in report.problems
        assert "train: 3 clips, DIFFERENT from the known number" in report_text(report)


def test_lists_of_msrvtt_without_captions_are_counted(tmp_path):
    (tmp_path / "train_list_jsfusion.txt").write_text("video0\nvideo1\n")
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text("video_id,sentence\nvideo1,a dog\n")
    report = check_data("msrvtt", tmp_path)
    assert [each.name for each in report.splits] == ["test"]
    assert [(each.name, each.clips) for each in report.lists] == [("train", 2)]
    assert "test and train share 1 clips: video1" in report.problems


@pytest.mark.parametrize(
    "dataset, split, options, clips, captions",
    [
        ("msrvtt", "train", {}, 9000, 180_000),
        ("msrvtt", "train", {"train_list": "7k"}, 7010, 140_200),
        ("msrvtt", "test", {"test_list": "full"}, 2990, 59_800),
        ("msrvtt", "val", {"train_list": "full"}, 497, 9940),
        ("activitynet", "val", {"val_file": "val_2"}, 4885, 4885),
        ("activitynet", "val", {"moments": True}, None, 17_505),
        ("didemo", "train", {}, 8392, 8392),
        ("vatex", "test", {"test_list": "1k5_sec"}, 1500, 15_000),
        ("lsmdc", "train", {"system": "drl"}, None, 101_079),
    ],
)
def test_known_counts(dataset, split, options, clips, captions):
    known = known_counts(dataset, split, options)
    assert (known.clips, known.captions) == (clips, captions)


def test_where_nothing_is_known():
    assert known_counts("table", "train", {}) is None
    assert known_counts("lsmdc", "train", {"system": "emcl"}) is None
    assert known_counts("didemo", "train", {"moments": True}) is None


@pytest.mark.parametrize("split, moments", [("val", 4109), ("test", 3932)])
def test_moments_have_known_counts_too(real, split, moments):
    report = check_data("didemo", real / "didemo", splits=[split], moments=True)
    assert report.splits[0].as_known and report.splits[0].captions == moments
    assert report.options == {"moments": True}


# A table of one's own, with and without videos.


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "own.csv"
    path.write_text(
        "video,caption,split\n"
        "clip0.mp4,a dog,train\n"
        "clip0.mp4,a dog,train\n"
        "clip1.mp4,a dog,train\n"
        "clip1.mp4," + "very " * 40 + "long,train\n"
        "clip2.mp4,a cat,test\n"
    )
    return path


def test_counts_tokens_and_notes(table):
    report = check_data("table", table)
    train, test = report.splits
    assert report.problems == () and report.videos is None
    assert (train.clips, train.captions, train.captions_per_clip) == (2, 4, {2: 2})
    assert train.tokens == {4: 3, 43: 1} and train.captions_cut == 1
    assert (train.known, train.as_known) == (None, None)
    assert len(train.sha256) == 64 and train.sha256 != test.sha256
    assert train.notes == (
        "train: 1 captions repeat another one of the same clip",
        "train: 1 texts describe more than one clip; each caption is judged by its own clip",
    )
    text = report_text(report)
    assert "train and test: none" in text and "videos: not checked" in text
    assert "1 (25.0%)" in text and "1 to 8" in text and "33 to 43" in text


def test_split_names_that_no_program_reads_are_noted(table):
    table.write_text(table.read_text().replace(",test", ",Test"))
    report = check_data("table", table)
    assert report.splits[1].notes[0].startswith("Test: this split is none of train, val, test")
    assert report.splits[1].notes[0].endswith("did you mean test?")
    assert not any("none of train" in note for note in report.splits[0].notes)


def test_without_a_column_split_every_row_is_checked(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("video,caption\na.mp4,a dog\nb.mp4,a cat\n")
    report = check_data("table", path)
    assert [(each.name, each.captions) for each in report.splits] == [("all", 2)]
    (note,) = report.splits[0].notes
    assert note.startswith("all: no column 'split', so every row is taken; evaluate with --split=")
    assert not report.problems


def test_a_split_that_is_asked_for_and_missing_is_told_once(table):
    report = check_data("table", table, splits=["tset"])
    assert len(report.problems) == 1 and report_text(report).count("did you mean test?") == 1


def test_overlap_is_a_problem(table):
    with table.open("a") as file:
        file.write("clip1.mp4,again,test\n")
    report = check_data("table", table)
    assert report.problems == ("train and test share 1 clips: clip1",)
    assert report.overlaps[0].clips == ("clip1",)
    assert "train and test: 1 clips" in report_text(report)


def test_a_broken_split_does_not_hide_the_others(tmp_path, real):
    for name in ("val_data.json", "val_list.txt", "test_data.json"):
        shutil.copyfile(real / "didemo" / name, tmp_path / name)
    (tmp_path / "test_list.txt").write_text("a\na\n")
    report = check_data("didemo", tmp_path)
    assert [each.name for each in report.splits] == ["val"]
    assert len(report.problems) == 1 and "line 2: a stands on line 1 too" in report.problems[0]


def test_splits_that_are_asked_for_must_be_there(table):
    report = check_data("table", table, splits=["train", "val"])
    assert [each.name for each in report.splits] == ["train"]
    assert len(report.problems) == 1 and "no rows of split 'val'" in report.problems[0]


def test_other_texts_than_the_public_ones_are_noted(real, tmp_path):
    for name in ("val_list.txt", "captions_msvd.json"):
        shutil.copyfile(real / "msvd" / name, tmp_path / name)
    captions = json.loads((tmp_path / "captions_msvd.json").read_text())
    next(iter(captions.values()))[0] += "!"
    first = (tmp_path / "val_list.txt").read_text().split()[0]
    captions[first][0] += "!"
    (tmp_path / "captions_msvd.json").write_text(json.dumps(captions))
    check = check_data("msvd", tmp_path).splits[0]
    assert check.as_known and "texts or order differ from the public files" in check.notes[-1]


@pytest.fixture
def doubtful_videos(table, video_folder, tmp_path) -> Path:
    """clip0 whole, clip1 its copy, clip2 empty, clip3 no video, clip4 gone, clip5 too short."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("clip0", "clip1"):
        shutil.copyfile(video_folder / "clip0.mp4", videos / f"{name}.mp4")
    (videos / "clip2.mp4").write_bytes(b"")
    (videos / "clip3.mp4").write_bytes(b"no video at all")
    shutil.copyfile(video_folder / "clip5.mp4", videos / "clip5.webm")
    table.write_text(
        "video,caption,split,start,end\n"
        + "".join(f"clip{n}.mp4,text {n},train,,\n" for n in range(5))
        + "clip5.mp4,beyond,test,90,95\nclip5.mp4,within,test,0,2\n"
    )
    return videos


def test_videos_of_every_kind(table, doubtful_videos):
    report = check_data("table", table, videos_dir=doubtful_videos, workers=1)
    videos = report.videos
    assert (videos.clips, videos.files) == (7, 5)
    assert set(videos.missing) == {"clip4"} and "clip4.mp4: not in" in videos.missing["clip4"]
    assert videos.unreadable == {"clip2.mp4": "empty file", "clip3.mp4": "not a video"}
    assert videos.duplicates == (("clip0.mp4", "clip1.mp4"),)
    assert set(videos.beyond) == {"clip5#90-95"}
    assert len(report.problems) == 5
    kinds = (
        "1 of 7 clips have no video",
        "empty file",
        "not a video",
        "beyond the end",
        "same file",
    )
    for kind, problem in zip(kinds, report.problems, strict=True):
        assert problem.startswith("videos: ") and kind in problem
    assert "5 files for 7 clips; 1 clips without one" in report_text(report)


def test_videos_that_end_early_are_a_problem(tmp_path, faststart):
    """A file whose index stands in front opens whole, however much of it is there."""
    path = tmp_path / "own.csv"
    names = ("whole", "half", "hole")
    path.write_text("video,caption\n" + "".join(f"{name}.mp4,{name}\n" for name in names))
    report = check_data("table", path, videos_dir=faststart, workers=1)
    assert report.videos.early == {
        "half.mp4": "ends early: 5 of 10 chosen frames",
        "hole.mp4": "ends early: 4 of 10 chosen frames",
    }
    (problem,) = report.problems
    assert problem.startswith(
        "videos: 2 of 3 videos end early or are damaged inside: half.mp4 (ends"
    )
    assert "2 that end early" in report_text(report)


@pytest.fixture
def folders_of_frames(table, tmp_path) -> Path:
    """clip0 whole, clip1 without images, clip2 of damaged ones, clip3 a file."""
    videos = tmp_path / "videos"
    for name in ("clip0", "clip1", "clip2"):
        (videos / name).mkdir(parents=True)
    for number in range(1, 4):
        Image.new("RGB", (8, 8)).save(videos / "clip0" / f"img_{number:05d}.jpg")
    (videos / "clip2" / "img_00001.jpg").write_bytes(b"no image")
    (videos / "clip3.mp4").write_bytes(b"a file")
    table.write_text("video,caption\n" + "".join(f"clip{n}.mp4,text {n}\n" for n in range(4)))
    return videos


def test_folders_of_frames(table, folders_of_frames):
    report = check_data(
        "table", table, videos_dir=folders_of_frames, workers=1, frame_rule="cap4video_folder"
    )
    videos = report.videos
    assert set(videos.missing) == {"clip3"} and videos.files == 3 and videos.folders
    assert videos.unreadable == {"clip1": "empty folder", "clip2": "not an image"}
    assert "3 folders of images for 4 clips" in report_text(report)


def test_folders_of_frames_are_recognised_without_their_rule(table, folders_of_frames):
    missing = check_data("table", table, videos_dir=folders_of_frames, workers=1).videos.missing
    assert set(missing) == {"clip0", "clip1", "clip2"}
    assert all(
        "is a folder; of images? Then give --frame_rule" in each for each in missing.values()
    )
    with pytest.raises(
        ValueError, match="frame_rule is 'cap4video', expected one of opencv, .*did"
    ):
        check_data("table", table, frame_rule="cap4video")


def test_many_equal_files_are_counted_and_five_named(tmp_path, video_folder):
    path = tmp_path / "own.csv"
    path.write_text("video,caption\n" + "".join(f"c{n}.mp4,{n}\n" for n in range(9)))
    for number in range(9):
        shutil.copyfile(video_folder / "clip0.mp4", tmp_path / f"c{number}.mp4")
    (problem,) = check_data("table", path, videos_dir=tmp_path, workers=1).problems
    assert problem.endswith("c0.mp4 = c1.mp4 = c2.mp4 = c3.mp4 = c4.mp4, and 4 more")


def test_whole_videos_are_no_problem(tmp_path, video_folder):
    path = tmp_path / "own.csv"
    path.write_text("video,caption\n" + "".join(f"clip{n}.mp4,{n}\n" for n in range(3)))
    report = check_data("table", path, videos_dir=video_folder, workers=1)
    assert report.problems == () and report.videos.files == 3


def test_command_writes_json_and_tells_by_its_exit_code(table, doubtful_videos, tmp_path, capsys):
    output = tmp_path / "report.json"
    arguments = ["check-data", f"--annotations={table}", f"--output={output}"]
    assert main(arguments) == 0
    written = json.loads(output.read_text())
    assert [each["name"] for each in written["splits"]] == ["train", "test"]
    assert written["videos"] is None and written["problems"] == []
    assert main([*arguments, f"--videos={doubtful_videos}", "--workers=1"]) == 1
    assert capsys.readouterr().err.strip().endswith("vtr check-data: 5 problems, listed above")
    assert len(json.loads(output.read_text())["problems"]) == 5


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dataset=msrvvt"], "did you mean msrvtt"),
        (["--dataset=didemo", "--moment=True"], "no option moment.*did you mean moments"),
        (["--dataset=didemo", "--moments=yes"], "test: moments is 'yes', expected True or False"),
        (["--videos=/none/here"], "/none/here: no such folder"),
        (["--output=/none/here/report.json"], "expected a file in a folder that exists"),
        (["--splits="], "splits names nothing"),
        (["--max_words=2"], "max_words is 2, expected at least 3"),
        (["--workers=0"], "workers is 0, expected at least 1"),
    ],
)
def test_what_cannot_be_asked_for(table, tmp_path, capsys, arguments, message):
    annotations = table if not arguments[0].startswith("--dataset") else tmp_path
    assert main(["check-data", f"--annotations={annotations}", *arguments]) == 1
    shown = capsys.readouterr()
    assert re.search(message, shown.out + shown.err)


def test_what_every_split_refuses_is_said_once(tmp_path):
    with pytest.raises(ValueError, match="didemo has no option moment; .*did you mean moments"):
        check_data("didemo", tmp_path, moment=True)
    report = check_data("didemo", tmp_path, moments="yes")
    assert report.problems == ("train, val, test: moments is 'yes', expected True or False",)


def test_help_names_data_sets_and_their_options(capsys):
    with pytest.raises(SystemExit):
        main(["check-data", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(name in shown for name in READERS)
    assert "train_list" in shown and "moments" in shown
