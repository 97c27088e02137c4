#!/usr/bin/env bash
# Interpret the tests of what has unsafe code, and of the parsers, under Miri: rings, the flow table's memory, headers. Needs a
# nightly toolchain with Miri, and says so where there is none. Less than ten minutes.
set -eu
cd "$(dirname "$0")/../gateway/dataplane"
if ! cargo +nightly miri --version >/dev/null 2>&1; then
  echo "miri: not run, it needs: rustup toolchain install nightly --profile minimal --component miri --component rust-src"
  exit 0
fi
export CARGO_TARGET_DIR="$PWD/target/miri" PROPTEST_CASES=8
export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-strict-provenance"
# PACKAGE TEST...: names of tests begin so.
run() {
  echo "miri $1: ${*:2}"
  nice -n 2 timeout 180 cargo +nightly miri test --quiet --locked --package "$1" --lib -- "${@:2}"
}
run tgw-node ring::
PROPTEST_CASES=2 run tgw-device af_xdp::ring
run tgw-forward memory:: flow::steps fast::bindings
PROPTEST_CASES=4 run tgw-wire
