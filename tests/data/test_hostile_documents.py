"""No way in by files: bombs, links, queues, entities, broken bytes. Each is texts, or one clear line, soon and in little
memory; and nothing else is opened."""

import csv
import os
import random
import resource
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import pytest

import recuerdo
from recuerdo.data import documents as module
from recuerdo.data import opening
from recuerdo.data.documents import documents, files_below
from recuerdo.data.opening import taken
from recuerdo.data.parsing import Limits
from recuerdo.errors import InputError

SMALL = Limits(seconds=20, memory=512 * 2**20)
HTML = b"<html><head><title>t</title></head><body><h1>Town</h1><p>Bob has the <b>key</b>.</p><table><tr><td>a</td></tr></table>"


def texts(path, folder=None):
    """What a file gives, or the error in one line."""
    try:
        return " ".join(one.text for one in documents(path, folder))
    except InputError as error:
        said = str(error)
    assert "\n" not in said
    return said


def docx(folder, body="Bob has the key."):
    import docx

    made = docx.Document()
    made.add_paragraph(body)
    made.add_table(1, 1).cell(0, 0).text = "six"
    made.save(str(folder / "good.docx"))
    return folder / "good.docx"


def changed(path, name, entry, change):
    """A copy of a docx with one of its parts changed."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(path.with_name(name), "w", zipfile.ZIP_DEFLATED) as new:
        for one in old.namelist():
            new.writestr(one, change(old.read(one)) if one == entry else old.read(one))
    return path.with_name(name)


def pdf(stream, more=b""):
    """A PDF of one page with a compressed stream."""
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /MediaBox [0 0 600 800] /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d /Filter /FlateDecode %s>>\nstream\n%s\nendstream" % (len(stream), more, stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    data, at = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        at.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    xref = b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % x for x in at)
    return data + xref + b"trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(data)


# ---------------------------------------------------------------------------------------------------------------- paths


@pytest.mark.skipif(os.name == "nt", reason="there are no queues there")
def test_only_plain_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "queue.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    for name, why in (
        ("queue.txt", "is no plain file"),
        ("zero.txt", "is no plain file"),
        ("folder.txt", "is no plain file"),
        ("loop.txt", "that can be opened"),
        ("no\0.txt", "that can be opened"),
        ("x" * 300 + ".txt", "that can be opened"),
    ):
        assert why in texts(tmp_path / name), name


@pytest.mark.parametrize("steps", [True, False], ids=["steps", "resolved"])
def test_a_folder_is_not_left(tmp_path, monkeypatch, steps):
    monkeypatch.setattr(opening, "STEPS", steps and opening.STEPS)
    inside = tmp_path / "inside"
    (inside / "deep/er").mkdir(parents=True)
    (inside / "deep/er/a.txt").write_text("within")
    (tmp_path / "secret.txt").write_text("secret")
    (inside / "link.txt").symlink_to(tmp_path / "secret.txt")
    (inside / "up").symlink_to("..")
    assert taken(Path("deep/er/a.txt"), inside) == b"within"
    assert taken(Path("./deep//er/./a.txt"), inside) == b"within"
    for name in ("../secret.txt", "deep/../../secret.txt", str(inside / "deep/er/a.txt"), "", "."):
        with pytest.raises(InputError, match="is not below the folder: name a file in it"):
            taken(Path(name), inside)
    for name in ("link.txt", "up/secret.txt", "up/inside/link.txt"):
        with pytest.raises(InputError, match="goes through a link|leads out of the folder: name the file itself"):
            taken(Path(name), inside)
    for name in ("deep", "none/a.txt", "deep/er/a.txt/b.txt"):
        with pytest.raises(InputError):
            taken(Path(name), inside)


@pytest.mark.skipif(not opening.STEPS, reason="links cannot be told while a file is opened")
def test_a_link_that_comes_in_between_is_not_followed(tmp_path, monkeypatch):
    """The folder is swapped for a link after it was looked at: the open one is read, never the link."""
    (tmp_path / "inside/sub").mkdir(parents=True)
    (tmp_path / "inside/sub/a.txt").write_text("within")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.txt").write_text("secret")
    real = os.open

    def swapped(path, *rest, **more):
        found = real(path, *rest, **more)
        if path == "sub":
            (tmp_path / "inside/sub").rename(tmp_path / "inside/old")
            (tmp_path / "inside/sub").symlink_to(tmp_path / "outside")
        return found

    monkeypatch.setattr(os, "open", swapped)
    assert taken(Path("sub/a.txt"), tmp_path / "inside") == b"within"


@pytest.mark.skipif(os.name == "nt", reason="names and links are others there")
def test_the_files_of_a_folder(tmp_path):
    inside = tmp_path / "inside"
    (inside / "b").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    for name in ("a.txt", "b/c.MD", "b/line\nfeed \x1b[31m.txt", "picture.png"):
        (inside / name).write_text("a")
    (Path(os.fsdecode(os.fsencode(inside) + b"/bad\xff.txt"))).write_text("a")
    (inside / "out.txt").symlink_to(tmp_path / "secret.txt")
    (inside / "near.txt").symlink_to("a.txt")
    (inside / "loop.txt").symlink_to("loop.txt")
    (inside / "round").symlink_to(".")
    (inside / "up").symlink_to("..")
    os.mkfifo(inside / "queue.txt")
    deep = inside
    for _ in range(100):
        deep = deep / "d"
        deep.mkdir()
        (deep / "x.txt").write_text("a")
    found = [str(path.relative_to(inside)) for path in files_below(inside)]
    shallow = [name for name in found if not name.startswith("d/")]
    assert sorted(shallow) == sorted(["a.txt", "b/c.MD", "b/line\nfeed \x1b[31m.txt", "bad\udcff.txt", "near.txt"])
    assert len(found) - len(shallow) == module.DEEPEST
    assert files_below(tmp_path / "none") == []


# ---------------------------------------------------------------------------------------------------- tables and lines


def test_tables_and_lines_end_where_they_end(tmp_path):
    rows = [["name", "says"], ["Bob", "one\ntwo"], ["Ada", "page\x0cfeed \u2028 line"]]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    assert [one.text for one in documents(tmp_path / "a.csv")] == [f"name: {a}; says: {b}" for a, b in rows[1:]]
    (tmp_path / "a.jsonl").write_text('{"text": "a\u2028b\x85c"}\r\n"d"\n', encoding="utf-8", newline="")
    assert [one.text for one in documents(tmp_path / "a.jsonl")] == ["a\u2028b\x85c", "d"]


def test_tables_that_would_never_end(tmp_path):
    for text, why in (
        (",".join("a" * 100_000) + "\n" + "1\n" * 10_000, "has 100000 columns, and 1000 are the most"),
        ("a,b\n" + "x" * 200_000 + ",1\n", "cannot be read (field larger than field limit"),
        ('a,b\n"' + "x" * 300_000, "cannot be read (field larger than field limit"),
        ("\"'," * 100_000, "columns"),
        ("a;'" * 5_000 + "\n" + '"' * 20_000, ""),
    ):
        (tmp_path / "a.csv").write_text(text)
        start = time.process_time()
        assert why in texts(tmp_path / "a.csv")
        assert time.process_time() - start < 5
    (tmp_path / "a.txt").write_bytes(b"a" * 10_000 + b"\0")
    assert "it has zero bytes" in texts(tmp_path / "a.txt")


# -------------------------------------------------------------------------------------------------------------- parsers


def test_nothing_else_is_opened(tmp_path):
    """What is read in a document's process: it has no way to a connection, a program, or another file."""
    (tmp_path / "secret.txt").write_text("secret")
    tries = f"""
import sys, os, socket, subprocess
from recuerdo.data.parsing import sealed
sealed()
for act in (lambda: open({str(tmp_path / "secret.txt")!r}), lambda: os.open({str(tmp_path / "secret.txt")!r}, 0),
            lambda: open(sys.prefix + "/new.txt", "w"), lambda: open(sys.base_prefix + "/.." * 9 + {str(tmp_path / "secret.txt")!r}), lambda: socket.create_connection(("127.0.0.1", 9)),
            lambda: socket.getaddrinfo("host", 80), lambda: socket.socket(), lambda: os.system("true"),
            lambda: subprocess.run(["true"]), lambda: os.fork(), lambda: os.execv("/bin/true", ["true"]),
            lambda: os.posix_spawn("/bin/true", ["true"], {{}})):
    try:
        act()
        print("done")
    except PermissionError as error:
        print(error)
"""
    known = os.environ | {"PYTHONPATH": str(Path(recuerdo.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", tries], capture_output=True, text=True, timeout=60, env=known)
    assert (
        done.stdout.splitlines()
        == ["a document wants another file"] * 4
        + ["a document wants a connection"] * 3
        + ["a document wants to start a program"] * 5
    ), done.stderr


def test_what_a_document_names_is_not_fetched(tmp_path):
    (tmp_path / "secret.txt").write_text("the secret is nine")
    where = (tmp_path / "secret.txt").as_uri()
    entity = f'<!DOCTYPE w [<!ENTITY x SYSTEM "{where}">]>'.encode()
    laughs = (
        b"<!DOCTYPE w ["
        + b"".join(b'<!ENTITY a%d "%s">' % (i, (b"&a%d;" % (i - 1)) * 10 if i else b"ha" * 50) for i in range(10))
        + b"]>"
    )
    good = docx(tmp_path)

    def with_entity(declared, name):
        def change(xml):
            head, rest = xml.split(b"?>", 1)
            return head + b"?>" + declared + rest.replace(b"Bob has the key.", b"Bob &%s; has" % name)

        return change

    assert texts(good) == "Bob has the key.\n\nsix"
    told = texts(changed(good, "entity.docx", "word/document.xml", with_entity(entity, b"x")))
    assert "Bob" in told
    assert "secret" not in told
    told = texts(changed(good, "laughs.docx", "word/document.xml", with_entity(laughs, b"a9")))
    assert len(told) < 10_000
    page = f'<p>Bob<img src="{where}"><iframe src="{where}"></iframe><object data="{where}"></object>&xxe; has</p>'
    (tmp_path / "a.html").write_text(f'<!DOCTYPE h [<!ENTITY xxe SYSTEM "{where}">]><link href="{where}">{page}')
    told = texts(tmp_path / "a.html")
    assert "Bob" in told
    assert "secret" not in told


def test_a_code_beside_a_document_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('owned')")
    (tmp_path / "bs4.py").write_text("raise SystemExit('owned')")
    (tmp_path / "a.html").write_bytes(HTML)
    monkeypatch.chdir(tmp_path)
    assert "Bob has the key." in texts(Path("a.html"))


def test_bombs_cost_little(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LIMITS", SMALL)
    squeezed = zlib.compress(b"0" * 40_000_000)
    (tmp_path / "a.pdf").write_bytes(pdf(zlib.compress(zlib.compress(b"\0" * 10**8)), b""))
    (tmp_path / "b.pdf").write_bytes(pdf(squeezed))
    lying = changed(docx(tmp_path), "lying.docx", "word/document.xml", lambda xml: xml + b" " * 30_000_000)
    raw = lying.read_bytes().replace((30_000_000 + 2000).to_bytes(4, "little")[2:], b"\0\0")  # some size is not so
    (tmp_path / "lying2.docx").write_bytes(raw)
    start = time.time()
    told = [texts(tmp_path / name) for name in ("a.pdf", "b.pdf", "lying.docx", "lying2.docx")]
    assert time.time() - start < 60
    assert "lying.docx cannot be read" in told[2]
    assert "lying2.docx cannot be read" in told[3]


@pytest.mark.slow
def test_what_needs_too_much_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LIMITS", Limits(memory=200 * 2**20))
    text = b"<w:body>" + b"<w:p><w:r><w:t>a</w:t></w:r></w:p>" * 800_000
    deep = changed(docx(tmp_path), "big.docx", "word/document.xml", lambda xml: xml.replace(b"<w:body>", text))
    assert "big.docx cannot be read" in texts(deep)


def test_time_and_length_have_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LIMITS", Limits(seconds=1))
    (tmp_path / "slow.html").write_bytes(b"<p>a" * 1_000_000)
    assert "slow.html cannot be read within 1 s and" in texts(tmp_path / "slow.html")
    monkeypatch.setattr(module, "LIMITS", Limits(text=10))
    (tmp_path / "long.html").write_bytes(HTML)
    assert "long.html is not read, because it holds more than 10 characters of text: split it" in texts(
        tmp_path / "long.html"
    )


# ----------------------------------------------------------------------------------------------------------------- fuzz


def broken(data, draw):
    """A file in which some bytes are others, are missing, or stand there twice."""
    found = bytearray(data)
    for _ in range(draw.choice([1, 2, 5, 30])):
        at, n = draw.randrange(len(found)), draw.choice([1, 1, 4, 60])
        kind = draw.randrange(4)
        if kind == 0:
            found[at : at + n] = bytes(draw.randrange(256) for _ in range(n))
        elif kind == 1:
            del found[at : at + n]
        elif kind == 2:
            found[at:at] = found[at : at + n] * draw.choice([1, 50])
        else:
            found[at] ^= 1 << draw.randrange(8)
        if not found:
            return b""
    return bytes(found)


def fuzzed(folder, rounds, seed):
    """Broken files, one after the other: how many were texts, how many refused, and the longest time."""
    content = zlib.compress(b"BT /F1 12 Tf 72 700 Td (Bob has the key.) Tj ET")
    good = {".docx": docx(folder).read_bytes(), ".pdf": pdf(content), ".html": HTML}
    draw, counts, longest = random.Random(seed), {"text": 0, "refused": 0}, 0.0
    for i in range(rounds):
        kind = sorted(good)[i % len(good)]
        path = folder / f"broken{kind}"
        path.write_bytes(broken(good[kind], draw))
        start = time.time()
        told = texts(path)
        longest = max(longest, time.time() - start)
        refused = "cannot be read (" in told or "is not read, because" in told
        assert "cannot be read within" not in told, (i, told)
        counts["refused" if refused else "text"] += 1
    return counts, longest


def test_broken_files_are_texts_or_one_line(tmp_path):
    counts, _ = fuzzed(tmp_path, 6, seed=0)
    assert sum(counts.values()) == 6


@pytest.mark.slow
def test_many_broken_files_are_texts_or_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LIMITS", SMALL)
    counts, longest = fuzzed(tmp_path, 450, seed=1)
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"\n{counts}, at most {longest:.1f} s and {most:.0f} MiB")
    assert min(counts.values()) > 0
    assert longest < 20
    assert most < 600
