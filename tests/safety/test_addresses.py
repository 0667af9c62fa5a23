"""Where bytes come from: https, or plain http with a checksum that says which bytes are right; and where redirects may lead."""

import ast
import hashlib
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from project import ROOT
from sound_files import members, write_tones, zipped

from dd.data.download import CHECKSUM, download, encrypted
from dd.data.registry import DATASETS, Download
from dd.errors import ConfigError, DataError
from dd.generators.files import FILES
from dd.teachers import TEACHERS

# Hosts that answer plain http only, at some of the addresses that authors publish.
PLAIN_ONLY = {"fashion-mnist.s3-website.eu-central-1.amazonaws.com"}
ITEMS = [(name, item) for name, known in DATASETS.items() for item in known.downloads]


def test_every_download_is_pinned_or_encrypted_and_begins_with_https():
    assert len(ITEMS) > 10
    for name, item in ITEMS:
        assert item.urls and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", item.file), f"{name}: {item.file} is the name of a file"
        if item.checksum is None:
            assert all(url.startswith("https://") for url in item.urls), f"{name}: {item.file}: nothing says which bytes are right"
        else:
            assert re.fullmatch(CHECKSUM, item.checksum), name
        assert item.urls[0].startswith("https://"), f"{name}: {item.file}: https comes first"
        for url in item.urls:
            host = re.fullmatch(r"(https?)://([a-z0-9.-]+)/\S+", url)
            assert host, f"{name}: {url}"
            secure = f"https://{url.removeprefix('http://')}"
            assert host[1] == "https" or host[2] in PLAIN_ONLY or secure in item.urls, f"{name}: {url}: try https before it"


def test_addresses_that_people_are_sent_to_are_https():
    shown = (
        [known.obtain for known in DATASETS.values()] + [one.file for one in TEACHERS.values()] + [one.published for one in FILES.values()]
    )
    assert not [text for text in shown if "http://" in text]


def test_no_other_file_of_the_project_has_an_address_in_plain_http():
    """But for names of XML languages, the registry, and this machine."""
    allowed = re.compile(r"http://(127\.0\.0\.1|localhost|www\.w3\.org|\{|[^a-z])")
    found = []
    for path in sorted([*(ROOT / "dd").rglob("*.py"), *(ROOT / "docs").rglob("*"), *(ROOT / "workflow").rglob("*"), ROOT / "README.md"]):
        if path.is_file() and path.suffix in (".py", ".md", ".yaml", ".smk") and path != ROOT / "dd" / "data" / "registry.py":
            text = path.read_text(encoding="utf-8")
            found += [f"{path.relative_to(ROOT)}: {text[at.start() : at.start() + 60]}" for at in re.finditer("http://[a-z0-9{]", text)
                      if not allowed.match(text, at.start())]  # fmt: skip
    assert not found


def test_bytes_come_in_at_one_place():
    """What fetches anything is dd/data/download.py, which checks it."""
    talk = {"requests", "urllib.request", "urllib3", "http.client", "httpx", "aiohttp", "ftplib", "paramiko", "boto3"}
    users = set()
    for path in (ROOT / "dd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name == one or name.startswith(f"{one}.") for name in names for one in talk):
                users.add(path.relative_to(ROOT).as_posix())
    assert users == {"dd/data/download.py"}


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("https://a.org/x", True), ("http://127.0.0.1:80/x", True), ("http://[::1]/x", True), ("http://a.org/x", False), ("ftp://a.org/x", False),
        ("http://127.0.0.1.a.org/x", False), ("http://127.0.0.1@a.org/x", False), ("file:///etc/passwd", False), ("//a.org/x", False), ("", False),
        ("http://localhost/x", False), ("HTTPS://a.org/x", True), ("http://10.0.0.1/x", False), ("http://0.0.0.0/x", False), ("http://[::1/x", False),
    ],
)  # fmt: skip
def test_encrypted(url, right):
    assert encrypted(url) is right


# -- redirects ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def host(monkeypatch):
    """A server on this machine: `files` by path, and `moved`, path -> where it sends."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        files: dict = {}
        moved: dict = {}
        asked: list = []

        def do_GET(self):
            self.asked.append(self.path)
            if self.path in self.moved:
                self.send_response(302)
                self.send_header("Location", self.moved[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = self.files.get(self.path, b"")
            self.send_response(200 if content else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.url = f"http://127.0.0.1:{server.server_port}"
    Handler.files, Handler.moved, Handler.asked = {}, {}, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield Handler
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def content(tmp_path):
    return zipped(members(write_tones(tmp_path / "tones", {"no": 300.0, "yes": 500.0}, 2)))


def register(monkeypatch, url, checksum=None):
    known = DATASETS["mini_speech_commands"]
    monkeypatch.setitem(DATASETS, known.name, replace(known, downloads=(Download("a.zip", (url,), checksum),)))
    return known.name


@pytest.mark.parametrize(
    "target",
    [
        "http://nowhere.invalid/a.zip",
        "ftp://nowhere.invalid/a.zip",
        "file:///etc/hostname",
        "//nowhere.invalid/a.zip",
        "http://127.0.0.1@nowhere.invalid/",
    ],
)
def test_without_a_checksum_no_redirect_leads_to_plain_http(target, host, monkeypatch, tmp_path):
    host.moved = {"/a.zip": "/b.zip", "/b.zip": target}
    name = register(monkeypatch, f"{host.url}/a.zip")
    with pytest.raises(
        DataError, match=r"(?s)a\.zip: leads to .*nowhere\.invalid.* not https|leads to file:///etc/hostname, which is not https"
    ):
        download(name, tmp_path / "raw")
    assert host.asked == ["/a.zip", "/b.zip"], "asked once, and not again"
    assert not list((tmp_path / "raw").iterdir())


def test_redirects_that_stay_are_followed(host, content, monkeypatch, tmp_path):
    host.moved, host.files = {"/a.zip": "/b.zip"}, {"/b.zip": content}
    (file,) = download(register(monkeypatch, f"{host.url}/a.zip"), tmp_path / "raw")
    assert file.read_bytes() == content


def test_with_a_checksum_a_redirect_may_lead_to_plain_http(host, content, monkeypatch, tmp_path):
    """The address is taken; that it does not exist is another matter."""
    host.moved = {"/a.zip": "http://nowhere.invalid/a.zip"}
    name = register(monkeypatch, f"{host.url}/a.zip", f"md5:{hashlib.md5(content).hexdigest()}")
    with pytest.raises(DataError) as caught:
        download(name, tmp_path / "raw")
    assert "which is not https" not in str(caught.value)


def test_an_address_in_plain_http_needs_a_checksum(monkeypatch, tmp_path):
    name = register(monkeypatch, "http://a.invalid/a.zip")
    with pytest.raises(ConfigError, match=r"registry\.py: mini_speech_commands: a\.zip: urls: value 'http://a\.invalid/a\.zip'; .* https"):
        download(name, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_a_wrong_file_is_not_kept_whatever_the_address(host, content, monkeypatch, tmp_path):
    host.files = {"/a.zip": content + b"x"}
    name = register(monkeypatch, f"{host.url}/a.zip", f"sha256:{hashlib.sha256(content).hexdigest()}")
    with pytest.raises(DataError, match="sent a file whose checksum is sha256:"):
        download(name, tmp_path / "raw")
    assert not list((tmp_path / "raw").iterdir())
