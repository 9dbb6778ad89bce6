#!/usr/bin/env bash
# Runs benchmarks/suite.py, after what it compares with was brought; `make bench` runs it.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/system.sh
. scripts/system.sh

missing=()
for tool in curl rclone fio; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
[ -e /usr/share/doc/libfuse3-dev/examples/passthrough_ll.c ] || missing+=(gcc pkg-config libfuse3-dev)
[ ${#missing[@]} = 0 ] || install_packages "${missing[@]}" || true # the suite says what it leaves out
exec .venv/bin/python benchmarks/suite.py "$@"
