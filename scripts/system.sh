# shellcheck shell=bash
# What setup takes from the system's packages; sourced.

install_packages() { # installs through apt where that needs no password; says in one line what to do otherwise
  local as_root=()
  if ! command -v apt-get >/dev/null; then
    echo "setup: install with your package manager: $*"
    return 1
  fi
  if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
      echo "setup: missing; to install: sudo apt-get install $*"
      return 1
    fi
    as_root=(sudo -n)
  fi
  echo "setup: apt-get install $*"
  "${as_root[@]}" apt-get -qq update
  # --no-remove: a convenience must never take something off the machine
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends --no-remove install "$@" \
    >/dev/null
}

link_mtab() { # a bare root has none; fusermount3 cannot unmount without: PATH
  [ -e "$1" ] || [ ! -w "$(dirname "$1")" ] || ln -sf ../proc/self/mounts "$1"
}

install_tools() { # fuse3: mounts of ordinary users, and libfuse; libfuse2: fusepy's; the others: what demo and tests run
  local missing=() pair
  for pair in fusermount3:fuse3 git:git rsync:rsync getfattr:attr; do
    command -v "${pair%%:*}" >/dev/null || [ -x "/usr/sbin/${pair%%:*}" ] || missing+=("${pair##*:}")
  done
  /sbin/ldconfig -p 2>/dev/null | grep 'libfuse\.so\.2' >/dev/null || missing+=(libfuse2)
  [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}" || true
  link_mtab /etc/mtab
}
