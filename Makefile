# Everything a checkout can do. `make help` lists it; CONTRIBUTING.md says when to do what.
#
# The targets are thin: tools/env.sh makes an environment with the project built in it, and the rest
# is one command run by that environment's Python. Nothing is ever built inside the source tree.

PYTHON ?= python3
ARGS   ?=
VENV   := .venv
ENVS   := .envs
PY     := $(VENV)/bin/python

# Builds made to find faults keep their assertions and line numbers.
CHECKED_CFLAGS := -O1 -g -UNDEBUG -fno-omit-frame-pointer
SANITIZE       := -fsanitize=address,undefined -fno-sanitize-recover=undefined

# What wants to look into the tests, or names the file, is run by one process. A -n among the
# arguments wins.
IN_ONE := -s --capture=no --pdb --trace -pno:xdist no:xdist tests/%

# How much `make oom` does: full or quick. Which `make leaks` runs: warm-ups:counted runs. On which
# builds of CPython `make newer` does: release, debug or all.
OOM    ?= full
LEAKS  ?= 3:4
BUILDS ?= all

# Each process of pytest would compile all the tests anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test nightly lint format werror asan leaks oom syscalls portable coverage walk \
        scaling bench versions newer map dist clean venv

help: ## list the targets
	@echo 'usage: make TARGET [PYTHON=python3] [ARGS="arguments for pytest or the rig"]'
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: ## the countdown: three coroutines, five seconds
	@sh tools/env.sh $(PYTHON) $(VENV)
	@$(PY) -m sleeploop

test: venv ## the whole test suite, on all processors
	$(PY) -m pytest $(if $(filter $(IN_ONE),$(ARGS)),,-n logical --dist loadgroup) $(ARGS)

nightly: ## the same, with ten times as many random programs
	@SLEEPLOOP_SEEDS=0:200 $(MAKE) test

lint: venv ## ruff, mypy --strict, and the stubs against the built module
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m mypy.stubtest --mypy-config-file pyproject.toml --allowlist tools/stubtest.allow \
	    --ignore-unused-allowlist sleeploop

format: venv ## let ruff rewrite what `make lint` would complain about
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff format .

werror: ## compile with every compiler found; a warning is an error
	@sh tools/werror.sh $(PYTHON)

asan: ## the suite under AddressSanitizer and UndefinedBehaviorSanitizer
	@CFLAGS="$(CHECKED_CFLAGS) $(SANITIZE)" LDFLAGS="$(SANITIZE)" \
		sh tools/env.sh $(PYTHON) $(ENVS)/asan test
	sh tests/rigs/asan.sh $(ENVS)/asan/bin/python -m pytest --capture=sys $(ARGS)

leaks: ## every test again and again: references, memory blocks, descriptors
	@debug=$$($(PYTHON) tools/pythons.py debug) && \
	CFLAGS="$(CHECKED_CFLAGS)" sh tools/env.sh "$${debug:-$(PYTHON)}" $(ENVS)/leaks test
	$(ENVS)/leaks/bin/python -m pytest -p tests.rigs.leaks --leaks $(LEAKS) $(ARGS)

oom: venv ## every n-th allocation fails, once and for ever (OOM=quick: a sample)
	$(PY) -m tests.rigs.oom --$(OOM) $(ARGS)

syscalls: venv ## system calls are interrupted or fail, in both builds (needs strace)
	$(PY) -m tests.rigs.syscalls $(ARGS)
	@SLEEPLOOP_PORTABLE_IDLE=1 CFLAGS="$(CHECKED_CFLAGS)" \
		sh tools/env.sh $(PYTHON) $(ENVS)/portable test
	$(ENVS)/portable/bin/python -m tests.rigs.syscalls $(ARGS)

portable: ## the suite with the portable way of waiting
	@SLEEPLOOP_PORTABLE_IDLE=1 CFLAGS="$(CHECKED_CFLAGS)" \
		sh tools/env.sh $(PYTHON) $(ENVS)/portable test
	$(ENVS)/portable/bin/python -m pytest $(ARGS)

coverage: ## which branches of the C code the suite takes
	@CFLAGS="-O0 -g -UNDEBUG --coverage" LDFLAGS="--coverage" \
		sh tools/env.sh $(PYTHON) $(ENVS)/coverage test
	@find $(ENVS)/coverage/build -name '*.gcda' -exec rm {} +
	@$(ENVS)/coverage/bin/python -W ignore -m pip install -qq --disable-pip-version-check gcovr
	$(ENVS)/coverage/bin/python -m pytest $(ARGS); status=$$?; \
	$(ENVS)/coverage/bin/python -m gcovr --root . --filter _sleeploop.c --filter csrc/ \
		--gcov-object-directory $(ENVS)/coverage/build $(ENVS)/coverage/build \
		--txt-metric branch --txt - --html-details $(ENVS)/coverage/index.html && exit $$status

walk: ## how many calls, through how many files, it takes to get a thing done (ARGS=-v: which)
	@CC=gcc CFLAGS="-O0 -g -finstrument-functions \
		-finstrument-functions-exclude-file-list=/include/python" \
		sh tools/env.sh $(PYTHON) $(ENVS)/walk
	@gcc -O1 -shared -fPIC tools/walk.c -o $(ENVS)/walk/recorder.so
	@LD_PRELOAD=$(ENVS)/walk/recorder.so $(ENVS)/walk/bin/python tools/walk.py $(ARGS)

scaling: venv ## do eight times as many take eight times as long?
	$(PY) -m benchmarks.scaling

bench: ## the benchmarks, with their peers beside us
	@sh tools/env.sh $(PYTHON) $(VENV) bench
	$(PY) -m benchmarks $(ARGS)

versions: ## the suite on every further CPython that this machine has
	@$(PYTHON) tools/pythons.py versions $(ARGS)

newer: venv ## the suite on CPython 3.14 and 3.15, of Debian's unstable (BUILDS: release, debug)
	@sh tools/newer.sh $(PY) $(BUILDS) $(ARGS)

map: ## each file, and what it is for (ARGS=csrc: of one folder)
	@$(PYTHON) tools/map.py $(ARGS)

dist: ## the sdist and the wheel, each installed in a clean environment and tried
	@sh tools/dist.sh $(PYTHON)

clean: ## remove whatever can be made again
	rm -rf build dist $(VENV) $(ENVS) *.egg-info _sleeploop*.so
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv:
	@sh tools/env.sh $(PYTHON) $(VENV) test
