# make demo   the whole stage on the Iris data        make test        lint, types, layers, all tests
# make bench  the benchmarks                          make test-heavy  the long tests
PYTHON ?= python3
PY := .venv/bin/python
CORE := $(wildcard gmm_dask/mixture/core/src/*)
# Two processes take the test files in turn: half of the time is spent on waiting for servers.
TWO := -n 2 --dist loadfile
# The long tests of servers and lost workers wait more than they compute: a third process takes the others.
THREE := -n 3 --dist loadfile
PIP := $(PY) -m pip --disable-pip-version-check

.PHONY: demo test test-heavy bench lint lock wheel clean

demo: .venv/installed
	@$(PY) -m flows.cluster config/iris.yaml

test: .venv/installed-dev lint
	$(PY) -m pytest $(TWO) -m "not heavy"

test-heavy: .venv/installed-dev
	$(PY) -m pytest $(THREE) -m heavy --durations=15

bench: .venv/installed-dev
	$(PY) -m benchmarks

lint: .venv/installed-dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -c "from importlinter.cli import lint_imports_command as c; c()"

# A wheel for each platform, from this one: the core is compiled for all of them by zig.
wheel: .venv/installed
	@for target in linux-x86_64 linux-aarch64 musl-x86_64 musl-aarch64 macos-x86_64 macos-aarch64 windows-x86_64; do \
		echo "$$target ..."; \
		GMM_DASK_TARGET=$$target $(PIP) wheel -q --no-deps --no-build-isolation --no-index -w dist . || exit 1; \
	done; ls -l dist

# Hashed requirements for every supported Python; needs uv on the path.
lock:
	echo "pip>=25" | uv pip compile -q - --universal --python-version 3.11 \
		--generate-hashes --custom-compile-command "make lock" -o requirements-pip.lock
	uv pip compile -q pyproject.toml --extra flows --extra s3 --extra build --universal --python-version 3.11 \
		--generate-hashes --custom-compile-command "make lock" -o requirements.lock
	uv pip compile -q pyproject.toml --extra flows --extra s3 --extra build --extra dev --universal --python-version 3.11 -c requirements.lock \
		--generate-hashes --custom-compile-command "make lock" -o requirements-dev.lock

clean:
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
