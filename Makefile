# make demo   sets everything up and places a real call
# make test   sets everything up and runs the tests
# make test-thorough   runs those that take long, or need programs such as PostgreSQL and Chromium
# make vectors [VECTORS=DIR]   checks the test vectors, and the third-party data
# make fuzz [SECONDS=600]   fuzzes the TURN server with fresh seeds
# make coverage   fails where a branch of the protocol or its cryptography has no test
# make screenshots   takes the pictures under audits/reports/softphone again
# make bench [PART=core] [ONLY=TEXT] [BENCH=short] [CHECK=1]   measures; CHECK=1 fails over budget
#
# Everything is installed into $(VENV) from requirements.lock and nothing outside it is touched.
# Another Python than the newest one found: make test PYTHON=/path/to/python3.12
# One test after the other, as a debugger needs it: make test WORKERS=0

VENV ?= .venv
PYTHON ?=
PYTEST_ARGS ?=
VECTORS ?=
PART ?=
SECONDS ?= 60
ONLY ?=
BENCH ?=
CHECK ?=
UV ?= uv
# Many tests wait for real time rather than for a core.
WORKERS ?= 3

# What covers every branch of e2ecall/protocol and e2ecall/crypto.
CORE_TESTS = tests/protocol tests/crypto tests/vectors

# A process that finds its modules compiled starts in two thirds of the time.
unexport PYTHONDONTWRITEBYTECODE

BIN = $(VENV)/bin
LOCKED = $(VENV)/.locked
INSTALLED = $(VENV)/.installed
RIVALS = $(VENV)/bench
APT_LINE = sudo apt-get install -y git make python3-venv

# Exit code of a candidate: 0 usable, 3 another version, 4 no venv or ensurepip (as in Debian's
# bare python3). Any other code: not a Python at all, such as a version manager's empty shim.
PROBE = import importlib.util, sys; \
	fits = (3, 11) <= sys.version_info[:2] <= (3, 14); \
	whole = all(map(importlib.util.find_spec, ("venv", "ensurepip"))); \
	sys.exit(3 if not fits else 0 if whole else 4)

.PHONY: help setup demo test test-thorough vectors fuzz coverage screenshots bench lint lock clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/e2ecall demo --output build/demo

PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

test: $(INSTALLED)
	$(PYTEST) -m "not thorough" $(PYTEST_ARGS)

test-thorough: $(INSTALLED)
	$(PYTEST) -m thorough $(PYTEST_ARGS)

vectors: $(INSTALLED)
	@$(BIN)/python -m tests.vectors $(VECTORS)

fuzz: $(INSTALLED)
	$(BIN)/python -m tests.fuzz.turn --seconds $(SECONDS)

coverage: $(INSTALLED)
	@mkdir -p build
	$(BIN)/coverage run -m pytest $(PYTEST_ARGS) $(CORE_TESTS)
	@$(BIN)/coverage report

screenshots: $(INSTALLED)
	$(BIN)/python -m audits.screenshots audits/reports/softphone

# What is compared with stands apart, where the product cannot import it; without it the rest runs.
bench: $(INSTALLED)
	@test -e $(RIVALS)/.locked -a ! requirements-bench.lock -nt $(RIVALS)/.locked || \
		{ rm -rf $(RIVALS); $(BIN)/python -m pip install --quiet --disable-pip-version-check \
			--require-hashes --no-deps --target $(RIVALS) --requirement requirements-bench.lock \
			&& touch $(RIVALS)/.locked; } || \
		echo "e2ecall: the libraries to compare with could not be installed" >&2
	@PYTHONPATH=$(RIVALS) $(BIN)/python -m tests.bench $(addprefix --part ,$(PART)) \
		$(if $(ONLY),--only "$(ONLY)") $(if $(filter short,$(BENCH)),--short) $(if $(CHECK),--check)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

clean:
	rm -rf build dist e2ecall.egg-info $(VENV)

$(INSTALLED): $(LOCKED) pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .
	@touch $@

$(LOCKED): requirements.lock $(BIN)/python
	@echo "Installing the packages of requirements.lock into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes --requirement requirements.lock
	@touch $@

$(BIN)/python:
	@found=; incomplete=; seen=; \
	for candidate in $(or $(PYTHON),python3.14 python3.13 python3.12 python3.11 python3); do \
		command -v "$$candidate" >/dev/null 2>&1 || continue; \
		"$$candidate" -c '$(PROBE)' >/dev/null 2>&1; \
		case $$? in \
			0) found=$$candidate; break ;; \
			3) seen="$$seen $$candidate ($$("$$candidate" -V 2>&1))" ;; \
			4) incomplete=$$candidate ;; \
		esac; \
	done; \
	if [ -n "$$found" ]; then \
		"$$found" -m venv "$(VENV)"; \
	elif [ -n "$$incomplete" ]; then \
		echo "e2ecall: error: $$incomplete lacks the modules venv and ensurepip." >&2; \
		echo "hint: on Debian or Ubuntu: $(APT_LINE)" >&2; \
		exit 1; \
	else \
		echo "e2ecall: error: no Python 3.11 to 3.14 in $(or $(PYTHON),PATH).$${seen:+ Seen:$$seen.}" >&2; \
		echo "hint: on Debian 12 or Ubuntu 24.04 and later: $(APT_LINE);" \
			"elsewhere name one: make test PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	fi

# What requirements.lock has already.
BENCH_SHARED = cffi cryptography pycparser typing-extensions

# The locks are universal: hashes of every published file, for all platforms. Only wheels are
# taken, because building a package from source would fetch build tools that nothing pins.
lock:
	@command -v $(UV) >/dev/null 2>&1 || { \
		echo "e2ecall: error: only this target needs uv, and it is not there: $(UV)" >&2; exit 1; }
	python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' \
	| $(UV) pip compile pyproject.toml - --extra test --extra postgres \
		--extra audio --extra softphone --universal --python-version 3.11 \
		--fork-strategy fewest --generate-hashes --only-binary :all: --emit-build-options \
		--no-config --no-header --quiet --output-file requirements.lock
	$(UV) pip compile tests/bench/requirements.in --constraint requirements.lock --universal \
		--python-version 3.11 --fork-strategy fewest --generate-hashes --only-binary :all: \
		--emit-build-options $(foreach shared,$(BENCH_SHARED),--no-emit-package $(shared)) \
		--no-config --no-header --quiet --output-file requirements-bench.lock
