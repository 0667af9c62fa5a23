# make demo: install, then the whole graph on embedded data. make test: install, then all tests.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"
WORKERS ?= 2
# A worker has a core and takes whole files, so that what a file's tests share is made once; tests/conftest.py says which come first.
PYTEST := OMP_NUM_THREADS=1 pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# What `make pull WHAT=...` brings beside WHAT: it is small, and without it neither Snakemake nor a reader knows what the rest is.
ALWAYS := .snakemake/metadata results/code results/choices results/papers results/report.html results/index.csv

.PHONY: demo test test-fast test-faults lint bench pull push prune clean

demo: $(INSTALLED)
	$(RUN) snakemake --config scale=demo
	@echo "The report: results/report.html"

test: $(INSTALLED)
	$(RUN) $(PYTEST)

test-fast: $(INSTALLED)
	$(RUN) $(PYTEST) -m "not slow and not workflow and not faults"

test-faults: $(INSTALLED)
	$(RUN) OMP_NUM_THREADS=1 pytest -m faults --kills 20

lint: $(INSTALLED)
	$(RUN) ruff check . && $(RUN) mypy

# How fast, beside the textbook path and the machine's limit: benchmarks/README.md. Within 12 minutes on two cores with nothing beside it.
bench: $(INSTALLED)
	@$(RUN) python -m benchmarks

# The results of this commit from a remote (docs/dvc.md): all, or WHAT="results/distilled results/scores ...".
pull: $(INSTALLED)
	@git diff --quiet HEAD -- || { echo "make pull: uncommitted changes, but results belong to a commit: git stash, or git commit"; exit 1; }
	@test -f dvc.lock || { echo "make pull: this commit has no dvc.lock: nobody has recorded its results. To make them: dvc repro"; exit 1; }
	@$(RUN) dvc remote list | grep -q . || { echo "make pull: no remote is set: dvc remote add --local -d NAME URL (docs/dvc.md)"; exit 1; }
	$(RUN) dvc pull $(if $(WHAT),$(WHAT) $(ALWAYS))
	@mkdir -p logs && $(RUN) snakemake -n >logs/pull.log 2>&1; grep -q "Nothing to be done" logs/pull.log || \
	{ cat logs/pull.log; echo "make pull: these results are not those of this commit: the above would run (was dvc.lock committed?)"; exit 1; }
	@echo "Nothing to be done. The report: results/report.html"

push: $(INSTALLED)
	@$(RUN) dvc status --quiet || { $(RUN) dvc status; echo "make push: results and dvc.lock differ: dvc repro"; exit 1; }
	@git ls-files --error-unmatch dvc.lock >/dev/null && git diff --quiet HEAD -- dvc.lock || \
	{ echo "make push: dvc.lock is not committed: git add dvc.lock && git commit"; exit 1; }
	@$(RUN) dvc remote list | grep -q . || { echo "make push: no remote is set: dvc remote add -d NAME URL (docs/dvc.md)"; exit 1; }
	$(RUN) dvc push

# Results that no paper asks for any more: listed, and with YES=1 deleted.
prune: $(INSTALLED)
	$(RUN) python -m dd prune $(if $(YES),--yes)

$(INSTALLED): pyproject.toml requirements.lock
	@echo "installing into .venv" >&2
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable . >&2
	@touch $@

clean:
	rm -rf .venv
