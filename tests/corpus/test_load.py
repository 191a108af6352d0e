"""Loading: each format gives its text, and every character of it has a place."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreach.corpus import load as loading
from longreach.corpus.load import load, load_bytes
from longreach.errors import DocumentError
from longreach.types import Document
from papers import manual


def labels(document: Document, kind: str = "heading") -> list[tuple[str, int]]:
    return [(anchor.label, anchor.level) for anchor in document.anchors if anchor.kind == kind]


def section(document: Document, words: str) -> tuple[str, ...]:
    assert document.text.count(words) == 1
    return document.place(document.text.index(words)).section


def page(document: Document, words: str) -> int | None:
    assert document.text.count(words) == 1
    return document.place(document.text.index(words)).page


def check_anchors(document: Document) -> None:
    assert [anchor.offset for anchor in document.anchors] == sorted(anchor.offset for anchor in document.anchors)
    for anchor in document.anchors:
        if anchor.kind == "heading":
            there = " ".join(document.text[anchor.offset : anchor.offset + 2 * len(anchor.label) + 9].split())
            assert there.lstrip("# ").startswith(anchor.label)
    for offset in range(len(document.text) + 1):
        place = document.place(offset)
        assert place.line == document.text.count("\n", 0, offset) + 1


# Plain text and source code ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_is_the_files_own_in_every_unicode_encoding(encoding):
    text = "Größe: 12 €\r\n\tindented — “quoted”\r\rlast line without an end"
    assert load_bytes(text.encode(encoding), "a.txt").text == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Die Größe der Häuser überraschte viele Gäste. Für Müller war das schön und natürlich. " * 3),
        ("cp1251", "Это обычный русский текст, который записан в старой кодировке. Его надо прочитать верно. " * 3),
        ("shift_jis", "これは日本語の文章です。古い文字コードで書かれています。正しく読めるでしょうか。" * 3),
    ],
)
def test_legacy_encodings_are_told_from_the_text(encoding, text):
    assert load_bytes(text.encode(encoding), "a.txt").text == text


def test_a_few_broken_bytes_leave_the_rest_of_utf8_as_it_is():
    data = "Größe € größer. ".encode() * 20 + b"\xff\xfe\x80" + "schön".encode()
    text = load_bytes(data, "a.log").text
    assert text == "Größe € größer. " * 20 + "\ufffd\ufffd\ufffdschön"


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_any_utf8_text_comes_back_unchanged(text):
    if text.isspace() or text.startswith("\ufeff"):
        return
    assert load_bytes(text.encode(), "a.txt").text == text


def test_code_knows_its_language_and_lines():
    document = load_bytes(b"import os\n\nprint(os)\n", "src/a.py")
    assert document.media_type == "text/x-python"
    assert str(document.place(document.text.index("print"))) == "line 3"


def test_what_is_known_of_a_file_is_kept(tmp_path):
    path = tmp_path / "a b.MD"
    path.write_text("# Title here\n\ntext", encoding="utf-8")
    document = load(path)
    assert document.id == document.source == path.as_posix()
    assert document.metadata == {"name": "a b.MD", "extension": "md", "size": 18, "title": "Title here"}
    assert document.media_type == "text/markdown"


def test_the_id_is_absolute_however_the_path_is_given(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.chdir(tmp_path / "sub")
    assert load("../a.txt").id == (tmp_path / "a.txt").as_posix()


# Markdown ------------------------------------------------------------------------------------------------------------

MARKDOWN = """---
title: "# not a heading"
---
# Top *heading* with `code_here`

Text, then a setext
heading
=======

- item
---

```python
# not a heading
```

~~~
# nor this
```
# nor that
~~~

    # nor in indented code

Second one
----------
## Under [a link](http://x.y) ##
#nothing

| a |
|---|
### Deep\r
end
"""


def test_markdown_is_verbatim_and_its_headings_are_anchors():
    document = load_bytes(MARKDOWN.encode(), "a.md")
    assert document.text == MARKDOWN
    assert labels(document) == [
        ("Top heading with code_here", 1),
        ("Text, then a setext heading", 1),
        ("Second one", 2),
        ("Under a link", 2),
        ("Deep", 3),
    ]
    assert section(document, "end\n") == ("Text, then a setext heading", "Under a link", "Deep")
    starts = [document.text[anchor.offset : anchor.offset + 4] for anchor in document.anchors]
    assert starts == ["# To", "Text", "Seco", "## U", "### "]


def test_a_paragraph_over_a_line_of_dashes_is_no_heading():
    document = load_bytes(b"A line of a paragraph.\n" * 20 + b"---\n# Real # one ##\n# \n#\n", "a.md")
    assert labels(document) == [("Real # one", 1)]


# HTML ----------------------------------------------------------------------------------------------------------------

HTML = """<!DOCTYPE html><html><head><title>A &amp; B</title><style>p { color: red }</style>
<script>var x = "<p>no</p>";</script>
</head><body><nav>Home <a href="/x">Elsewhere</a></nav><div role="navigation">Sidebar</div>
<main><h1>The <code>title</code><a class="headerlink" href="#t" title="Permalink">¶</a></h1>
<p>First under_score
paragraph with <a href="http://x.y/z">a link</a>, <b>bold</b><i>italic</i>.<br>After a break &lt;tag&gt; &nbsp;.
<ul><li><p>one</p></li><li>two<ul><li>inner</ul></li></ul>
<ol><li>first<li>second</ol>
<h2 id=s>Section</h2><dl><dt>f(<em>a</em>, <em>b</em>)</dt><dd><p>Does it.</p></dd></dl>
<pre>
def f():
    return  1
</pre><table><tr><th>k</th><th>v</th></tr><tr><td><p>a</p></td><td></td><td>b</td></tr></table>
<aside>A footnote.</aside><button>Copy</button></main><footer>Copyright</footer></body></html>"""


def test_html_reads_as_people_would_read_it():
    document = load_bytes(HTML.encode(), "a.html")
    assert document.text == (
        "The title\n\nFirst under_score paragraph with a link, bolditalic.\nAfter a break <tag> \u00a0.\n\n"
        "- one\n- two\n  - inner\n\n1. first\n2. second\n\nSection\n\nf(a, b)\n\nDoes it.\n\n"
        "def f():\n    return  1\n\nk | v\na |  | b\n\nA footnote.\n"
    )
    assert document.metadata["title"] == "A & B"
    assert labels(document) == [("The title", 1), ("Section", 2)]
    assert section(document, "Does it") == ("The title", "Section")
    check_anchors(document)


def test_html_that_is_all_menu_is_read_all_the_same():
    assert load_bytes(b"<nav><ul><li>Home</li></ul></nav>", "a.html").text == "- Home\n"


def test_html_may_leave_tags_open_and_out():
    document = load_bytes(b"<title>T</title><h1>Head</h1><p>one<p>two<table><tr><td>a<td>b<tr><td>c</table>", "a.htm")
    assert document.text == "Head\n\none\n\ntwo\n\na | b\nc\n"


def test_html_is_decoded_as_it_declares():
    page = '<meta charset="windows-1251"><p>Привет'.encode("cp1251")
    assert load_bytes(page, "a.html").text == "Привет\n"


TAGS = [f"<{slash}{tag}>" for tag in "p td tr table li ul h1 pre main nav a head".split() for slash in ("", "/")]


@given(st.lists(st.sampled_from([*TAGS, "a ", "\n", "b", "<br>", "<a class=headerlink>", "<!--", "&lt;"]), max_size=40))
def test_any_tags_in_any_order_give_text_with_true_anchors(parts):
    try:
        document = load_bytes("".join(["x<p>", *parts]).encode(), "a.html")
    except DocumentError:
        return
    check_anchors(document)
    assert "\n\n\n" not in document.text or "<pre>" in parts


# Documents that Kreuzberg parses -------------------------------------------------------------------------------------


def pdf(pages: int = 3, **options: object) -> bytes:
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate

    styles = getSampleStyleSheet()
    flow = []
    for number in range(1, pages + 1):
        body = f"Unique{number} — “quoted” text, café and naïve. " + "It fills lines with words of no meaning. " * 12
        flow += [Paragraph(f"Chapter {number} é", styles["Heading1"]), Paragraph(body, styles["BodyText"]), PageBreak()]
    buffer = io.BytesIO()
    SimpleDocTemplate(buffer, title="The PDF", **options).build(flow)
    return buffer.getvalue()


def test_pdf_pages_and_headings_are_exact():
    document = load_bytes(pdf(), "a.pdf")
    assert labels(document, "page") == [("1", 0), ("2", 0), ("3", 0)]
    assert [page(document, f"Unique{number}") for number in (1, 2, 3)] == [1, 2, 3]
    assert section(document, "Unique2") == ("Chapter 2 é",)
    assert [document.place(anchor.offset).page for anchor in document.anchors if anchor.kind == "heading"] == [1, 2, 3]
    assert document.metadata["title"] == "The PDF"
    assert document.media_type == "application/pdf"
    assert document.place(0).page == 1
    check_anchors(document)


def test_lines_of_a_pdf_that_stand_far_apart_are_no_table():
    text = load_bytes(manual(), "pump.pdf").text
    assert "|" not in text
    assert "It stands on four feet of rubber.\nBefore it is opened, the mains must be cut off and the valve" in text


def test_a_table_of_a_pdf_stays_one():
    from reportlab.platypus import SimpleDocTemplate, Table

    rows = [["part", "use", "torque"], ["bolt", "of the housing", "25 Nm"], ["valve", "of the inlet", "12 Nm"]]
    buffer = io.BytesIO()
    SimpleDocTemplate(buffer).build([Table(rows, colWidths=150)])
    lines = load_bytes(buffer.getvalue(), "a.pdf").text.splitlines()
    assert lines == [" | ".join(row) for row in rows]


def test_docx_headings_tables_and_text():
    import docx

    file = docx.Document()
    file.add_heading("Über uns", 1)
    file.add_paragraph("First with under_score and *star* 😀.")
    file.add_heading("Part", 2)
    table = file.add_table(2, 2)
    for index, cell in enumerate(("a b", "c", "1", "2")):
        table.cell(index // 2, index % 2).text = cell
    file.add_heading("Part", 2)
    file.add_paragraph("Under the second.")
    buffer = io.BytesIO()
    file.save(buffer)
    document = load_bytes(buffer.getvalue(), "a.docx")
    assert labels(document) == [("Über uns", 1), ("Part", 2), ("Part", 2)]
    assert "First with under_score and *star* 😀." in document.text
    assert "a b | c\n1 | 2" in document.text
    assert document.anchors[2].offset == document.text.rindex("Part")
    assert section(document, "Under the second") == ("Über uns", "Part")
    check_anchors(document)


def test_a_slide_is_a_page():
    import pptx

    deck = pptx.Presentation()
    for number in range(1, 21):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = f"Slide é {number}"
        slide.placeholders[1].text = f"Body{number}.\nUnder_scored line"
    buffer = io.BytesIO()
    deck.save(buffer)
    document = load_bytes(buffer.getvalue(), "a.pptx")
    assert [page(document, f"Body{number}.") for number in range(1, 21)] == list(range(1, 21))
    assert section(document, "Body12.") == ("Slide é 12",)
    assert "longreach" not in document.text
    check_anchors(document)


def test_a_sheet_is_a_heading():
    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = "Preise é"
    book.active.append(["two words", "price"])
    book.active.append(["pear|y", 2])
    book.create_sheet("Other").append(["Unique", 3])
    buffer = io.BytesIO()
    book.save(buffer)
    document = load_bytes(buffer.getvalue(), "a.xlsx")
    assert "two words | price\npear|y | 2" in document.text
    assert section(document, "Unique") == ("Other",)
    assert page(document, "Unique") is None
    check_anchors(document)


def test_a_chapter_of_a_book_is_a_heading():
    package = "http://www.idpf.org/2007/opf"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as book:
        book.writestr("mimetype", "application/epub+zip")
        book.writestr(
            "META-INF/container.xml",
            '<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="c.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
        )
        book.writestr(
            "c.opf",
            f'<package xmlns="{package}" version="3.0"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
            "<dc:title>The Book</dc:title></metadata><manifest>"
            '<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>'
            '<item id="b" href="b.xhtml" media-type="application/xhtml+xml"/></manifest>'
            '<spine><itemref idref="b"/><itemref idref="a"/></spine></package>',
        )
        for name, title in (("a", "Chapter two"), ("b", "Chapter one é")):
            book.writestr(
                f"{name}.xhtml",
                f'<html xmlns="http://www.w3.org/1999/xhtml"><body><h1>{title}</h1><p>Text_{name} and '
                '<a href="u">a link</a>.</p></body></html>',
            )
    document = load_bytes(buffer.getvalue(), "a.epub")
    assert labels(document) == [("Chapter one é", 1), ("Chapter two", 1)]
    assert section(document, "Text_a and a link.") == ("Chapter two",)
    assert document.metadata["title"] == "The Book"
    check_anchors(document)


# Files that cannot be read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", b"", "empty"),
        ("a.md", b" \n\t\n", "empty"),
        ("a.html", b"<script>1</script>", "no text"),
        ("a.html", b"<div>x" * 3000, "nested too deeply"),
        ("a.txt", b"\xef\xbb\xbf", "no text"),
        ("a.txt", b"\x7fELF\x02\x01\x01" + bytes(200), "binary"),
        ("a.txt", bytes(range(1, 32)) * 20, "binary"),
        ("noext", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "binary"),
        ("a.png", b"anything", "no reader understands .png"),
        ("a.txt", b"\xff\xfea", "damaged"),
        ("a.pdf", b"%PDF-1.4 and no more", "damaged"),
        ("a.docx", b"PK\x03\x04 nonsense", "damaged"),
        ("a.epub", b"no archive", "damaged"),
        ("a.xlsx", b"no archive", "damaged"),
        ("a.pptx", b"no archive", "damaged"),
    ],
)
def test_bad_contents_are_refused_in_one_sentence_that_names_the_file(name, data, reason):
    with pytest.raises(DocumentError, match=reason) as caught:
        load_bytes(data, name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cut_pdf_is_damaged():
    with pytest.raises(DocumentError, match=r"a\.pdf.*damaged"):
        load_bytes(pdf()[:900], "a.pdf")


def test_a_locked_pdf_asks_for_a_copy_without_a_password():
    with pytest.raises(DocumentError, match="password"):
        load_bytes(pdf(encrypt="secret"), "a.pdf")


def test_a_pdf_without_text_is_told_from_an_empty_one():
    from reportlab.pdfgen.canvas import Canvas

    buffer = io.BytesIO()
    canvas = Canvas(buffer)
    canvas.rect(10, 10, 100, 100)
    canvas.save()
    with pytest.raises(DocumentError, match="no text"):
        load_bytes(buffer.getvalue(), "a.pdf")


@pytest.mark.parametrize("failure", [RuntimeError("boom"), type("PanicException", (BaseException,), {})("at line 3")])
def test_a_parser_that_breaks_down_fails_one_file(monkeypatch, failure):
    import kreuzberg

    def broken(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(kreuzberg, "extract_bytes_sync", broken)
    with pytest.raises(DocumentError, match="damaged"):
        load_bytes(b"%PDF", "a.pdf")


def test_the_wish_to_stop_is_not_taken_for_a_damaged_file(monkeypatch):
    import kreuzberg

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(kreuzberg, "extract_bytes_sync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_bytes(b"%PDF", "a.pdf")


def test_missing_and_unreadable_files_are_named(tmp_path):
    with pytest.raises(DocumentError, match=r"nothing\.txt: No such file"):
        load(tmp_path / "nothing.txt")
    with pytest.raises(DocumentError, match="not a file"):
        load(tmp_path)
    if os.geteuid():
        path = tmp_path / "secret.txt"
        path.write_text("x")
        path.chmod(0)
        with pytest.raises(DocumentError, match=r"secret\.txt: Permission denied"):
            load(path)


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "big.txt"
    with path.open("wb") as file:
        file.truncate(loading.SIZE_LIMIT + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("was read"))
    with pytest.raises(DocumentError, match=r"big\.txt: its 100 MB are over the limit of 100 MB"):
        load(path)


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    Path(os.fsdecode(path)).write_text("x")
    with pytest.raises(DocumentError, match="not valid UTF-8") as caught:
        load(os.fsdecode(path))
    str(caught.value).encode("utf-8")


def test_fifty_megabytes_of_text_load(tmp_path):
    path = tmp_path / "big.txt"
    path.write_bytes("Zeile mit Größe.\n".encode() * 2_800_000)
    assert load(path).text.count("Zeile mit Größe.\n") == 2_800_000


# Acceptance ----------------------------------------------------------------------------------------------------------

PYTHON_DOCS = Path("/usr/share/doc/python3/html/library")


@pytest.mark.skipif(not PYTHON_DOCS.is_dir(), reason="the Python documentation is not installed")
def test_the_python_documentation_reads_clean():
    document = load(PYTHON_DOCS / "bisect.html")
    assert document.text.startswith("bisect — Array bisection algorithm\n\nSource code: Lib/bisect.py\n\nThis module")
    assert "bisect.bisect_left(a, x, lo=0, hi=len(a), *, key=None)" in document.text
    assert not any(mark in document.text for mark in ("¶", "](", "\\_", "Navigation", "Previous topic"))
    assert "Searching Sorted Lists" in [anchor.label for anchor in document.anchors]
    check_anchors(document)
