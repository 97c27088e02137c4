#!/bin/sh
# Fuzz every target for SECONDS each (default 30), with coverage feedback, on stable Rust:
#   gateway/dataplane/fuzz/run.sh [SECONDS] [TARGET...]
# Starts from the committed corpora; what it finds out goes to out/fuzz/, a crashing input too. Needs a C++ compiler.
# With the address sanitizer where the toolchain brings its runtime; SANITIZER=none leaves it out.
set -eu
cd "$(dirname "$0")"
out=$(cd ../../.. && pwd)/out/fuzz
seconds=${1:-30}
[ $# -gt 0 ] && shift
targets=${*:-"eip clb vswitch ways wire_packet wire_tunnel quic flow tables pcap tap"}

# The flags that cargo-fuzz gives.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage="$coverage -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
target=${CARGO_BUILD_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
build=../target/fuzz
# Stable toolchains bring the runtime too, but take the flag as an unstable one.
if [ "${SANITIZER:-address}" = none ]; then
    echo "fuzz: without a sanitizer, as asked"
elif ls "$(rustc --print sysroot)/lib/rustlib/$target/lib/"librustc*_rt.asan.a >/dev/null 2>&1; then
    coverage="$coverage -Zsanitizer=address"
    build=../target/fuzz-address
    export RUSTC_BOOTSTRAP=1
else
    echo "fuzz: without the address sanitizer, whose runtime this toolchain does not bring"
fi
bins=$(for name in $targets; do printf ' --bin fuzz_%s' "$name"; done)
# shellcheck disable=SC2086 # one word for each target
RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 $coverage" \
    cargo build --quiet --locked --release --features libfuzzer $bins --target "$target" --target-dir "$build"

failed=
for name in $targets; do
    mkdir -p "$out/$name"
    echo "fuzz $name: $seconds s"
    status=0
    "$build/$target"/release/fuzz_"$name" -max_total_time="$seconds" -max_len=8192 -timeout=5 -rss_limit_mb=2048 \
        -print_final_stats=1 -verbosity=0 -artifact_prefix="$out/$name-" "$out/$name" "corpus/$name" \
        >"$out/$name.log" 2>&1 || status=$?
    grep -aE "stat::number_of_executed|^==|panicked|SUMMARY" "$out/$name.log" || true
    [ "$status" = 0 ] || { echo "fuzz $name: see $out/$name.log"; failed="$failed $name"; }
done
[ -z "$failed" ] || { echo "fuzz: failed:$failed"; exit 1; }
