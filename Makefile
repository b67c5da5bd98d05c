# The commands of this project. Each installs what it needs first.
#   make up    UP_ARGS="--data DIR"       run everything with the example platform
#   make test  TEST_ARGS="tests/stack"    run the tests
# PYTHON=/path/to/python3.11 chooses the Python that the virtual environment is made with.
BIN := .venv/bin

.PHONY: up test lint types imports bench-recovery clean install install-dev

up: install
	@exec $(BIN)/soulfra up --demo $(UP_ARGS)

test: install-dev
	@$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart=0 --durations=15 $(TEST_ARGS)

lint: install-dev
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .

types: install-dev
	@$(BIN)/python -m mypy

imports: install-dev
	@$(BIN)/lint-imports

bench-recovery: install-dev
	@$(BIN)/python -m benchmarks.recovery $(BENCH_ARGS)

install:
	@scripts/install.sh

install-dev:
	@scripts/install.sh --dev

# The data of a run (soulfra-data) stays: it is nobody's to throw away but yours.
clean:
	rm -rf .venv dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis clients/node/node_modules
