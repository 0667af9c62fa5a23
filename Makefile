# make demo: install, then the whole graph on embedded data. make test: install, then all tests.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"

.PHONY: demo test test-fast lint clean

demo: $(INSTALLED)
	$(RUN) snakemake --config scale=demo
	@echo "The report: results/report.html"

test: $(INSTALLED)
	$(RUN) pytest

test-fast: $(INSTALLED)
	$(RUN) pytest -m "not slow and not workflow"

lint: $(INSTALLED)
	$(RUN) ruff check . && $(RUN) mypy

$(INSTALLED): pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

clean:
	rm -rf .venv
