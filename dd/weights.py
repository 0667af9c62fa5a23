"""Files of weights that a user got and converted, as config.yaml names them: what is checked before one is opened."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dd.errors import ConfigError, DataError

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class WeightsOf:
    """What a file of weights is for, in words. key: of config.yaml, as `teachers`; kind: one of them; holds: what to get; docs: how."""

    key: str
    kind: str
    name: str
    holds: str
    docs: str

    def checked(self, source: Path | None, sha256: str | None) -> tuple[Path, str]:
        """Return the file and its sha256, after checking all that can be said without opening it.

        Args:
            source: None where config.yaml names none. sha256: that it must have, as 64 hex digits; None accepts any.

        Raises:
            ConfigError: no file, one that is not there or would have to be unpickled, or a malformed sha256.
            DataError: it cannot be read, or has another sha256.
        """
        from dd.artifacts import sha256_file

        if source is None:
            raise ConfigError(
                f"the {self.kind} {self.name} is not on this machine. Get {self.holds}; convert it to {SUFFIX} as {self.docs} shows; "
                f"and set in config.yaml  {self.key}: {{{self.name}: {{path: FILE}}}}  (sha256: ... beside path pins it)"
            )
        path, where = Path(source), f"{self.key}: {self.name}"
        if path.suffix.lower() != SUFFIX:
            raise ConfigError(
                f"{where}: path: value '{path}'; allowed: a {SUFFIX} file, which {self.docs} shows how to make of {self.holds} "
                f"(what would have to be unpickled is never opened here, since it can run any code)"
            )
        if not path.is_file():
            raise ConfigError(f"{where}: path: value '{path}': no such file. It is to hold {self.holds}; see {self.docs}")
        try:
            found = sha256_file(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ConfigError(f"{where}: sha256: value {sha256!r}; allowed: 64 hex digits, such as {found} (that of {path})")
        if sha256 is not None and sha256 != found:
            raise DataError(f"{path}: sha256 is {found}, {self.key}.{self.name}.sha256 asks for {sha256}: another file, or a damaged one")
        return path, found
