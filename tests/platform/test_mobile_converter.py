"""The converter writes files that readers of each format accept."""

import io
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

if TYPE_CHECKING:
    from tests.platform.conftest import Running, Start

DOCUMENT = (
    "Some *text* with a [link](https://example.org).\n\n## List\n\n- one\n- two\n\n"
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n```\ncode\n```\n\n> quoted\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("output") / "documents"


@pytest.fixture(scope="module")
def converter(start: "Start", folder: Path) -> "Running":
    return start("mobile_converter.py", "--output", str(folder), "--keep", "5")


def convert(converter: "Running", wanted: str, markdown: str = DOCUMENT, title: str = "A & B") -> bytes:
    made = converter.post("/convert", {"title": title, "markdown": markdown, "format": wanted})
    assert made.status_code == 201, made.text
    file = converter.get(made.json()["path"])
    assert file.status_code == 200
    assert len(file.content) == made.json()["bytes"]
    return file.content


def test_html_has_the_document_and_escapes_the_title(converter: "Running") -> None:
    page = convert(converter, "html").decode()

    assert "<h1>A &amp; B</h1>" in page
    assert "<em>text</em>" in page
    assert "<td>1</td>" in page


def test_epub_is_a_whole_zip_with_a_readable_chapter(converter: "Running") -> None:
    with zipfile.ZipFile(io.BytesIO(convert(converter, "epub"))) as book:
        assert book.testzip() is None
        assert book.namelist()[0] == "mimetype"
        assert book.read("mimetype") == b"application/epub+zip"
        chapter = ET.fromstring(book.read("EPUB/document.xhtml"))

    text = "".join(chapter.itertext())
    assert "A & B" in text
    assert "one" in text


def test_pdf_has_header_and_end(converter: "Running") -> None:
    content = convert(converter, "pdf")

    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")


@pytest.mark.parametrize("wanted", ["html", "epub", "pdf"])
def test_raw_html_and_images_of_strangers_are_plain_text(converter: "Running", wanted: str) -> None:
    hostile = '<script>x</script>\n\n<img src="/etc/hostname">\n\n![a](/etc/hostname)\n\n<p onclick="x">b'

    content = convert(converter, wanted, hostile)

    if wanted == "html":
        body = content.decode().partition("<body>")[2]
        assert "<script" not in body
        assert "<img" not in body
        assert "<p onclick" not in body


@pytest.mark.parametrize(("wanted", "quality"), [("html", 1.0), ("epub", 1.0), ("pdf", 0.75)])
def test_it_says_how_much_of_the_text_a_format_can_show(
    converter: "Running", wanted: str, quality: float
) -> None:
    made = converter.post("/convert", {"title": "ab", "markdown": "c✓", "format": wanted})

    assert made.json()["quality"] == quality


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"title": "a", "markdown": "b"}, "'format' must be one of html, epub, pdf"),
        ({"title": "a", "markdown": "b", "format": ["pdf"]}, "'format' must be one of"),
        ({"title": "a", "format": "pdf"}, "'markdown' must be a text"),
        ({"title": "a", "markdown": "\ud800", "format": "pdf"}, "'markdown' has half a surrogate pair"),
        ({"title": "x" * 201, "markdown": "b", "format": "pdf"}, "'title' must have at most 200"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    converter: "Running", body: dict[str, object], reason: str
) -> None:
    answer = converter.post("/convert", body)

    assert answer.status_code == 400
    assert reason in answer.json()["error"]


@pytest.mark.parametrize(
    "name", ["x", "..%2F..%2Fetc%2Fpasswd", "0" * 32, "00000000-0000-4000-8000-000000000000"]
)
def test_what_is_not_a_document_is_not_found(converter: "Running", name: str) -> None:
    assert converter.get(f"/files/{name}").status_code == 404


def test_what_a_format_cannot_show_is_refused_with_the_reason(converter: "Running") -> None:
    body = {"title": "a", "markdown": "[a link](#nowhere)", "format": "pdf"}

    answer = converter.post("/convert", body)

    assert answer.status_code == 422
    assert answer.json()["error"].startswith("this document cannot become pdf: Named destination")


def test_only_the_newest_files_are_kept_and_nothing_else_lies_about(
    converter: "Running", folder: Path
) -> None:
    for _ in range(7):
        convert(converter, "html")
    converter.get("/health")

    assert len(list(folder.iterdir())) == 5
    assert len(converter.get("/files?limit=100").json()["files"]) == 5


def test_without_its_folder_it_is_unhealthy_until_the_folder_is_back(
    converter: "Running", folder: Path
) -> None:
    shutil.rmtree(folder)
    sick = converter.get("/health")
    refused = converter.post("/convert", {"title": "a", "markdown": "b", "format": "html"})
    folder.mkdir()
    well = converter.get("/health")

    assert (sick.status_code, sick.json()["status"]) == (503, "unhealthy")
    assert sick.json()["reason"] == "cannot write to the output folder: No such file or directory"
    assert refused.status_code == 503
    assert well.status_code == 200
