"""ActivityNet Captions: paragraphs and moments of the real files, and broken ones."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest

from vtr_jax.data.annotations import MissingSplit, available_splits
from vtr_jax.data.annotations.activitynet import read_activitynet
from vtr_jax.data.frame_rules import Sampling
from vtr_jax.data.frame_store.jobs import list_jobs
from vtr_jax.data.split import check_overlap, find_video_files


@pytest.fixture(scope="module")
def real(real_annotations) -> Path:
    return real_annotations / "activitynet"


@pytest.mark.parametrize(
    "split, clips, first, last, digests, left_out",
    [
        (
            *("train", 10_009, "v_sJFgo9H6zNo", "v_JK1Wn9sORbs"),
            *("ac5f742548ea e7fc3c3326b5", "15 of 10024 ids left out: no sentences"),
        ),
        (
            *("val", 4917, "v_JDg--pjY5gg", "v_t0ZuC58UIOM"),
            *("32feeb7220a9 21e8cf36b954", "9 of 4926 ids left out: no sentences"),
        ),
    ],
)
def test_real_paragraphs(real, digest, split, clips, first, last, digests, left_out):
    read = read_activitynet(real, split)
    assert len(read.clips) == len(read.captions) == clips
    assert read.caption_clip.tolist() == list(range(clips))
    assert (read.clips[0].clip_id, read.clips[-1].clip_id) == (first, last)
    assert f"{digest(read.captions[0])} {digest(read.captions[-1])}" == digests
    assert read.notes == (left_out,)


def test_real_pairs_follow_the_ids(real, pairs):
    data = json.loads((real / "val_1.json").read_text())
    ids = [each for each in json.loads((real / "val_ids.json").read_text()) if each in data]
    read = read_activitynet(real, "val")
    assert pairs(read) == [[each, " ".join(data[each]["sentences"])] for each in ids]
    assert {clip.start for clip in read.clips} == {0.0}
    assert [clip.end for clip in read.clips] == [math.ceil(data[each]["duration"]) for each in ids]


def test_test_is_the_first_validation_set(real):
    test, val = read_activitynet(real, "test"), read_activitynet(real, "val")
    assert test.name == "test" and test.sha256() == val.sha256()
    second = read_activitynet(real, "val", val_file="val_2")
    assert len(second.clips) == 4885 and second.sha256() != val.sha256()
    assert not check_overlap(read_activitynet(real, "train"), test)


@pytest.mark.parametrize(
    "split, moments, left_out",
    [("train", 37_417, "4 moments left out: start is not before end"), ("val", 17_505, None)],
)
def test_real_moments(real, split, moments, left_out):
    read = read_activitynet(real, split, moments=True)
    assert len(read.captions) == moments
    assert all(clip.start < clip.end for clip in read.clips)
    assert (left_out in read.notes) == (left_out is not None)


def test_lists_of_collaborative_experts_hold_the_ids_with_captions(real, tmp_path):
    for source in ("val_1.json", "val_1_list.txt"):
        (tmp_path / source).write_bytes((real / source).read_bytes())
    read = read_activitynet(tmp_path, "val")
    ids = {clip.clip_id for clip in read.clips}
    assert ids == {clip.clip_id for clip in read_activitynet(real, "val").clips}
    assert not read.notes


ENTRIES = {
    "v_-abc": {"duration": 10.2, "timestamps": [[0, 5], [4.5, 10]], "sentences": ["A", " B."]},
    "v_v_de": {"duration": 7, "timestamps": [[1, 1]], "sentences": ["C."]},
}


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "train_ids.json").write_text(json.dumps(["v_v_de", "v_gone", "v_-abc"]))
    (tmp_path / "train.json").write_text(json.dumps(ENTRIES))
    return tmp_path


def test_paragraphs_and_whole_seconds(folder, pairs):
    read = read_activitynet(folder, "train")
    assert pairs(read) == [["v_v_de", "C."], ["v_-abc", "A  B."]]
    assert [(clip.start, clip.end) for clip in read.clips] == [(0, 7), (0, 11)]
    assert read.notes == ("1 of 3 ids left out: no sentences",)


def test_moments(folder, pairs):
    read = read_activitynet(folder, "train", moments=True)
    assert pairs(read) == [["v_-abc#0-5", "A"], ["v_-abc#4.5-10", "B."]]
    assert [(clip.start, clip.end) for clip in read.clips] == [(0, 5), (4.5, 10)]
    assert read.notes[1] == "1 moments left out: start is not before end"


def test_whole_seconds_cut_moments_down(folder, pairs):
    read = read_activitynet(folder, "train", moments=True, whole_seconds=True)
    assert pairs(read) == pairs(read_activitynet(folder, "train", moments=True))
    assert [(clip.start, clip.end) for clip in read.clips] == [(0, 5), (4, 10)]


@pytest.mark.parametrize(
    "names",
    [("v_-abc.mp4", "v_v_de.mkv"), ("-abc.webm", "v_de.mp4"), ("x/-abc.mp4", "x/v_v_de.mp4")],
)
def test_video_files_with_and_without_prefix(folder, names):
    (folder / "videos" / "x").mkdir(parents=True)
    for name in names:
        (folder / "videos" / name).write_bytes(b"x")
    for moments in (False, True):
        split = read_activitynet(folder, "train", moments=moments)
        found, missing = find_video_files(split, folder / "videos")
        assert not missing and len(found) == 2


def test_what_was_looked_for_is_said(folder):
    (folder / "videos").mkdir()
    _, missing = find_video_files(read_activitynet(folder, "train"), folder / "videos")
    assert missing["v_v_de"].startswith("v_v_de.mp4, or v_de.mp4: not in")


def test_gzipped_captions(folder):
    expected = read_activitynet(folder, "train").sha256()
    content = (folder / "train.json").read_bytes()
    (folder / "train.json").unlink()
    (folder / "train.json.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + content))
    assert read_activitynet(folder, "train").sha256() == expected
    (folder / "train.json.gz").write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(ValueError, match="train.json.gz: no whole gzip file"):
        read_activitynet(folder, "train")
    (folder / "train.json.gz").write_bytes(content)
    with pytest.raises(ValueError, match="train.json.gz: no whole gzip file"):
        read_activitynet(folder, "train")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"duration": "9"}, "v_-abc has duration '9', expected seconds above 0"),
        ({"duration": 0}, "has duration 0, expected"),
        ({"duration": float("inf")}, "has duration inf, expected"),
        ({"duration": None}, "has duration None, expected"),
        ({"sentences": "A"}, "has sentences 'A', expected a list of texts"),
        ({"sentences": []}, "has no sentence that is not blank"),
        ({"sentences": [" ", ""]}, "has no sentence that is not blank"),
        ({"timestamps": [[0, 5]]}, "expected a pair for each sentence"),
        ({"timestamps": [[0, 5], [1]]}, "expected pairs of seconds"),
        ({"timestamps": [[0, 5], [1, "x"]]}, "expected pairs of seconds"),
    ],
)
def test_broken_entries(folder, change, message):
    broken = {**ENTRIES, "v_-abc": {**ENTRIES["v_-abc"], **change}}
    (folder / "train.json").write_text(json.dumps(broken))
    with pytest.raises(ValueError, match=f"train.json: v_-abc .*{message}|{message}"):
        read_activitynet(folder, "train")


@pytest.mark.parametrize(
    "ids, message",
    [
        ('["v_v_de", "x", "v_v_de"]', "train_ids.json: 1 ids stand twice, e.g. v_v_de"),
        ("[]", "expected a list of video ids"),
        ("[1]", "expected a list of video ids"),
        ('["v_de"]', r"none of its 1 ids has sentences in .*ids like \['v_-abc', 'v_v_de'\]"),
    ],
)
def test_broken_ids(folder, ids, message):
    (folder / "train_ids.json").write_text(ids)
    with pytest.raises(ValueError, match=message):
        read_activitynet(folder, "train")


def test_ids_that_stand_twice_in_the_captions(folder):
    (folder / "train.json").write_text('{"v_v_de": 1,\n\n"v_v_de": 2}')
    with pytest.raises(ValueError, match="train.json, line 3: 'v_v_de' stands twice"):
        read_activitynet(folder, "train")


def test_missing_files(folder):
    assert available_splits("activitynet", folder) == ("train",)
    with pytest.raises(MissingSplit, match="'test' needs val_ids.json or val_1_list.txt"):
        read_activitynet(folder, "test")
    with pytest.raises(ValueError, match="val_file is 'val_3'.*did you mean val_"):
        read_activitynet(folder, "test", val_file="val_3")


@pytest.mark.parametrize("prefix", ["v_", ""])
def test_folders_of_frames_with_and_without_prefix(folder, prefix):
    split = read_activitynet(folder, "train")
    for clip in split.clips:
        (folder / "frames" / (prefix + clip.clip_id.removeprefix("v_"))).mkdir(parents=True)
    sampling = Sampling("emcl_folder")
    jobs, files = list_jobs([split], folder / "frames", sampling)
    assert not files.missing and all(job.path.is_dir() for job in jobs)
    (folder / "empty").mkdir()
    _, files = list_jobs([split], folder / "empty", sampling)
    assert files.missing["v_v_de"].startswith("v_v_de, or v_de: no such folder in")
