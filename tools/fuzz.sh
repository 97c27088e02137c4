#!/usr/bin/env bash
# Fuzz every parser and pipeline of the packet path for FUZZ_SECONDS each (default 30). Crashes land in out/fuzz.
set -eu
cd "$(dirname "$0")/.."
if ! command -v g++ >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "fuzz: installing g++ (libFuzzer is built from source)"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends g++; } >/dev/null
  else
    echo "fuzz: needs g++, which is not here" >&2
    exit 1
  fi
fi
exec gateway/dataplane/fuzz/run.sh "${FUZZ_SECONDS:-30}" "$@"
