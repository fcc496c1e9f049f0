# make demo: install and run the main job.  make test: install and run the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: env demo test test-slow test-cloud check warm format clean

env: .venv/.stamp

.venv/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

demo: env
	$(BIN)/cube-denoise demo demo

# One thread in each process of the tests: more would wait for each other.
test: env
	$(MAKE) -j 2 check warm
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n logical --maxprocesses 4 --dist loadfile
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbmake --nbmake-timeout=300 -n 2 notebooks

test-slow: env
	$(BIN)/python -m pytest -m slow

# Needs PostgreSQL 15 or later with PostGIS (Debian: postgresql-15-postgis-3).
test-cloud: env
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test-cloud]'
	$(BIN)/python -m pytest -m slow tests/test_cloud_job.py

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What numba compiles is kept: processes that begin at once would each compile it.
warm: env
	OMP_NUM_THREADS=1 $(BIN)/python -m cube_denoise.warm

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv demo build dist
