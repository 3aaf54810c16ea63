"""Annotations of one's own: CSV and JSONL, times, ids, and every way to get them wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from vtr_jax.data.annotations.table import read_table, table_splits
from vtr_jax.data.split import check_overlap, find_video_files

HEADER = "video,caption,split"


def write_csv(path: Path, *lines: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.fixture
def table(tmp_path) -> Path:
    return tmp_path / "mine.csv"


def write_jsonl(folder: Path, *rows) -> Path:
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def clip_ids(split) -> list[str]:
    return [clip.clip_id for clip in split.clips]


def test_rows_of_one_split_in_their_order(table):
    write_csv(table, "b.mp4,bee,train", "a.mp4,ant,test", "c.mp4,cat,train", "b.mp4,two,train")
    split = read_table(table, "train")
    assert clip_ids(split) == ["b", "c"]
    assert split.captions == ("bee", "cat", "two")
    assert split.caption_clip.tolist() == [0, 1, 0]
    assert (split.dataset, split.name) == ("table", "train")
    assert clip_ids(read_table(table, "test")) == ["a"]


def test_csv_and_jsonl_give_the_same_split(table, tmp_path):
    write_csv(
        table,
        'x/a.mp4,"a ""dog"", running",train,1.5,4',
        "x/a.mp4,a cat,train,,",
        "x/a.mp4,the dog,train,1.50,4.0",
        header="video,caption,split,start,end",
    )
    rows = write_jsonl(
        tmp_path,
        {
            "video": "x/a.mp4",
            "caption": 'a "dog", running',
            "split": "train",
            "start": 1.5,
            "end": 4,
        },
        {"caption": "a cat", "video": "x/a.mp4", "split": "train", "start": None},
        {"video": "x/a.mp4", "caption": "the dog", "split": "train", "start": "1.5", "end": 4.0},
    )
    one, other = read_table(table, "train"), read_table(rows, "train")
    assert one.clips == other.clips
    assert one.sha256() == other.sha256()
    assert clip_ids(one) == ["x/a#1.5-4", "x/a"]
    assert one.caption_clip.tolist() == [0, 1, 0]
    assert [(clip.file, clip.start, clip.end) for clip in one.clips] == [
        ("x/a.mp4", 1.5, 4.0),
        ("x/a.mp4", None, None),
    ]


def test_columns_in_any_order_extra_ones_mark_and_line_ends(table):
    table.write_bytes(
        b"\xef\xbb\xbfnote,Split, caption,video\r\nx,train,caf\xc3\xa9,a.mp4\r\n\r\ny,train,b,b.mp4"
    )
    split = read_table(table, "train")
    assert split.captions == ("café", "b")
    assert split.notes == ("columns that are not read: note",)


@pytest.mark.parametrize(
    "header, message",
    [
        ("video,caption,split,start_time,end_time", "column 'start_time' .* call it 'start'"),
        ("video,caption,split,start,t_end", "column 't_end' .* call it 'end'"),
        ("video,caption,splt,start,end", "column 'splt' .* call it 'split'"),
        ("video,caption,split,strat,end", "column 'strat' .* call it 'start'"),
        ("video,caption,Split id,start,end", "column 'split id' .* call it 'split'"),
    ],
)
def test_misspelt_columns_are_refused(table, header, message):
    write_csv(table, "a.mp4,x,train,0,5", header=header)
    for read in (table_splits, lambda path: read_table(path, "train")):
        with pytest.raises(ValueError, match=f"mine.csv, line 1: {message}"):
            read(table)


def test_columns_like_those_that_are_there_are_ignored(table):
    write_csv(table, "a.mp4,x,t,1,2,9", header="video,caption,split,start,end,start_frame")
    split = read_table(table, "t")
    assert clip_ids(split) == ["a#1-2"]
    assert split.notes == ("columns that are not read: start_frame",)
    write_csv(table, "a.mp4,x,t,f", header="video,caption,split,gender")
    assert read_table(table, "t").notes == ("columns that are not read: gender",)


def test_a_misspelt_key_of_one_jsonl_row_is_refused(tmp_path):
    row = {"video": "a.mp4", "caption": "x", "split": "t", "start": 1, "end": 2}
    other = {"video": "b.mp4", "caption": "y", "split": "t", "Start": 1, "end": 2}
    with pytest.raises(ValueError, match="line 2: column 'Start' .* call it 'start'"):
        read_table(write_jsonl(tmp_path, row, other), "t")


def test_open_ends(table):
    write_csv(
        table,
        *("a.mp4,x,t,,5", "a.mp4,x,t,0,5", "a.mp4,x,t,5,", "a.mp4,x,t,0,", "a.mp4,x,t,,"),
        header="video,caption,split,start,end",
    )
    split = read_table(table, "t")
    assert clip_ids(split) == ["a#0-5", "a#5-end", "a"]
    assert split.caption_clip.tolist() == [0, 0, 1, 2, 2]


def test_a_file_name_like_a_stretch_is_no_stretch(table):
    rows = ("a.mp4,x,t,1,2", "a#1-2.mp4,y,t,,")
    write_csv(table, *rows, header="video,caption,split,start,end")
    with pytest.raises(ValueError, match=r"line 3: clip id 'a#1-2' of a#1-2.mp4 is that of a.mp4"):
        read_table(table, "t")


def test_long_times_stay_distinct(table):
    write_csv(
        table,
        *("a.mp4,x,t,1234567.25,1234568", "a.mp4,x,t,1234567.5,1234568"),
        header="video,caption,split,start,end",
    )
    assert clip_ids(read_table(table, "t")) == ["a#1234567.25-1234568", "a#1234567.5-1234568"]


def test_same_name_in_different_folders(table, tmp_path):
    write_csv(table, "x/a.mp4,one,t", "y/a.mp4,two,t", "./x//a.mp4,again,t", "a.mp4,three,t")
    split = read_table(table, "t")
    assert clip_ids(split) == ["x/a", "y/a", "a"]
    assert split.captions_of(0) == [0, 2]
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").write_bytes(b"x")
    found, missing = find_video_files(split, tmp_path)
    assert found == {"x/a": tmp_path / "x" / "a.mp4", "y/a": tmp_path / "y" / "a.mp4"}
    assert "2 files" in missing["a"]


def test_absolute_paths(table, tmp_path):
    write_csv(table, f"{tmp_path}/a.mp4,one,t")
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "elsewhere").mkdir()
    found, _ = find_video_files(read_table(table, "t"), tmp_path / "elsewhere")
    assert list(found.values()) == [tmp_path / "a.mp4"]


def test_overlap_of_stretches(table):
    write_csv(
        table,
        *("a.mp4,x,train,0,5", "a.mp4,x,test,4,8", "a.mp4,x,test,5,8"),
        header="video,caption,split,start,end",
    )
    assert check_overlap(read_table(table, "train"), read_table(table, "test")) == ["a#4-8"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_without_split_column_only_all_is_known(table, tmp_path, kind):
    if kind == "csv":
        path = write_csv(table, "a.mp4,x", "b.mp4,y", header="video,caption")
    else:
        path = write_jsonl(
            tmp_path, {"video": "a.mp4", "caption": "x"}, {"video": "b.mp4", "caption": "y"}
        )
    assert read_table(path, "all").captions == ("x", "y")
    with pytest.raises(ValueError, match="no column 'split'.*'train'.*split 'all'"):
        read_table(path, "train")


def test_unknown_split_names_those_there_are(table):
    write_csv(table, "a.mp4,x,train", "b.mp4,y,train", "c.mp4,z,test")
    for name in ("dev", "all"):
        with pytest.raises(
            ValueError, match=rf"'{name}'; there are: train \(2 rows\), test \(1 rows\)"
        ):
            read_table(table, name)


@pytest.mark.parametrize(
    "row, message",
    [
        (",x,t,,", "no video"),
        ("  ,x,t,,", "video is blank"),
        ("a.mp4,,t,,", "no caption"),
        ("a.mp4,  ,t,,", "caption is blank"),
        ("a.mp4,x,,,", "no split"),
        ("a.mp4,x,t,5,5", "start is 5 and end is 5, expected start before end"),
        ("a.mp4,x,t,6,5", "start is 6 and end is 5"),
        ("a.mp4,x,t,,0", "start is 0 and end is 0"),
        ("a.mp4,x,t,-1,5", "start is '-1', expected seconds from 0 on"),
        ("a.mp4,x,t,1:30,", "start is '1:30', expected seconds"),
        ("a.mp4,x,t,,nan", "end is 'nan', expected seconds"),
        ("a.mp4,x,t,,inf", "end is 'inf', expected seconds"),
        ("a.mp4,x,y,t,,", "6 fields, the first line names 5; quote texts that contain a comma"),
        ("a.mp4,x,t", "3 fields, the first line names 5"),
        ("a.avi,x,t,,", r"clip id 'a' of a.avi is that of a.mp4 \(line 2\) too"),
    ],
)
def test_bad_csv_rows(table, row, message):
    write_csv(table, "a.mp4,fine,t,,", row, header="video,caption,split,start,end")
    with pytest.raises(ValueError, match=f"mine.csv: 1 bad row\n  line 3: {message}"):
        read_table(table, "t")


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('["a.mp4"]', "a JSON list, expected an object"),
        ('{"caption": "x", "split": "t"}', "no video"),
        ('{"video": 7, "caption": "x", "split": "t"}', "video is 7, expected a text"),
        ('{"video": "a.mp4", "caption": ["x"], "split": "t"}', r"caption is \['x'\], expected"),
        ('{"video": "a.mp4", "caption": "x"}', "no split"),
        ('{"video": "a.mp4", "caption": "x", "split": "t", "start": true}', "start is True"),
        ('{"video": "a.mp4", "caption": "x", "split": "t", "end": [1]}', r"end is \[1\]"),
        ('{"video": "a.mp4", "caption": "x", "split": "t", "end": NaN}', "end is nan"),
        ('{"video": "a.mp4", "caption": "x", "split": "t", "end": 1%s}' % ("0" * 400), "end is 1"),
        ('{"video": "a.mp4", "caption": "x", "split": "t", "end": 1%s}' % ("0" * 9999), "not JSON"),
    ],
)
def test_bad_jsonl_rows(tmp_path, line, message):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"video": "a.mp4", "caption": "fine", "split": "t"}\n\n' + line + "\n")
    with pytest.raises(ValueError, match=f"mine.jsonl: 1 bad row\n  line 3: {message}"):
        read_table(path, "t")


def test_all_bad_rows_are_counted_and_ten_are_listed(table):
    good_and_bad = [f"{n}.mp4,{'' if n % 2 else 'x'},t" for n in range(30)]
    write_csv(table, *good_and_bad)
    with pytest.raises(ValueError, match="mine.csv: 15 bad rows") as raised:
        read_table(table, "t")
    lines = str(raised.value).split("\n")
    assert lines[1] == "  line 3: no caption" and lines[10] == "  line 21: no caption"
    assert lines[11] == "  and 5 more" and len(lines) == 13
    assert lines[12] == f"{table}: fix the 15 rows listed above, or remove them"


def test_rows_after_a_quoted_line_break_keep_their_line(table):
    write_csv(table, 'a.mp4,"two\nlines",t', "b.mp4,,t")
    with pytest.raises(ValueError, match="line 4: no caption"):
        read_table(table, "t")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "the file is empty, expected the columns video, caption"),
        (b"video,caption,split\n", "no rows, expected one for each caption"),
        (b"a.mp4,a dog,train\n", "must name the columns video, caption; missing: video, caption"),
        (b"\nvideo,caption,split\n", "no rows, expected one for each caption"),
        (b"\n,,\n", "the file is empty, expected the columns video, caption"),
        (b"video;caption;split\na;b;c\n", "found: video;caption;split"),
        (b"video,text,split,id\n", "missing: caption; found: video, text, split, id"),
        (b"video,caption,caption\n", "names a column twice: video, caption, caption"),
        (b"video,caption,split\na.mp4,x,t\nb.mp4,caf\xe9,t\n", "line 3: byte 0xe9 is not UTF-8"),
        ("video,caption,split\n".encode("utf-16"), "found UTF-16 text; save it as UTF-8"),
        (b'video,caption,split\na.mp4,"x,t\nb.mp4,y,t\n', "line 2: broken quoting"),
    ],
)
def test_unusable_csv_files(table, content, message):
    table.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(table, "t")


def test_unusable_jsonl_files(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n\n")
    with pytest.raises(ValueError, match="mine.jsonl: no rows"):
        read_table(path, "t")
    path.write_text("no\nno\n")
    with pytest.raises(ValueError, match="mine.jsonl: 2 bad rows\n  line 1: not JSON"):
        read_table(path, "t")


def test_wrong_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.csv: no such annotation file"):
        read_table(tmp_path / "absent.csv", "t")
    with pytest.raises(ValueError, match="ends in '.xlsx', expected .csv or .jsonl"):
        read_table(tmp_path / "mine.xlsx", "t")


def table_of(path, text: str | bytes):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


PLAIN = "video,caption,split\na.mp4,a dog,train\nb.mp4,a cat,test\n"


@pytest.mark.parametrize(
    "text",
    [
        "video,caption,split,,,\na.mp4,a dog,train,,,\nb.mp4,a cat,test,,,\n,,,,,\n,,,,,\n",
        "video,caption,split,,\na.mp4,a dog,train\nb.mp4,a cat,test,\n",
        "video,caption,split\na.mp4,a dog,train\n,,\nb.mp4,a cat,test\n , ,\n\n",
        "sep=,\n" + PLAIN,
        "\n,,\n" + PLAIN,
        "\ufeff" + PLAIN,
        "\ufeffsep=,\r\n" + PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        ",video,,caption,split\n0,a.mp4,x,a dog,train\n1,b.mp4,y,a cat,test\n",
    ],
)
def test_what_spreadsheets_add_is_ignored(table, text):
    path = table_of(table, text)
    assert table_splits(path) == ("train", "test")
    plain = table_of(table.with_name("plain.csv"), PLAIN)
    for split in ("train", "test"):
        assert read_table(path, split).sha256() == read_table(plain, split).sha256()


def test_a_caption_of_two_lines_is_one_row(table):
    path = table_of(table, 'video,caption,split\r\na.mp4,"one\r\n\r\ntwo, ""three""",t\r\n')
    assert read_table(path, "t").captions == ('one\r\n\r\ntwo, "three"',)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (PLAIN.replace(",", ";"), "semicolons"),
        (PLAIN.replace(",", "\t"), "tabs"),
        (PLAIN.replace(",", "|"), "vertical bars"),
        ('"video";"caption, long";"caption"\na;b;c\n', "semicolons"),
        ("sep=;\n" + PLAIN.replace(",", ";"), "sep=;"),
        ("sep=\t\n" + PLAIN.replace(",", "\t"), "not separated by commas"),
        (PLAIN.encode("utf-16"), "UTF-16"),
        (PLAIN.encode("utf-16-be"), "UTF-16"),
        (b"PK\x03\x04" + bytes(100), "spreadsheet"),
        (b"\xd0\xcf\x11\xe0" + bytes(100), "spreadsheet"),
        (gzip.compress(PLAIN.encode(), mtime=0), "gzip"),
        (PLAIN.replace("dog", "d\xf6g").encode("cp1252"), "line 2: byte 0xf6"),
    ],
)
def test_other_exports_are_named(table, content, named):
    with pytest.raises(ValueError, match=f"(?i){named}") as error:
        table_splits(table_of(table, content))
    assert str(table) in str(error.value)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("a.mp4,a dog, running,t,", "text in a column without a name"),
        ("a.mp4,a dog, running,t,,", "6 fields"),
        ("a.mp4,a dog", "2 fields"),
    ],
)
def test_a_comma_in_a_caption_does_not_shift_the_columns(table, row, why):
    path = table_of(table, f"video,caption,split,,\n{row}\nb.mp4,fine,t,,\n")
    with pytest.raises(ValueError, match=f"1 bad row\n  line 2: {why}"):
        read_table(path, "t")


def test_a_decimal_comma_is_explained(table):
    write_csv(table, 'a.mp4,x,t,"4,5",9', header="video,caption,split,start,end")
    with pytest.raises(ValueError, match=r"start is '4,5'.*a point instead of the comma"):
        read_table(table, "t")


def test_spaces_stay_in_the_name_of_the_file_and_not_in_the_id(table, tmp_path):
    write_csv(table, " lead.mp4,one,t", "a.mp4 ,two,t", "a.mp4,three,t")
    split = read_table(table, "t")
    assert clip_ids(split) == ["lead", "a"] and split.captions_of(1) == [1, 2]
    for name in (" lead.mp4", "lead.mp4", "a.mp4"):
        (tmp_path / name).write_bytes(b"x")
    found, missing = find_video_files(split, tmp_path)
    assert (missing, found) == ({}, {"lead": tmp_path / " lead.mp4", "a": tmp_path / "a.mp4"})


def test_rows_that_are_all_bad_do_not_hide_as_absent_splits(table):
    write_csv(table, "a.mp4,x,", "b.mp4,y, ")
    with pytest.raises(ValueError, match="2 bad rows"):
        table_splits(table)
