#!/bin/sh
# Fuzz every target for SECONDS each (default 30), with coverage feedback, on stable Rust:
#   gateway/dataplane/fuzz/run.sh [SECONDS] [TARGET...]
# Starts from the committed corpora; what it finds out goes to out/fuzz/, a crashing input too. Needs a C++ compiler.
set -eu
cd "$(dirname "$0")"
out=$(cd ../../.. && pwd)/out/fuzz
seconds=${1:-30}
[ $# -gt 0 ] && shift
targets=${*:-"eip clb vswitch wire_packet wire_tunnel tables"}

# The flags that cargo-fuzz gives, but for the sanitizer, which stable Rust does not have.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage="$coverage -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
target=${CARGO_BUILD_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
bins=$(for name in $targets; do printf ' --bin fuzz_%s' "$name"; done)
# shellcheck disable=SC2086 # one word for each target
RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 $coverage" \
    cargo build --quiet --locked --release --features libfuzzer $bins --target "$target" --target-dir ../target/fuzz

for name in $targets; do
    mkdir -p "$out/$name"
    echo "fuzz $name: $seconds s"
    ../target/fuzz/"$target"/release/fuzz_"$name" -max_total_time="$seconds" -max_len=8192 -timeout=5 -rss_limit_mb=2048 \
        -print_final_stats=1 -verbosity=0 -artifact_prefix="$out/$name-" "$out/$name" "corpus/$name" 2>&1 |
        tee "$out/$name.log" | grep -E "stat::number_of_executed|^==|panicked|SUMMARY" || true
    ! grep -qE "SUMMARY: libFuzzer|panicked at" "$out/$name.log" || { echo "fuzz $name: see $out/$name.log"; exit 1; }
done
