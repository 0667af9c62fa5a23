"""Finds, in the source, every function of the project that takes apart a binary format: what could be made to run code, or to unpack too much.

Those that read text (JSON, CSV, Markdown) are not listed: nothing in these forms can name code, and the static test sees to the rest.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from project import ROOT

DECODERS = {
    "safe_open", "load_file", "loadmat", "whosmat", "load_digits", "fetch_openml", "gzip.open", "gzip.decompress", "gzip.GzipFile",
    "tarfile.open", "tarfile.TarFile", "zipfile.ZipFile", "Image.open", "wavfile.read", "wave.open", "pq.read_table", "pq.read_schema",
    "pq.ParquetFile", "np.load", "np.fromfile", "np.memmap", "numpy.load", "torch.load", "imread", "shutil.unpack_archive",
    "_UniqueKeyLoader", "yaml.load", "yaml.safe_load", "bz2.open", "lzma.open", "zlib.decompress", "_Bounded",
}  # fmt: skip


def sites(folder: Path = ROOT / "dd") -> set[tuple[str, str]]:
    """Return (file, function) of every call of a decoder in `folder`; the file relative to the project."""
    return {
        (path.relative_to(ROOT).as_posix(), name)
        for path in sorted(folder.rglob("*.py"))
        for name in _owners(ast.parse(path.read_text(encoding="utf-8")), "<module>")
    }


def _owners(node: ast.AST, owner: str) -> Iterator[str]:
    """Yield the innermost function around each call of a decoder."""
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else owner
        if isinstance(child, ast.Call) and _called(child.func) in DECODERS:
            yield owner
        yield from _owners(child, inside)


def _called(func: ast.expr) -> str:
    """Return "np.load", or "safe_open"."""
    if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name):
        return f"{func.value.id}.{func.attr}"
    return func.id if isinstance(func, ast.Name) else ""
