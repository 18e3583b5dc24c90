# make demo     sets everything up, meta-trains, evaluates on held-out ice, records the video
# make test     sets everything up, runs the tests
# make check    ruff and pyright
# make readme   runs the README's snippets, with small budgets
# make mutants  puts plausible bugs into a copy: the tests must catch each
# make fuzz     ten minutes of what strangers' files and slips of the keyboard do: FUZZ_OPTIONS='--seconds 120'
# make storm    kills trainings at random moments, 200 times: STORM_OPTIONS='--kills 20'; on a Ray cluster its workers,
#               nodes and head, 30 times: STORM_OPTIONS='--cluster' (it takes metarl-suite[ray])
# make site     the documentation, as pages in build/site; it needs no network
# make guard    fails where a ratio of processor time to a peer fell under 70 % of the recorded one, twice
# make wheel    dist/metarl_suite-*.whl
#
# All it needs is Python 3.11, 3.12 or 3.13; PYTHON=/path/to/python3 names one. Everything is installed into .venv.

SHELL := /bin/sh
BIN := .venv/bin
# The environment is complete. The file is written last, so a set-up that was cut short is taken up again.
READY := .venv/ready

# Several threads for the small tensors of one test cost more than they give; the cores are shared out among workers.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test check readme mutants fuzz storm guard site wheel setup clean

demo: setup
	@# Without OpenGL there is everything but the video; the one line says what to install.
	@$(BIN)/python -m metarl.envs.rendering --install || true
	$(BIN)/python scripts/demo.py

test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses=8 $(PYTEST_OPTIONS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --warnings

readme: setup
	$(BIN)/python tests/readme.py README.md
	$(BIN)/python tests/readme.py docs/extending.md
	$(BIN)/python tests/readme.py docs/stable-baselines3.md

mutants: setup
	$(BIN)/python scripts/mutants.py $(MUTANTS_OPTIONS)

fuzz: setup
	$(BIN)/python scripts/fuzz.py $(FUZZ_OPTIONS)

storm: setup
	$(BIN)/python scripts/storm.py $(STORM_OPTIONS)

site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

guard: setup
	$(BIN)/python scripts/benchmark.py --subjects processor --rounds 7 --seconds 1 --guard docs/results/guard.json \
		$(GUARD_OPTIONS)

wheel: setup
	@# build/ remembers files that are gone from the sources, and would put them in.
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

setup: $(READY)

# A python that is only found may not run (pyenv's shims) or may lack venv (Debian's python3), so each is tried.
$(READY): pyproject.toml constraints.txt
	@suitable='import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'; \
	if ! $(BIN)/python -c "$$suitable" 2>/dev/null; then \
		for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python); do \
			if "$$python" -c "$$suitable" >/dev/null 2>&1; then found=$$python; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "No Python 3.11, 3.12 or 3.13 with venv runs here: install one (on Debian or Ubuntu:" \
				"apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3 ..." >&2; \
			exit 1; \
		fi; \
		echo "Setting up .venv with $$($$found --version); this downloads about a gigabyte ..."; \
		"$$found" -m venv --clear .venv; \
	fi
	@rm -f $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --disable-pip-version-check $(if $(CI),--quiet) --constraint constraints.txt \
		--no-build-isolation --editable ".[dev]"
	@touch $(READY)

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache
