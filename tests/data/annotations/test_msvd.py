"""MSVD's lists and captions, from JSON and from pickles of every kind, honest and not."""

from __future__ import annotations

import itertools
import json
import pickle
from pathlib import Path

import pytest

from vtr_jax.data.annotations import MissingSplit, available_splits, plain_pickle
from vtr_jax.data.annotations.msvd import read_msvd
from vtr_jax.data.split import check_overlap, find_video_files

CAPTIONS = {"-one_1": ["a cat", "a cat sleeps"], "_two": ["ein Hündchen"], "three": ["x"]}


@pytest.fixture(scope="module")
def real(real_annotations) -> Path:
    return real_annotations / "msvd"


@pytest.mark.parametrize(
    "split, clips, captions, first, last, digests",
    [
        (
            "train",
            1200,
            48_774,
            "-4wsuPCjDBc_5_15",
            "bQJQGoJF7_k_145_153",
            "e40b2a0729be 9950e3900ed1",
        ),
        ("val", 100, 4290, "bQJQGoJF7_k_162_169", "eyMYc-37Sk4_0_10", "3ac87783bc1e b73ec2187976"),
        ("test", 670, 27_763, "eyhzdC936uk_15_27", "zzit5b_-ukg_5_20", "0b6a7764645a 638d6a833587"),
    ],
)
def test_real_splits(real, digest, split, clips, captions, first, last, digests):
    read = read_msvd(real, split)
    assert (len(read.clips), len(read.captions)) == (clips, captions)
    assert (read.clips[0].clip_id, read.clips[-1].clip_id) == (first, last)
    assert f"{digest(read.captions[0])} {digest(read.captions[-1])}" == digests


def test_real_pairs_are_list_order_then_file_order(real, pairs):
    captions = json.loads((real / "captions_msvd.json").read_text())
    ids = (real / "test_list.txt").read_text().split()
    assert pairs(read_msvd(real, "test")) == [[i, text] for i in ids for text in captions[i]]


def test_real_cut_off_points(real):
    read = read_msvd(real, "test")
    sizes = [len(read.captions_of(clip)) for clip in range(len(read.clips))]
    cut_off_points = list(itertools.accumulate(sizes))
    assert cut_off_points[:3] == [37, 75, 133] and cut_off_points[-1] == 27_763
    assert max(sizes) == 81


def test_real_splits_are_disjoint(real):
    train, val, test = (read_msvd(real, name) for name in ("train", "val", "test"))
    assert not check_overlap(train, test) + check_overlap(train, val) + check_overlap(val, test)


def test_real_pickle_gives_what_json_gives(real):
    pickled = read_msvd(real, "val", captions_file=real / "raw-captions.val-excerpt.pkl")
    assert pickled.sha256() == read_msvd(real, "val").sha256()


@pytest.fixture
def folder(tmp_path) -> Path:
    for split, ids in (("train", "-one_1\n_two\n"), ("test", "three\n")):
        (tmp_path / f"{split}_list.txt").write_text(ids)
    (tmp_path / "captions_msvd.json").write_text(json.dumps(CAPTIONS))
    return tmp_path


def test_ids_that_begin_with_signs(folder, pairs):
    read = read_msvd(folder, "train")
    assert pairs(read) == [
        ["-one_1", "a cat"],
        ["-one_1", "a cat sleeps"],
        ["_two", "ein Hündchen"],
    ]
    assert (read.dataset, read.name, read.clips[0].file) == ("msvd", "train", "-one_1.avi")
    (folder / "clips").mkdir()
    (folder / "clips" / "-one_1.avi").write_bytes(b"x")
    (folder / "_two.mkv").write_bytes(b"x")
    found, missing = find_video_files(read, folder)
    assert {path.name for path in found.values()} == {"-one_1.avi", "_two.mkv"} and not missing


def test_forms_of_the_list(folder, list_bytes):
    expected = read_msvd(folder, "train").sha256()
    (folder / "train_list.txt").write_bytes(list_bytes)
    assert read_msvd(folder, "train").sha256() == expected


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol(folder, protocol):
    expected = read_msvd(folder, "train").sha256()
    (folder / "captions_msvd.json").unlink()
    words = {name: [text.split(" ") for text in texts] for name, texts in CAPTIONS.items()}
    (folder / "raw-captions.pkl").write_bytes(pickle.dumps(words, protocol))
    assert read_msvd(folder, "train").sha256() == expected
    (folder / "raw-captions.pkl").write_bytes(pickle.dumps(CAPTIONS, protocol))
    assert read_msvd(folder, "train").sha256() == expected


def test_pickle_of_python_2(folder):
    old = b"(dp1\nS'-one_1'\np2\n(lp3\n(lp4\nS'a'\np5\naS'cat'\np6\naas."
    (folder / "train_list.txt").write_text("-one_1\n")
    (folder / "old.pkl").write_bytes(old)
    assert read_msvd(folder, "train", captions_file=folder / "old.pkl").captions == ("a cat",)


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_something_is_refused_unrun(folder, protocol):
    path = folder / "evil.pkl"
    path.write_bytes(pickle.dumps({"-one_1": _Touch(folder / "touched")}, protocol))
    with pytest.raises(ValueError, match="evil.pkl: expected a pickle of nothing but dicts"):
        read_msvd(folder, "train", captions_file=path)
    assert not (folder / "touched").exists()


def test_malicious_pickle_of_the_golden_files(folder, golden_dir):
    paths = sorted(golden_dir.rglob("malicious-plain.pkl"))
    if not paths:
        pytest.skip(f"no malicious-plain.pkl below {golden_dir}")
    for path in paths:
        with pytest.raises(ValueError, match="nothing in it was run"):
            read_msvd(folder, "train", captions_file=path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        pickle.dumps(CAPTIONS)[:-5],
        b"\x80\x02]r\xff\xff\xff\xff.",  # an entry number that would claim 64 GiB
        b"\x80\x05\x96" + (2**62).to_bytes(8, "little") + b".",
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x02}]]s.",  # a list as a key
        b"\x80\x02h\x07.",
        pickle.dumps({"-one_1": 1.5}),
        pickle.dumps({"-one_1": (1,)}),
    ],
)
def test_broken_and_odd_pickles(folder, content):
    (folder / "odd.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"odd.pkl: expected a pickle of nothing but"):
        read_msvd(folder, "train", captions_file=folder / "odd.pkl")


def test_a_pickle_that_was_changed_is_read_again(folder):
    path = folder / "raw.pkl"
    path.write_bytes(pickle.dumps({"three": ["x"]}))
    assert read_msvd(folder, "test", captions_file=path).captions == ("x",)
    path.write_bytes(pickle.dumps({"three": ["other"]}))
    assert read_msvd(folder, "test", captions_file=path).captions == ("other",)


@pytest.mark.parametrize(
    "captions, message",
    [
        ("[]", "a list, expected an object of video ids"),
        ('{"-one_1": ["a"]}', "1 of 2 videos have no caption in .*, e.g. _two"),
        ('{"-one_1": ["a"], "_two": []}', "1 of 2 videos have no caption"),
        ('{"-one_1": "a", "_two": ["b"]}', "-one_1 has 'a', expected a list of captions"),
        ('{"-one_1": ["a", 3], "_two": ["b"]}', "caption 1 of -one_1 is 3, expected a text"),
        ('{"-one_1": [[]], "_two": ["b"]}', r"caption 0 of -one_1 is \[\], expected"),
        (
            '{\n"_two": ["a"],\n"-one_1": ["b"],\n"_two": ["c"]}',
            "json, line 4: '_two' stands twice",
        ),
        ("{", "captions_msvd.json: not JSON"),
    ],
)
def test_broken_captions(folder, captions, message):
    (folder / "captions_msvd.json").write_text(captions)
    with pytest.raises(ValueError, match=message):
        read_msvd(folder, "train")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"a\nb\na\n", "train_list.txt: 1 bad row\n  line 3: a stands on line 1 too"),
        (b"", "train_list.txt: no videos, expected one a line"),
        (b"a\nb\xff\n", "train_list.txt, line 2: byte 0xff is not UTF-8"),
        (b"four\n", "train_list.txt: 1 of 1 videos have no caption"),
    ],
)
def test_broken_lists(folder, content, message):
    (folder / "train_list.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_msvd(folder, "train")


def test_missing_and_doubled_files(folder):
    assert available_splits("msvd", folder) == ("train", "test")
    with pytest.raises(MissingSplit, match="'val' needs val_list.txt"):
        read_msvd(folder, "val")
    with pytest.raises(FileNotFoundError, match="none.pkl: no such annotation file"):
        read_msvd(folder, "train", captions_file=folder / "none.pkl")
    (folder / "raw-captions.pkl").write_bytes(pickle.dumps(CAPTIONS))
    with pytest.raises(ValueError, match="pass one as --captions_file"):
        read_msvd(folder, "train")
    (folder / "raw-captions.pkl").unlink()
    (folder / "captions_msvd.json").unlink()
    with pytest.raises(MissingSplit, match="needs raw-captions.pkl or captions_msvd.json"):
        read_msvd(folder, "train")


def test_the_unpickler_alone_finds_nothing_to_call(folder, monkeypatch):
    """The second lock holds without the first, which looks at the instructions."""
    monkeypatch.setattr(plain_pickle, "_check_harmless", lambda content: None)
    path = folder / "evil.pkl"
    path.write_bytes(pickle.dumps({"-one_1": _Touch(folder / "touched")}))
    with pytest.raises(ValueError, match="it names .*; nothing in it was run"):
        read_msvd(folder, "train", captions_file=path)
    assert not (folder / "touched").exists()


def test_a_captions_file_is_looked_for_in_the_working_directory(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    (folder / "mine.json").write_text('{"a": ["a cat"]}')
    expected = r"--captions_file=mine.json: no such annotation file in the working directory, .*; "
    with pytest.raises(FileNotFoundError, match=expected + "did you mean --captions_file=.*mine"):
        read_msvd(folder, "train", captions_file="mine.json")
