"""Makers of small data sets stand in tests/data and tests/generators: they are used here too."""

import sys
from pathlib import Path

for _folder in ("data", "generators"):
    if (_path := str(Path(__file__).resolve().parents[1] / _folder)) not in sys.path:
        sys.path.append(_path)
