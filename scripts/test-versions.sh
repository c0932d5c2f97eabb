#!/bin/sh
# Run the unit tests and a few integration tests with other versions than the locked ones, in a venv of its own.
# usage: test-versions.sh lowest-direct|highest   (needs uv; the last lines name the versions that were installed)
set -eu
cd "$(dirname "$0")/.."
resolution=$1
venv=.venv-$resolution
uv pip compile pyproject.toml --extra dev --extra heic --extra uvloop --extra tracing --group test --group build --quiet \
  --resolution "$resolution" --python-version 3.11 --no-header -o "$venv.txt"
uv venv --quiet --clear --python "$(sh scripts/python.sh)" "$venv"
uv pip sync --quiet --python "$venv/bin/python" "$venv.txt"
uv pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation -e .
# A warning of another version is no error here: the locked versions are the ones that must be silent.
"$venv/bin/python" -m pytest -q -o filterwarnings=default -p no:cacheprovider -W ignore::DeprecationWarning tests/unit \
  tests/integration/test_send.py tests/integration/test_wakeups.py tests/integration/test_relay_content.py \
  tests/api/test_flow.py tests/api/test_socket_flow.py
