# shellcheck shell=bash
# Which build of torch setup installs; sourced.
#
# The package index offers Linux a CUDA build of several gigabytes, of which a machine without a GPU can use nothing.
# So: pip's own choice where that is a CPU build already (pip's configuration offers one, or the platform has no other)
# or where there is a GPU; else uv, which knows where the CPU builds are; else, when that place cannot be reached,
# pip's choice after all. A torch that is installed already is left alone.

TORCH=torch==2.13.0
# shellcheck disable=SC2034  # integrations.sh installs it
TORCHVISION=torchvision==0.28.0 # the one that matches

pip_would_install_cuda() { # asks pip for its plan: PYTHON
  "$1" -m pip install -qq --disable-pip-version-check --dry-run --no-deps --ignore-installed --report - "$TORCH" |
    "$1" -c 'import json, sys
metadata = json.load(sys.stdin)["install"][0]["metadata"]
needs = metadata.get("requires_dist", [])
cuda = any(need.startswith(("nvidia-", "cuda-")) and "extra ==" not in need for need in needs)
sys.exit(not (cuda and "+cpu" not in metadata["version"] and sys.platform == "linux"))'
}

install_torch() { # PYTHON
  "$1" -c 'import torch' 2>/dev/null && return
  echo "setup: $TORCH"
  if ! command -v nvidia-smi >/dev/null && pip_would_install_cuda "$1"; then
    "$1" -m pip install -qq --disable-pip-version-check uv
    "$1" -m uv pip install -qq --python "$1" --torch-backend cpu "$TORCH" && return
    echo "setup: the CPU build of torch cannot be reached; taking the CUDA build, several gigabytes"
  fi
  "$1" -m pip install -qq --disable-pip-version-check "$TORCH"
}
