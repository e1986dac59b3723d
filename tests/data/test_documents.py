"""Files as texts: what each kind gives, and that damaged, hostile and foreign files are one clear line."""

import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recuerdo.data import documents as module
from recuerdo.data import opening
from recuerdo.data.documents import READERS, documents
from recuerdo.data.parsing import PARSERS, Limits
from recuerdo.errors import InputError


def read(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(documents(path))


def pdf(text):
    """A PDF of one page, written by hand."""
    body = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET".encode()
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /MediaBox [0 0 600 800] /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(body), body),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    data, at = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        at.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    start = len(data)
    data += b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % x for x in at)
    return data + b"trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % start


def test_texts(tmp_path):
    assert [one.text for one in read(tmp_path / "a.txt", "\ufeffÜber allen")] == ["Über allen"]
    assert [one.text for one in read(tmp_path / "a.MD", "# Head\n\nText")] == ["# Head\n\nText"]
    assert read(tmp_path / "a.txt", " \n") == []


def test_html_is_what_a_person_sees(tmp_path):
    page = """<html><head><title>no</title><script>alert('no')</script><style>p {}</style></head><body><h1>The town</h1>
    <p>Bob &amp; Ada have <b>the</b> key.</p><script src="http://example.com/x.js"></script><ul><li>One</li><li>Two</li></ul>
    <template>no</template><table><tr><td>a</td><td>b</td></tr></table></body></html>"""
    found = read(tmp_path / "a.html", page)[0].text
    assert found.split("\n\n")[:4] == ["The town", "Bob & Ada have the key.", "One", "Two"]
    assert "no" not in found
    assert read(tmp_path / "b.htm", "<p>" * 3000 + "deep")[0].text == "deep"


def test_pdf_page_by_page(tmp_path):
    found = read(tmp_path / "a.pdf", pdf("Bob has the key."))
    assert [(one.text.strip(), one.part) for one in found] == [("Bob has the key.", "page 1")]


def test_docx_with_tables(tmp_path):
    import docx

    made = docx.Document()
    made.add_heading("The town", 1)
    made.add_paragraph("Bob has the key.")
    table = made.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "library", "six"
    made.save(str(tmp_path / "a.docx"))
    assert next(documents(tmp_path / "a.docx")).text == "The town\n\nBob has the key.\n\nlibrary | six"


def test_csv_row_by_row(tmp_path):
    found = read(tmp_path / "a.csv", 'name;says\nBob;"has; the key"\nAda;\n')
    assert [(one.text, one.part) for one in found] == [
        ("name: Bob; says: has; the key", "row 2"),
        ("name: Ada", "row 3"),
    ]


def test_jsonl_line_by_line(tmp_path):
    lines = '{"text": "one", "tags": ["a"], "author": "Ada", "time": "2026-01-02T00:00:00+00:00"}\n\n"two"\n{"text": "three", "time": 5}\n'
    found = read(tmp_path / "a.jsonl", lines)
    assert [(one.text, one.tags, one.author, one.time) for one in found] == [
        ("one", ("a",), "Ada", 1767312000.0),
        ("two", (), "", None),
        ("three", (), "", 5.0),
    ]


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.exe", b"MZ", "a.exe is of a kind that cannot be read: give .txt, .md"),
        ("a.txt", b"a\0b", "a.txt is no text: it has zero bytes"),
        ("a.txt", b"ab\xff", r"a.txt is not UTF-8 \(byte 2\): save it as UTF-8"),
        ("a.pdf", b"%PDF-1.4 and no more", "a.pdf cannot be read"),
        ("a.docx", b"PK no zip", "a.docx cannot be read"),
        ("a.jsonl", b'{"text": 1}', 'line 1 of a.jsonl has no text: write {"text"'),
        ("a.jsonl", b"{", "a.jsonl cannot be read"),
        ("a.jsonl", b'{"text": "a", "tags": "b"}', "tags in line 1 of a.jsonl are a list of texts"),
        ("a.jsonl", b'{"text": "a", "time": "soon"}', "the time in line 1 of a.jsonl is no date"),
        ("a.jsonl", b'{"text": "a", "time": 1e999}', "the time in line 1 of a.jsonl is no date"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, name, data, told):
    with pytest.raises(InputError, match=told) as error:
        read(tmp_path / name, data)
    assert "\n" not in str(error.value)


def test_bombs_and_giants_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("word/document.xml", b"0" * 2_000_000)
    monkeypatch.setattr(module, "LIMITS", Limits(unpacked=1_000_000))
    with pytest.raises(
        InputError, match="bomb.docx is not read, because it unpacks to 2,000,000 bytes, and 1,000,000 are the most"
    ):
        list(documents(tmp_path / "bomb.docx"))
    monkeypatch.setattr(opening, "LARGEST", 10)
    with pytest.raises(InputError, match="a.txt has 11 bytes, and 10 are the most: split it"):
        read(tmp_path / "a.txt", "x" * 11)
    monkeypatch.setattr(module, "MOST_CELLS", 2)
    monkeypatch.setattr(opening, "LARGEST", 10_000)
    with pytest.raises(InputError, match="a.csv has 3 columns, and 2 are the most"):
        read(tmp_path / "a.csv", "a,b,c\n1,2,3\n")


def test_a_parser_that_is_not_there_is_named(tmp_path, monkeypatch):
    (tmp_path / "pypdf.py").write_text('raise ImportError("no", name="pypdf")')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InputError, match=r"a.pdf needs pypdf: pip install 'recuerdo\[documents\]'"):
        read(tmp_path / "a.pdf", pdf("x"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted({*READERS} - {*PARSERS})),
    data=st.binary(max_size=300) | st.text(max_size=300).map(str.encode),
    head=st.sampled_from([b"", b"a,b\n", b'"', b"{", b'{"text": "']),
)
def test_anything_is_a_text_or_a_clear_error(tmp_path, kind, data, head):
    try:
        assert all(isinstance(one.text, str) for one in read(tmp_path / f"x{kind}", head + data))
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
