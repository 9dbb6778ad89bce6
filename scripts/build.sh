#!/usr/bin/env bash
# Builds sdist and wheel (from the sdist, so that nothing it lacks goes unnoticed) and runs the wheel from an
# environment that has nothing but its dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
rm -rf dist build
"$root/.venv/bin/python" -m build --outdir dist >/dev/null
"$root/.venv/bin/python" -m venv "$root/build/empty"
wheels=("$root"/dist/*.whl)
cd "$root/build" # outside of the checkout: its dagfs/ must not be what is imported
./empty/bin/python -m pip install -qq --disable-pip-version-check "${wheels[0]}"
./empty/bin/dagfs --help >/dev/null
./empty/bin/dagfs --version
./empty/bin/mount.dagfs -f owner/name /data -o ro,branch=main
echo "built, and run from an empty environment: $(cd "$root/dist" && echo *)"
