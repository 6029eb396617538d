import json
import os
import re
import time

import pytest
import yaml

from smpler.utils.files import text, yaml_text
from smpler.utils.files.text import one_line, parse_json, read_json, shown
from smpler.utils.files.yaml_text import read_yaml

VALUE = {"a": [1, -2.5, "ä\u2028", None, True, {"b": []}], "c": 10**18}


def test_json_is_read_as_python_writes_it(tmp_path):
    for data in (json.dumps(VALUE), json.dumps(VALUE, ensure_ascii=False, indent=1)):
        assert parse_json(data, "x") == parse_json(memoryview(data.encode()), "x") == VALUE
        (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + data.encode())
        assert read_json(tmp_path / "a.json") == VALUE, "with a byte order mark"
    nan, inf = parse_json("[NaN, -Infinity]", "x")
    assert nan != nan and inf == -float("inf")


BROKEN_JSON = {
    "empty": (b"", "line 1, column 1: Expecting value"),
    "cut off": (b'[\n  {"n": 1}', "line 2, column 11: Expecting ',' delimiter"),
    "more": (b"[1] [2]", "line 1, column 5: Extra data"),
    "no UTF-8": (b'["\xff"]', "byte 2 is no UTF-8"),
    "UTF-16": ("[1]".encode("utf-16"), "byte 0 is no UTF-8"),
    "deep lists": (b"[" * 100_000 + b"]" * 100_000, "it is nested too deep"),
    "deep dicts": (b'{"a":' * 100_000, "it is nested too deep"),
    "digits": (b"[" + b"9" * 5000 + b"]", "a number has thousands of digits"),
    "twice": (b'{"a": 1, "b": {"\\u001b[1m": 1, "\\u001b[1m": 2}}',
              r"the key '\x1b[1m' is there twice"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN_JSON)
def test_broken_json_is_one_sentence(kind, tmp_path):
    data, reason = BROKEN_JSON[kind]
    sentence = rf"{{name}}: broken JSON \({re.escape(reason)}\)\. Mend it or get it again\."
    with pytest.raises(ValueError, match=f"^{sentence.format(name='row 3')}$"):
        parse_json(data, "row 3")
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ValueError, match=f"{sentence.format(name='a.json')}$"):
        read_json(tmp_path / "a.json")


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def parser(request, monkeypatch):
    """The parser in C, which PyYAML may lack, and the one in Python."""
    monkeypatch.setattr(yaml_text, "PARSER", getattr(yaml, request.param))


def of_yaml(folder, data: bytes):
    (folder / "a.yaml").write_bytes(data)
    return read_yaml(folder / "a.yaml")


def test_yaml_of_data_sets_is_read_as_pyyaml_reads_it(parser, tmp_path):
    written = {"composite": True, "img": ["a.tsv", "../b c/ä.tsv", "yes", "5", ""], "hw": None,
               "linelist": "x: y", "n": -7, "none": [], "nested": [{"a": [1, "#"]}]}  # fmt: skip
    for unicode in (True, False):
        dumped = yaml.safe_dump(written, allow_unicode=unicode).encode()
        assert of_yaml(tmp_path, dumped) == written
        assert of_yaml(tmp_path, b"\xef\xbb\xbf" + dumped) == written
    by_hand = b"# c\nimg: a.tsv\nhw: ~\ncomposite: No\nlinelist: 'x'\nday: 2024-13-45\nn: 0b\n"
    expected = {"img": "a.tsv", "hw": None, "composite": False, "linelist": "x"}
    assert of_yaml(tmp_path, by_hand) == expected | {"day": "2024-13-45", "n": "0b"}
    assert of_yaml(tmp_path, b"") is None


BROKEN_YAML = {
    "bomb": (b"a: &a [x, x]\nb: &b [*a, *a]\n", "line 2: the alias *a is not followed"),
    "loop": (b"&a [*a]", "line 1: the alias *a is not followed"),
    "bool": (b"img: !!bool x\n", "line 1: the tag 'tag:yaml.org,2002:bool' is not followed"),
    "time": (b"\nimg: !!timestamp x\n", "line 2: the tag 'tag:yaml.org,2002:timestamp' is not"),
    "object": (b"!!python/object/apply:os.system [id]", "line 1: the tag 'tag:yaml.org,2002:pyth"),
    "deep lists": (b"[" * 100_000, "nest"),
    "deep keys": (b"? " * 3000 + b"a", ""),
    "deep dicts": (b"".join(b" " * n + b"a:\n" for n in range(400)), "nested too deep"),
    "twice": (b"img: a\nimg: b\n", "the key 'img' is there twice"),
    "key": (b"[a]: b\n", "a key is no text"),
    "number as key": (b"5: b\n", "a key is no text"),
    "two": (b"a: b\n---\nc: d\n", "more than one document"),
    "no UTF-8": (b"a: \xff", "byte 3 is no UTF-8"),
    "escapes": (b"a: \x1b[31m", ""),
    "syntax": (b"a: b: c\n", "line 1: mapping values are not allowed"),
    "cut off": (b'a: "b', "line 1: found unexpected end of stream"),
    "binary": (bytes(range(128)), ""),
    "zeros": (bytes(5000), ""),
}


@pytest.mark.parametrize("kind", BROKEN_YAML)
def test_broken_yaml_is_one_sentence(kind, parser, tmp_path):
    data, reason = BROKEN_YAML[kind]
    started = time.perf_counter()
    with pytest.raises(ValueError, match=r"a\.yaml: broken yaml \(.*\)\. Mend it") as caught:
        of_yaml(tmp_path, data)
    assert reason in str(caught.value) and str(caught.value).isprintable()
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_what_is_no_file_or_too_long_is_said_at_once(read, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere is missing"):
        read(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="is a folder, pipe or device"):
            read(path)
    with pytest.raises(OSError, match="could not be read: File name too long"):
        read(tmp_path / ("x" * 300))
    monkeypatch.setattr(text, "MAX_JSON", 2**20)
    (tmp_path / "long").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ValueError, match="is longer than (1|0.5) MiB; is it another kind of file"):
        read(tmp_path / "long")


def test_others_words_become_one_short_clean_line():
    assert one_line("a\x1b[31m\nb\t c\u202e\udcff") == r"a\x1b[31m b c\u202e\udcff"
    assert len(one_line("x" * 1000)) == 200
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, "\x1b" * 10_000, {"a" * 10_000: [list(range(1000))] * 1000}, 10**400):
        assert len(shown(value)) <= 200 and shown(value).isprintable()
