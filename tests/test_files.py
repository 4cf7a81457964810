"""Files are read as they are: rows end at line feeds alone, and what cannot be read is told with file and row."""

import gzip
import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.errors import DataError
from vivavoce.files import csv_rows, file_name, json_lines, json_object, lines_in, read_records, text_of
from vivavoce.methods.opd_arms import DebateChoices
from vivavoce.records import Completion, Example, Node, Tree, node, to_json
from vivavoce.tasks.rows import read_rows

BREAKS = "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e"
"""All that ``str.splitlines`` takes for the end of a line, besides line feed and carriage return."""
TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text(st.sampled_from(BREAKS + "a\r\n"))


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_rows_of_any_text_are_read_back_as_they_were_written(tmp_path_factory, texts) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [Example("p", ({"role": "user", "content": a},), b, (a,)) for a, b in texts]
    trees = [Tree("t", a, (), (Completion(a, b),), (Completion(b, a),)) for a, b in texts]
    nodes = [node("answer", "p", a, 0, b) for a, b in texts]
    for kind, records in ((Example, rows), (Tree, trees), (Node, nodes)):
        path.write_text("".join(to_json(row) + "\n" for row in records), "utf-8", newline="")
        assert list(read_records(path, kind)) == records
        assert len(lines_in(path.read_text("utf-8"))) == len(records)


@pytest.mark.parametrize("character", BREAKS)
def test_a_row_ends_at_a_line_feed_and_nowhere_else(tmp_path: Path, character: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"a": f"x{character}y"}, ensure_ascii=False) + '\n{"a": "z"}\n', "utf-8")
    assert [row.value["a"] for row in read_rows(path)] == [f"x{character}y", "z"]
    path = path.rename(tmp_path / "rows.json")  # JSON lines under another name
    assert [row.value["a"] for row in read_rows(path)] == [f"x{character}y", "z"]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.jsonl.gz"])
@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}\n{"a": 2}\n',
        b'{"a": 1}\n{"a": 2}',
        b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \r\n{"a": 2}\r\n',
        b'\xef\xbb\xbf{"a": 1}\n\xef\xbb\xbf{"a": 2}\n',
        '{"a": 1}\r\n{"a": 2}\r\n'.encode("utf-16"),
        b'\xfe\xff' + '{"a": 1}\n{"a": 2}'.encode("utf-16-be"),
    ],
    ids=["plain", "no last line feed", "mark, CRLF, blank lines", "two files joined", "UTF-16", "UTF-16, big-endian"],
)  # fmt: skip
def test_odd_files_of_rows_are_simply_read(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert [row.value for row in read_rows(path)] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("data", "where", "what"),
    [
        (b'{"a": 1}\n{"a": "x', "row 2", "the line is incomplete: check whether the file was cut"),
        (b'{"a": 1}\n\n{"a": ', "row 3", "the line is incomplete: check whether the file was cut"),
        (b'{"a": 1}\n[1]\n', "row 2", "a list is not an object"),
        (b'{"a": "Zo\xeb"}\n', "row 1", "not UTF-8: byte 0xeb"),
        (b'{"a": "\\ud83d?"}\n', "row 1", r"half a surrogate pair, \\ud83d"),
        (b'{"a": {"\\ude00": [1]}}\n', "row 1", r"half a surrogate pair, \\ude00"),
        (b"", "rows.jsonl", "the file holds no rows"),
        (b"\n \r\n", "rows.jsonl", "the file holds no rows"),
        (b"\xef\xbb\xbf", "rows.jsonl", "the file holds no rows"),
    ],
)
def test_what_is_no_row_is_told_with_its_place(tmp_path: Path, data: bytes, where: str, what: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=what) as error:
        list(read_rows(path))
    assert error.value.where.endswith(where)
    assert error.value.do


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert json_object(b'{"a": "\\ud83d\\ude00"}', "") == {"a": "\U0001f600"}


def test_a_list_of_json_is_checked_like_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1}, 2]')
    with pytest.raises(DataError, match="a number is not an object"):
        list(read_rows(path))
    path.write_text('[{"a": "\\ud800"}]')
    with pytest.raises(DataError, match="half a surrogate pair"):
        list(read_rows(path))
    path.write_text("[]")
    with pytest.raises(DataError, match="holds no rows"):
        list(read_rows(path))


def test_records_that_a_run_kept_and_somebody_cut_are_told_with_their_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"problem": "p", "prompt": [], "completion": "c", "source": []}\n{"problem": "p"}\n')
    with pytest.raises(DataError, match="not a valid Example: `prompt`: Field required") as error:
        list(read_records(path, Example))
    assert error.value.where.endswith("row 2")


# --- CSV


def test_csv_fields_may_be_long_quoted_and_broken_over_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    long = "x" * 200_000
    path.write_bytes(f'question,answer\r\n"{long}",1\r\n\r\n"a ""b""\r\nc\u2028d",2'.encode("utf-8-sig"))
    assert [dict(row.value) for row in read_rows(path)] == [
        {"question": long, "answer": "1"},
        {"question": 'a "b"\r\nc\u2028d', "answer": "2"},
    ]
    assert [number for number, _ in csv_rows(path)] == [1, 2, 4]


@pytest.mark.parametrize(
    ("data", "what", "where"),
    [
        (b"question,answer\na, b?,2\n", "3 fields, but the header names 2 columns", "row 1"),
        (b'question,answer\nb?,1\n"a,2\nc,3\n', "not CSV: unexpected end of data", "row 3"),
        (b"question,question\na,b\n", "two columns are called 'question'", "header"),
        ("question,answer\nZoë?,2\n".encode("latin-1"), "not UTF-8: byte 0xeb", "rows.csv:2"),
        (b"question,answer\n", "the file holds no rows", "rows.csv"),
    ],
)
def test_csv_that_would_be_misread_is_refused(tmp_path: Path, data: bytes, what: str, where: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=what) as error:
        list(read_rows(path))
    assert error.value.where.endswith(where)


def test_a_row_of_too_few_fields_lacks_the_last(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,answer\na\n")
    (row,) = read_rows(path)
    with pytest.raises(DataError, match="no field 'answer'"):
        row.text("answer")


# --- whole texts


def test_texts_in_utf_8_and_utf_16_are_read_and_others_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "text"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_text("a\nZoë", encoding)
        assert text_of(path) == "a\nZoë"
    path.write_text("a\nZoë", "latin-1")
    with pytest.raises(DataError, match="not UTF-8: byte 0xeb") as error:
        text_of(path)
    assert error.value.where == f"{path}:2"
    with pytest.raises(DataError, match="cannot read the file"):
        list(json_lines(tmp_path))
    with pytest.raises(DataError, match="No such file") as error:
        text_of(tmp_path / "texts")
    assert error.value.do == f"did you mean {path}?"
    with pytest.raises(DataError, match="No such file") as error:
        text_of(Path("nothing-like-it.csv"))
    assert str(Path.cwd()) in error.value.do


# --- names of files

ODD = [
    "q:8b", "q-8b", "q+8b", "q/8b", "q\\8b", "q 8b", "Q-8b", "q-8B", "q~8b", "q.8b", "q.8b.", "q_8b", "q,8b",
    "single:ada", "single-ada", "single:Ada", "debate_opd@on_policy=0.5", "a@x=1,y=2", "con", "CON", "nul.x", "com1",
    "", ".", "..", "-", "a*", "a?", 'a"', "a<", "a|", "ä", "a\u0308", "é" * 300, "x" * 300, "x" * 301, "\u2028",
]  # fmt: skip


def test_different_names_get_different_file_names_on_every_file_system() -> None:
    names = [file_name(name) for name in ODD]
    assert len({unicodedata.normalize("NFC", name).casefold() for name in names}) == len(ODD)
    for name in names:
        assert not set(name) & set('<>:"/\\|?*,&;$ \n'), name
        assert name.isascii()
        assert name == name.lower()
        assert len(name) <= 110
        assert name[0] not in "-.~", name
        assert name[-1] not in ". ", name
        assert name.split(".")[0] not in ("con", "nul", "com1"), name


def test_plain_names_stay_readable() -> None:
    assert [file_name(name) for name in ("debate_reflect", "single:ada", "gpt-4o", "judge:a@x=0.5")] == [
        "debate_reflect", "single+ada", "gpt-4o", "judge+a@x=0.5",
    ]  # fmt: skip
    assert file_name("meta/Llama 3").startswith("meta-llama-3~")


@given(st.lists(st.text(st.sampled_from("aA:+-~/.@=,")), unique=True, max_size=50))
def test_no_two_names_share_a_file_name(names: list[str]) -> None:
    assert len({file_name(name) for name in names}) == len(names)


def test_every_name_becomes_part_of_a_path_by_that_one_function() -> None:
    source = Path(__file__).parent.parent / "src" / "vivavoce"
    made = [f for f in source.rglob("*.py") if re.search(r"""replace\(['"][:/]['"],""", f.read_text("utf-8"))]
    assert {f.name for f in made} == {"files.py", "endpoint.py"}, "endpoint.py takes addresses apart"


def test_committees_at_different_tables_are_different_stages() -> None:
    tables = [None, ("q:8b",), ("q-8b",), ("a", "b-c"), ("a-b", "c"), ("a,b",), ("a", "b"), ("a:b",), ("a+b",)]
    stages = [DebateChoices(debaters).stage("states") for debaters in tables]
    stages += [
        DebateChoices(("a",), "who_doubt").stage("states"),
        DebateChoices(("a",), "who_doubt", 0.8).stage("states"),
    ]
    assert len({file_name(stage) for stage in stages}) == len(stages)


ROWS = [{"question": "Is it – really?", "answer": "3"}, {"question": "Q2", "answer": "4"}]
LINES = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in ROWS).encode()
ODD_FILES = {
    "array.jsonl": json.dumps(ROWS).encode(),
    "pretty.jsonl": json.dumps(ROWS, indent=2).encode(),
    "wide.jsonl": json.dumps(ROWS).encode("utf-16"),
    "packed.jsonl": gzip.compress(LINES),
    "plain.jsonl.gz": LINES,
    "loud.JSONL": LINES,
    "semicolons.csv": "question;answer\nIs it – really?;3\nQ2;4\n".encode(),
    "tabs.csv": "question\tanswer\nIs it – really?\t3\nQ2\t4\n".encode(),
    "tabs.tsv": "question\tanswer\r\nIs it – really?\t3\r\nQ2\t4\r\n".encode(),
    "spaces.csv": "question , answer\nIs it – really?,3\nQ2,4\n".encode(),
    "loud.CSV": "question,answer\nIs it – really?,3\nQ2,4\n".encode("utf-16"),
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_rows_are_read_whatever_form_and_name_people_gave_them(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(ODD_FILES[name])
    assert [dict(row.value) for row in read_rows(path)] == ROWS


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.jsonl", LINES.decode().encode("utf-16-le"), "looks like UTF-16"),
        ("a.jsonl", LINES.decode().encode("utf-32"), "looks like UTF-16 or UTF-32"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfd0000", "packed by zstd"),
        ("a.csv", b"PK\x03\x04000", "a ZIP archive or a table of Excel"),
        ("a.jsonl.gz", gzip.compress(LINES * 99, mtime=0)[:40] + b"\0" * 40, "cannot read the file"),
        ("a.jsonl", b"[1, 2]", "a number is not an object"),
        ("a.jsonl", '{"question": "\u200b", "answer": "3"}'.encode(), "field 'question' is empty"),
        ("a.jsonl", b'{"question": ["a"], "answer": "3"}', "field 'question' is a list, not text"),
    ],
)
def test_files_that_cannot_be_read_say_what_they_are(name: str, data: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=re.escape(says)):
        [row.text("question") for row in read_rows(tmp_path / name)]
