"""DiDeMo: paragraphs and moments of real and upstream-checked files, and broken ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from vtr_jax.data.annotations import MissingSplit, available_splits
from vtr_jax.data.annotations.didemo import read_didemo
from vtr_jax.data.split import check_overlap, find_video_files


@pytest.fixture(scope="module")
def real(real_annotations) -> Path:
    return real_annotations / "didemo"


@pytest.mark.parametrize(
    "split, clips, left_out, first, last, digests",
    [
        (
            *("val", 1065, "71 of 4180 descriptions left out: video not listed"),
            "35034348999@N01_6060447507_dc1a90b8ef.mov",
            "28517796@N06_7705157670_bdc7ee1aa2.mov",
            "569677afd3c9 66e46c82d2be",
        ),
        (
            *("test", 1004, "89 of 4021 descriptions left out: video not listed"),
            "26292851@N04_4253489686_265c3c8051.m4v",
            "38874031@N00_3245797082_1c35e6ac7c.mpg",
            "8073cc708517 19d8e81e8ad8",
        ),
    ],
)
def test_real_paragraphs(real, digest, split, clips, left_out, first, last, digests):
    read = read_didemo(real, split)
    assert len(read.clips) == len(read.captions) == clips
    assert {(clip.start, clip.end) for clip in read.clips} == {(0.0, 31.0)}
    assert (read.clips[0].clip_id, read.clips[-1].clip_id) == (first, last)
    assert f"{digest(read.captions[0])} {digest(read.captions[-1])}" == digests
    assert read.notes == (left_out,)


def test_real_pairs_follow_the_descriptions(real, pairs):
    listed = set((real / "val_list.txt").read_text().split())
    texts: dict[str, list[str]] = {}
    for entry in json.loads((real / "val_data.json").read_text()):
        if entry["video"] in listed:
            texts.setdefault(entry["video"], []).append(entry["description"])
    read = read_didemo(real, "val")
    assert pairs(read) == [[video, " ".join(of_video)] for video, of_video in texts.items()]


@pytest.mark.parametrize("split, moments, bare_dots", [("val", 4109, 12), ("test", 3932, 27)])
def test_real_moments(real, split, moments, bare_dots):
    read = read_didemo(real, split, moments=True)
    assert len(read.captions) == moments
    assert all(0 <= clip.start < clip.end <= 30 for clip in read.clips)
    names = {clip.file for clip in read.clips}
    assert sum(name.endswith(".") for name in names) == bare_dots


def test_real_splits_are_disjoint(real):
    assert not check_overlap(read_didemo(real, "val"), read_didemo(real, "test"))


@pytest.fixture
def synthetic(real, tmp_path) -> tuple[Path, dict]:
    shutil.copyfile(real / "train_data.synthetic.json", tmp_path / "train_data.json")
    shutil.copyfile(real / "train_list.synthetic.txt", tmp_path / "train_list.txt")
    return tmp_path, json.loads((real / "synthetic.expected.json").read_text())


def test_pairs_are_those_of_the_upstream_loader(synthetic, pairs):
    folder, expected = synthetic
    read = read_didemo(folder, "train")
    assert {(clip.start, clip.end) for clip in read.clips} == {tuple(expected["start_end"])}
    with_file = {clip.clip_id for clip in read.clips} - {expected["video_without_a_file"]}
    assert pairs(read.restrict(with_file)) == expected["pairs"]


def test_unmodified_files_of_which_emcl_makes_nothing(synthetic):
    folder, expected = synthetic
    assert expected["emcl_hbi_pairs_with_these_unmodified_files"] == 0
    for system in ("emcl", "hbi", "internvideo"):
        theirs = read_didemo(folder, "train", system=system)
        assert theirs.sha256() == read_didemo(folder, "train").sha256()


@pytest.mark.parametrize("bare_list, bare_json", [(True, False), (False, True), (True, True)])
def test_names_without_extensions_in_either_file(synthetic, pairs, bare_list, bare_json):
    folder, _ = synthetic
    expected = read_didemo(folder, "train")

    def bare(name: str) -> str:
        return name.rpartition(".")[0]

    if bare_list:
        names = (folder / "train_list.txt").read_text().split()
        (folder / "train_list.txt").write_text("\n".join(map(bare, names)))
    if bare_json:
        entries = json.loads((folder / "train_data.json").read_text())
        entries = [{**entry, "video": bare(entry["video"])} for entry in entries]
        (folder / "train_data.json").write_text(json.dumps(entries))
    read = read_didemo(folder, "train")
    assert read.captions == expected.captions
    ids = [clip.clip_id for clip in expected.clips]
    assert [clip.clip_id for clip in read.clips] == ([*map(bare, ids)] if bare_list else ids)


NAMES = ["-a@N0_1.mov", "_b@N0_2.", "c@N0_3.null", "d@N0_4.3gp"]


def entry(video: str, text: str, *times: list[int]) -> dict:
    return {"video": video, "description": text, "times": list(times)}


@pytest.fixture
def folder(tmp_path) -> Path:
    entries = [entry(name, f"text of {name}", [0, 1], [1, 1]) for name in NAMES]
    entries.append(entry("-a@N0_1.avi", "the same, saved twice", [0, 0]))
    entries.append(entry(NAMES[0], "more", [0, 5]))
    (tmp_path / "test_data.json").write_text(json.dumps(entries))
    (tmp_path / "test_list.txt").write_text("\n".join(reversed(NAMES)) + "\n")
    return tmp_path


def test_a_video_listed_under_one_extension_only(folder, pairs):
    read = read_didemo(folder, "test")
    assert pairs(read)[0] == ["-a@N0_1.mov", "text of -a@N0_1.mov more"]
    assert [clip.clip_id for clip in read.clips] == NAMES
    assert read.notes == ("1 of 6 descriptions left out: video not listed",)


def test_moments_are_the_mean_of_the_annotators(folder, pairs):
    read = read_didemo(folder, "test", moments=True)
    assert [each[0] for each in pairs(read)][:2] == ["-a@N0_1.mov#2.5-10", "-a@N0_1.mov#0-30"]
    assert (read.clips[0].start, read.clips[0].end) == (2.5, 10.0)
    cut = read_didemo(folder, "test", moments=True, whole_seconds=True)
    assert pairs(cut) == pairs(read)
    assert (cut.clips[0].start, cut.clips[0].end) == (2.0, 10.0)


@pytest.mark.parametrize(
    "names",
    [
        NAMES,
        ["-a@N0_1.mp4", "_b@N0_2.mp4", "c@N0_3.mp4", "d@N0_4.mp4"],
        ["-a@N0_1.avi", "x/_b@N0_2..mp4", "x/c@N0_3.mkv", "x/d@N0_4.webm"],
        ["-a@N0_1.mov", "x/_b@N0_2.", "x/c@N0_3.null", "x/d@N0_4.3gp"],
    ],
)
def test_video_files_of_any_extension(folder, names):
    videos = folder / "videos"
    (videos / "x").mkdir(parents=True)
    for name in names:
        (videos / name).write_bytes(b"x")
    found, missing = find_video_files(read_didemo(folder, "test"), videos)
    assert not missing
    assert [str(path.relative_to(videos)) for path in found.values()] == names


def test_what_was_looked_for_is_said(folder):
    (folder / "videos").mkdir()
    _, missing = find_video_files(read_didemo(folder, "test"), folder / "videos")
    assert missing["_b@N0_2."].startswith("_b@N0_2., or _b@N0_2.mp4, or _b@N0_2..mp4: not in")


def test_listed_videos_without_descriptions_are_noted(folder):
    with (folder / "test_list.txt").open("a") as file:
        file.write("other@N0_5.mov\n")
    notes = read_didemo(folder, "test").notes
    assert notes[0] == "1 of 5 listed videos left out: no descriptions"


@pytest.mark.parametrize(
    "entries, message",
    [
        ({}, "test_data.json: {}, expected a list of descriptions"),
        ([], "expected a list of descriptions"),
        ([entry("a", "x"), 3], "entry 1 is 3, expected an object with the texts"),
        ([{"video": "a"}], "entry 0 is {'video': 'a'}, expected"),
        ([entry("a", " ")], "entry 0 is .*expected"),
        ([entry("a.mov", "x")], "none of its 4 videos has descriptions in .*the other holds a.mov"),
    ],
)
def test_broken_descriptions(folder, entries, message):
    (folder / "test_data.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=message):
        read_didemo(folder, "test")


@pytest.mark.parametrize("times", [None, [], [[1]], [[2, 1]], [[0, 1.5]], [[True, 1]], "x"])
def test_broken_times_matter_to_moments_only(folder, times):
    entries = [{"video": NAMES[0], "description": "x", "times": times}]
    (folder / "test_data.json").write_text(json.dumps(entries))
    assert read_didemo(folder, "test").captions == ("x",)
    with pytest.raises(ValueError, match="a description of -a@N0_1.mov has times"):
        read_didemo(folder, "test", moments=True)


def test_missing_files(folder):
    assert available_splits("didemo", folder) == ("test",)
    with pytest.raises(MissingSplit, match="'train' needs train_list.txt"):
        read_didemo(folder, "train")
    (folder / "test_data.json").unlink()
    with pytest.raises(MissingSplit, match="'test' needs test_data.json"):
        read_didemo(folder, "test")
