#!/usr/bin/env bash
# Runs the Dockerfile's steps in bare Debian roots and mounts with the result; needs root and debootstrap, no engine.
# In a mount namespace of its own: nothing stays mounted, however this ends.
set -euo pipefail
cd "$(dirname "$0")/.."
exec unshare --mount --propagation private .venv/bin/python scripts/try_dockerfile.py
