"""The mobile converter: turns Markdown into HTML, EPUB and PDF files on disk."""

import io
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from flask import Flask, abort, jsonify, request, send_file
from flask.typing import ResponseReturnValue

from service import application, command_line, json_object, serve, text_of
from soulfra_monitor import ErrorMonitor

LONGEST_TITLE = 200
LONGEST_DOCUMENT = 500_000
PAGE = (148, 210)  # millimetres, A5: large enough letters on a small screen

_PAGE = """<!doctype html>
<html><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{ max-width: 40em; margin: 1em auto; padding: 0 1em; font: 1.1em/1.5 sans-serif }}</style>
</head><body><h1>{title}</h1>
{body}
</body></html>
"""


class ConversionError(Exception):
    """A document cannot be shown in the format; the text says why."""


# The libraries are imported where they are used: loading them takes longer than starting the service.


def _html_of(markdown: str) -> str:
    from markdown import Markdown  # noqa: PLC0415 - see above

    # Raw HTML becomes plain text and images stay away: documents come from strangers, and the PDF
    # library would read whatever file or address an image names.
    reader = Markdown(extensions=["tables", "fenced_code"])
    reader.preprocessors.deregister("html_block")
    reader.inlinePatterns.deregister("html")
    for pattern in ("image_link", "image_reference", "short_image_ref"):
        reader.inlinePatterns.deregister(pattern)
    html: str = reader.convert(markdown)
    return html


def to_html(title: str, markdown: str) -> bytes:
    """Return a page that reads well on a phone."""
    return _PAGE.format(title=escape(title), body=_html_of(markdown)).encode()


def to_epub(title: str, markdown: str) -> bytes:
    """Return an EPUB with one chapter."""
    from ebooklib import epub  # noqa: PLC0415 - see above

    book = epub.EpubBook()
    book.set_identifier(uuid.uuid4().hex)
    book.set_title(title)
    book.set_language("en")
    chapter = epub.EpubHtml(title=title, file_name="document.xhtml", lang="en")
    chapter.content = f"<h1>{escape(title)}</h1>{_html_of(markdown)}"
    book.add_item(chapter)
    book.add_item(epub.EpubNcx())
    book.add_item(epub.EpubNav())
    book.toc = [chapter]
    book.spine = ["nav", chapter]
    target = io.BytesIO()
    epub.write_epub(target, book)
    return target.getvalue()


def to_pdf(title: str, markdown: str) -> bytes:
    """Return a PDF. Its built-in fonts know Latin-1 only: other characters become question marks.

    Raises ConversionError for what the library cannot lay out, for example a link to nowhere.
    """
    from fpdf import FPDF, FPDFException  # noqa: PLC0415 - see above

    pdf = FPDF(format=PAGE)
    pdf.set_title(_latin(title))
    pdf.add_page()
    pdf.set_font("Helvetica", size=11)
    try:
        pdf.write_html(f"<h1>{escape(_latin(title))}</h1>{_html_of(_latin(markdown))}")
        return bytes(pdf.output())
    except (FPDFException, NotImplementedError) as error:
        raise ConversionError(str(error)) from error


def _latin(text: str) -> str:
    return text.encode("latin-1", "replace").decode("latin-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format a document can be turned into; *covers* says which characters it can show."""

    convert: Callable[[str, str], bytes]
    mimetype: str
    covers: str = "utf-8"  # the encoding that has them


FORMATS = {
    "html": Format(convert=to_html, mimetype="text/html"),
    "epub": Format(convert=to_epub, mimetype="application/epub+zip"),
    "pdf": Format(convert=to_pdf, mimetype="application/pdf", covers="latin-1"),
}


def quality(text: str, encoding: str) -> float:
    """Return the share of characters that *encoding* can show."""
    return round(len(text.encode(encoding, "ignore").decode(encoding)) / len(text), 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """The folder the documents are kept in, the newest *keep* of them."""

    folder: Path
    keep: int

    def put(self, content: bytes, suffix: str) -> str:
        """Store *content* whole or not at all and return its id. Raises OSError."""
        name = str(uuid.uuid4())
        unfinished = self.folder / f"{name}.part"
        unfinished.write_bytes(content)
        unfinished.rename(self.folder / f"{name}.{suffix}")
        for old in self.newest()[self.keep :]:
            old.unlink(missing_ok=True)
        return name

    def newest(self) -> list[Path]:
        """Return the documents, the newest first. Raises OSError if the folder cannot be read."""
        aged = []
        for entry in os.scandir(self.folder):
            path = Path(entry.path)
            if path.suffix[1:] in FORMATS:
                aged.append((entry.stat().st_mtime_ns, path))
        return [path for _, path in sorted(aged, reverse=True)]

    def find(self, name: str) -> Path | None:
        """Return the document with the id *name*."""
        candidates = (self.folder / f"{name}.{suffix}" for suffix in FORMATS)
        return next((path for path in candidates if path.is_file()), None)

    def try_out(self) -> None:
        """Write and delete a small file. Raises OSError."""
        trial = self.folder / f"{uuid.uuid4().hex}.trial"
        trial.write_bytes(b"trial")
        trial.unlink()


def create_app(shelf: Shelf) -> Flask:
    """Return the service that keeps its documents on *shelf*."""
    app = application("mobile-converter")

    @app.errorhandler(OSError)
    def folder_broken(error: OSError) -> ResponseReturnValue:
        return jsonify(error=_reason(error)), 503

    @app.post("/convert")
    def convert() -> ResponseReturnValue:
        body = json_object()
        title = text_of(body, "title", longest=LONGEST_TITLE)
        markdown = text_of(body, "markdown", longest=LONGEST_DOCUMENT)
        wanted = body.get("format")
        if not isinstance(wanted, str) or wanted not in FORMATS:
            abort(400, f"'format' must be one of {', '.join(FORMATS)}")
        try:
            content = FORMATS[wanted].convert(title, markdown)
        except ConversionError as error:
            abort(422, f"this document cannot become {wanted}: {error}")
        name = shelf.put(content, wanted)
        return jsonify(
            id=name,
            format=wanted,
            bytes=len(content),
            quality=quality(title + markdown, FORMATS[wanted].covers),
            path=f"/files/{name}",
        ), 201

    @app.get("/files")
    def files() -> ResponseReturnValue:
        limit = min(max(request.args.get("limit", 10, int), 1), 100)
        return jsonify(files=[_described(path) for path in shelf.newest()[:limit]])

    @app.get("/files/<uuid:name>")
    def file(name: uuid.UUID) -> ResponseReturnValue:
        path = shelf.find(str(name))
        if path is None:
            abort(404, f"there is no file {name}")
        return send_file(path.absolute(), mimetype=FORMATS[path.suffix[1:]].mimetype)

    @app.get("/health")
    def health() -> ResponseReturnValue:
        try:
            shelf.try_out()
        except OSError as error:
            return jsonify(status="unhealthy", service=app.name, reason=_reason(error)), 503
        return jsonify(status="healthy", service=app.name)

    return app


def _described(path: Path) -> dict[str, Any]:
    return {"id": path.stem, "format": path.suffix[1:]}


def _reason(error: OSError) -> str:
    return f"cannot write to the output folder: {error.strerror}"


if __name__ == "__main__":
    parser = command_line("mobile-converter", "Turns Markdown into HTML, EPUB and PDF files.")
    parser.add_argument(
        "--output", type=Path, default=os.environ.get("OUTPUT_DIR", "documents"), help="where the files go"
    )
    parser.add_argument("--keep", type=int, default=200, help="how many files are kept")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    monitor = ErrorMonitor(service="mobile-converter").start()
    shelf = monitor.add_service("mobile-converter", Shelf(folder=arguments.output, keep=arguments.keep))
    serve(create_app(shelf), arguments.port)
