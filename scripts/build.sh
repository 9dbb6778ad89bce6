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
# --only-binary: nobody who installs dagfs needs a compiler
./empty/bin/python -m pip install -qq --disable-pip-version-check --only-binary :all: "${wheels[0]}"
./empty/bin/dagfs --help >/dev/null
./empty/bin/dagfs --version
if command -v man >/dev/null; then
  man -M "$(./empty/bin/python -c 'import sys; print(sys.prefix)')/share/man" dagfs-mount | grep -q MOUNTPOINT
fi
./empty/bin/mount.dagfs -f owner/name /data -o ro,branch=main
# Nor on other machines, whose tags pip takes by name: ARM, and where dagshub:// is read without FUSE
for platform in "manylinux2014_aarch64 manylinux_2_17_aarch64 manylinux_2_28_aarch64" macosx_11_0_arm64 win_amd64; do
  read -ra tags <<<"$platform"
  for version in 3.10 3.13; do
    ./empty/bin/python -m pip install -qq --disable-pip-version-check --dry-run --target "$root/build/elsewhere" \
      --only-binary :all: --python-version "$version" "${tags[@]/#/--platform=}" "${wheels[0]}"
  done
done
echo "built, and run from an empty environment: $(cd "$root/dist" && echo *)"
