#!/bin/sh
# Prints a Python that gre-bridge runs on (3.11 to 3.13).
for python in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python; do
  if "$python" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
    command -v "$python"
    exit 0
  fi
done
echo "gre-bridge needs Python 3.11, 3.12 or 3.13 (set PYTHON to one)" >&2
exit 1
