# make demo: install, then the whole graph on embedded data. make test: install, then all tests.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"
WORKERS ?= 2
# A worker has a core and takes whole files, so that what a file's tests share is made once; tests/conftest.py says which come first.
PYTEST := OMP_NUM_THREADS=1 pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-fast lint clean

demo: $(INSTALLED)
	$(RUN) snakemake --config scale=demo
	@echo "The report: results/report.html"

test: $(INSTALLED)
	$(RUN) $(PYTEST)

test-fast: $(INSTALLED)
	$(RUN) $(PYTEST) -m "not slow and not workflow"

lint: $(INSTALLED)
	$(RUN) ruff check . && $(RUN) mypy

$(INSTALLED): pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

clean:
	rm -rf .venv
