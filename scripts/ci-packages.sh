#!/usr/bin/env bash
# What tests need of the system beside Python, on Debian and Ubuntu, as root; .ci/run and the workflows run it.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
packages=(
  fuse3 git make                   # to mount, and what the tests' repositories are made with
  systemd debootstrap              # checks the unit; a bare root to run the Dockerfile's steps in
  prometheus                       # promtool: the exposition, and the queries of the dashboard
  man-db groff-base zsh fish attr curl # the manual pages, completion, and commands of the documents
)
command -v npm >/dev/null || packages+=(npm) # brings Azurite
if ! command -v chromium >/dev/null && apt-cache show chromium 2>/dev/null | grep -q '^Version: [0-9]*\.[0-9]*\.'; then
  packages+=(chromium) # looks at the documentation site; Ubuntu's is a snap, and its runners have Chrome
fi
apt-get -qq -y --no-install-recommends install "${packages[@]}" >/dev/null
if ! command -v chromium >/dev/null && command -v google-chrome >/dev/null; then
  ln -sf "$(command -v google-chrome)" /usr/local/bin/chromium
fi
