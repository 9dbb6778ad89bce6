#!/usr/bin/env bash
# Makes .venv with the package (editable) and everything that demo, test and lint need; `make setup` runs it.
# Safe to run again at any time: .venv/.setup says "unfinished" from the first step to the last, so what an
# interrupted run left is thrown away, and a finished one costs half a second until pyproject.toml changes.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/system.sh
. scripts/system.sh
# shellcheck source=scripts/torch.sh
. scripts/torch.sh

venv=$PWD/.venv
state=$venv/.setup

usable_python() { # an interpreter that starts, is one of those supported, and can make environments
  "$1" -c 'import sys, ensurepip, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() { # prints the interpreter; PYTHON decides alone when it is set
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    if usable_python "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

choose_python() {
  find_python && return
  if [ -z "${PYTHON:-}" ]; then
    install_packages python3 python3-venv >&2 || true
    find_python && return
  fi
  echo "setup: no Python 3.10 to 3.13 that can make environments${PYTHON:+ in PYTHON=$PYTHON}." \
    "Install python3 and python3-venv, or name one: make setup PYTHON=/path/to/python3.12" >&2
  return 1
}

healthy() { # the environment starts and has pip: otherwise half-made, or its Python was removed
  [ "$(cat "$state" 2>/dev/null)" != unfinished ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1
}

fingerprint() { # what a finished environment was made from; the path, since scripts in it name it
  { echo "$venv"; "$venv/bin/python" --version; cat pyproject.toml scripts/torch.sh; } | cksum
}

make_environment() {
  local python
  python=$(choose_python)
  echo "setup: .venv with $("$python" --version)"
  rm -rf "$venv"
  mkdir "$venv"
  echo unfinished >"$state"
  "$python" -m venv "$venv"
}

moved() { # a copied or renamed checkout: every script in .venv/bin still starts the old place's Python
  [ "$("$venv/bin/python" -c 'import sys; print(sys.prefix)')" != "$venv" ] ||
    ! head -n 1 "$venv/bin/pip" 2>/dev/null | grep -qF "$venv/"
}

install() {
  local pip=("$venv/bin/python" -m pip --disable-pip-version-check)
  echo unfinished >"$state"
  "${pip[@]}" install -qq 'pip>=23'  # older ones have no --report, which tells one torch build from another
  install_torch "$venv/bin/python"
  echo "setup: the package and its tools; the first time takes a few minutes"
  "${pip[@]}" install -qq --editable '.[dev]'
  "$venv/bin/dagfs" --version
  fingerprint >"$state"
}

if command -v flock >/dev/null; then # two terminals may type make at once
  exec 9<pyproject.toml
  flock 9
fi
install_tools
if ! healthy || moved; then make_environment; fi
if [ "$(fingerprint)" != "$(cat "$state" 2>/dev/null)" ] || ! "$venv/bin/dagfs" --version >/dev/null 2>&1; then
  install
fi
"$venv/bin/python" -m compileall -q dagfs # where PYTHONDONTWRITEBYTECODE is set, each start would compile all: 0.17 s
