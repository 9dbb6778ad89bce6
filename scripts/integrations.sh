#!/usr/bin/env bash
# Adds to .venv the libraries that docs/integrations.md reads a mount with; `make integration` runs it, after setup.
# A finished run costs nothing until what it installs changes.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/torch.sh
. scripts/torch.sh

AZURITE=azurite@3.37.0 # Azure's object store on loopback
venv=$PWD/.venv
state=$venv/.integrations
wanted=$({ cat "$venv/.setup" pyproject.toml scripts/torch.sh scripts/integrations.sh; } | cksum)
[ "$wanted" != "$(cat "$state" 2>/dev/null)" ] || exit 0

pip=("$venv/bin/python" -m pip --disable-pip-version-check)
echo "integrations: TensorFlow, torchvision and others, about 2 GB; the first time takes some minutes"
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
echo "$TORCH" >"$constraints" # nothing here may bring another torch
"${pip[@]}" install -qq --constraint "$constraints" --editable '.[dev,integrations]'
# Without its dependencies, which name a build of torch: beside a CPU build it is used without its operators
"${pip[@]}" install -qq --no-deps "$TORCHVISION"
command -v npm >/dev/null || { echo "integrations: npm is missing, which brings Azurite (apt install npm)" >&2; exit 1; }
npm install --silent --no-audit --no-fund --global --prefix "$venv" "$AZURITE"
"${pip[@]}" check || echo "integrations: some packages disagree, see above; the tests will tell whether it matters"
echo "$wanted" >"$state"
