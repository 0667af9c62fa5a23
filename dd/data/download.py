"""Downloads: every address in turn, continued where they broke off, checked, and put in place only when whole."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from dd.data.noted import note, note_of, noted, verified, whole
from dd.data.registry import Download, spec
from dd.errors import ConfigError, DataError
from dd.progress import Progress

TIMEOUT = (15, 60)  # seconds to connect, and to wait for the next bytes
TRIES = 5  # of one address, as long as each brings something; each continues where the one before broke off
CHUNK = 1 << 18
CHECKSUM = "md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}"


class _Encrypted(requests.Session):
    """A session that follows no redirect to where the bytes could be changed on their way."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return where an answer sends us, if it does.

        Raises:
            _Failed: to an address that is not https.
        """
        target = super().get_redirect_target(resp)
        if target is not None and not encrypted(absolute := requests.compat.urljoin(resp.url, target)):
            raise _Failed(f"leads to {absolute}, which is not https, and no checksum says which bytes are right", again=False)
        return target


def encrypted(url: str) -> bool:
    """Return whether nobody on the way can change what an address sends: it is https, or this very machine."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" or (parts.scheme == "http" and ipaddress.ip_address(parts.hostname or "").is_loopback)
    except ValueError:  # a name, or no address at all
        return False


class _Failed(Exception):
    """One try of one address went wrong; `again` says whether the same address may do better."""

    def __init__(self, reason: str, again: bool) -> None:
        super().__init__(reason)
        self.again = again


def download(name: str, out_dir: Path) -> list[Path]:
    """Fetch the files of a registered dataset into `out_dir`; files that are there and whole are left alone.

    A file grows as `{file}.part`, which a later call continues, and takes its name after its checksum was found right. Of a file
    without a published checksum, which must be a .zip, the first one that is whole gives the checksum: see `dd.data.noted`.

    Raises:
        ConfigError: the dataset is unknown, has nothing to download, or has a file whose bytes nothing pins. DataError: no address
            gave the right file, or the file that is there is not the one of the first download.
    """
    files = spec(name).downloads
    if not files:
        raise ConfigError(f"dataset {name}: has no files to download ({spec(name).obtain})")
    for item in files:  # some addresses are plain http: only the checksum says that the bytes are the right ones
        if item.checksum is None and not item.file.endswith(".zip"):
            raise ConfigError(
                f"dd/data/registry.py: {name}: {item.file}: checksum: is absent; allowed for a .zip only, which checks itself"
            )
        if item.checksum is None and (plain := next((url for url in item.urls if not encrypted(url)), None)):
            raise ConfigError(f"dd/data/registry.py: {name}: {item.file}: urls: value {plain!r}; without a checksum it must be https")
        if item.checksum is not None and not re.fullmatch(CHECKSUM, item.checksum):
            raise ConfigError(
                f"dd/data/registry.py: {name}: {item.file}: checksum: value {item.checksum!r}; allowed: md5: and 32, or sha256: and 64 "
                "hex digits"
            )
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        return [_fetch(name, item, out_dir / item.file) for item in files]
    except OSError as error:
        raise DataError(f"{error.filename or out_dir}: cannot be written: {error.strerror or error}") from None


def checksum_of(path: Path, like: str) -> str:
    """Return the checksum of a file's bytes, "md5:..." or "sha256:...", of the kind that `like` is."""
    kind = like.partition(":")[0]
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False))
    return f"{kind}:{digest.hexdigest()}"


def _fetch(name: str, item: Download, path: Path) -> Path:
    if item.checksum is None and path.exists() and (note_of(path).exists() or whole(path)):
        found = verified(path)
        if noted(path) is None:  # somebody put it here
            note(path, found)
        return path
    right = item.checksum or noted(path)
    if path.exists():
        if right and (found := checksum_of(path, right)) == right:
            return path
        _say(f"{path}: is there, but {f'its checksum is {found}, not {right}' if right else 'not a whole .zip'}: downloading it again")
    part = path.with_name(path.name + ".part")
    if part.exists() and _wrong(part, right) is None:  # stopped just before the end
        return _place(part, path, item)
    reasons = []
    for url in item.urls:
        for left in reversed(range(TRIES)):
            try:
                resumed = _get(url, part, path, pinned=item.checksum is not None)
                _check(part, right, resumed)
            except _Failed as failure:
                if failure.again and left:
                    _say(f"{url}: {failure}; trying again")
                    continue
                reasons.append(f"\n  {url}: {failure}")
                break
            return _place(part, path, item)
    if item.checksum is None and right:
        reasons.append(f"\n(that is the checksum of the first download; if its authors changed the file since, delete {note_of(path)})")
    raise DataError(
        f"dataset {name}: {item.file} cannot be downloaded:{''.join(reasons)}\n"
        f"Run again later (what has arrived is kept), put the file ({right or 'no checksum is known'}) at {path} yourself, or give {name} "
        "another source in config.yaml (docs/add-a-dataset.md)"
    )


def _place(part: Path, path: Path, item: Download) -> Path:
    """Give a checked file its name; note its checksum before, if there is no other."""
    if item.checksum is None and noted(path) is None:
        note(path, checksum_of(part, "sha256:"))
    part.replace(path)
    return path


def _wrong(part: Path, right: str | None) -> str | None:
    """Return what is wrong with a file, or None; without a checksum only that it is no whole archive can be."""
    if right is None:
        return None if whole(part) else "that is no whole .zip"
    return None if (found := checksum_of(part, right)) == right else f"whose checksum is {found}, not {right}"


def _check(part: Path, right: str | None, resumed: bool) -> None:
    if wrong := _wrong(part, right):
        part.unlink()  # continuing wrong bytes would never become right
        if resumed:  # perhaps the wrong ones are those that were here before
            raise _Failed(f"what was here and what was added make a file {wrong}; starting over", again=True)
        raise _Failed(f"sent a file {wrong}", again=False)


def _get(url: str, part: Path, path: Path, *, pinned: bool) -> bool:
    """Append what is missing to `part`; return whether there was something before. pinned: the registry has the file's checksum."""
    start = have = part.stat().st_size if part.exists() else 0
    # Bytes as they are stored: the checksum is that of the file, not of what a content encoding would unpack it to.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with (
            requests.Session() if pinned else _Encrypted() as session,
            session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response,
        ):
            if response.status_code == 416 and have:
                part.unlink()  # as long as the file or longer, and yet not it
                raise _Failed("has no bytes after those that are here already; starting over", again=True)
            if response.status_code not in (200, 206):
                raise _Failed(f"answers {response.status_code} {response.reason}", again=False)
            have, total = _extent(response, have)
            _say(f"{url} -> {path}" + (f", continued at {have / 1e6:.1f} MB" if have else ""))
            _receive(response, part, have, total, path.name)
    except (requests.RequestException, HTTPError) as error:
        raise _Failed(_cause(error), again=part.exists() and part.stat().st_size > start) from None
    if total is not None and part.stat().st_size < total:
        raise _Failed(f"broke off after {part.stat().st_size} of {total} bytes", again=part.stat().st_size > start)
    return have > 0


def _extent(response: requests.Response, have: int) -> tuple[int, int | None]:
    """Return (where the answer begins, length of the whole file if the server says so)."""
    if response.status_code == 206:
        stated = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not stated or int(stated[1]) != have:
            raise _Failed(f"answers with another range than asked for ({response.headers.get('Content-Range')!r})", again=False)
        return have, int(stated[2]) if stated[2] != "*" else None
    length = response.headers.get("Content-Length")
    return 0, int(length) if length and length.isdigit() else None


def _receive(response: requests.Response, part: Path, have: int, total: int | None, label: str) -> None:
    megabytes = (total or have) // 1_000_000
    with open(part, "r+b" if have else "wb") as file, Progress(f"{label} (MB)", megabytes, have // 1_000_000) as progress:
        file.seek(have)
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            file.write(chunk)
            if total:
                progress.update(file.tell() // 1_000_000)


def _cause(error: Exception) -> str:
    """Return the innermost reason, without the layers of wrapping that libraries put around it."""
    text = str(error)
    inner = re.search(r"Failed to resolve '[^']*'|\[Errno -?\d+\] [^')]*|timed out|IncompleteRead\([^)]*\)|certificate verify failed", text)
    return inner[0] if inner else text or type(error).__name__


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
