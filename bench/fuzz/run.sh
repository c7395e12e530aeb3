#!/usr/bin/env bash
# Throws inputs at each target, guided by the code they reach (libFuzzer, on stable Rust), and keeps those that reach
# new code in bench/fuzz/corpus.
#
#   bench/fuzz/run.sh [--seconds 60] [TARGET...]
#
# An input that breaks a target is written to bench/fuzz/broken/, and the command to run it again is printed.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=60
targets=()
while [ $# -gt 0 ]; do
    case "$1" in
        --seconds) seconds=$2; shift 2 ;;
        -*) echo "usage: bench/fuzz/run.sh [--seconds N] [TARGET...]" >&2; exit 2 ;;
        *) targets+=("$1"); shift ;;
    esac
done
ROCKSDB_LIB_DIR=$(.ci/rocksdb)
export ROCKSDB_LIB_DIR ROCKSDB_STATIC=1
ordinary=${CARGO_TARGET_DIR:-$HOME/.cache/ringline/target}
CARGO_TARGET_DIR=$ordinary cargo build --locked -p ringline-fuzz --bin ringline-fuzz-corpus
corpus=$ordinary/debug/ringline-fuzz-corpus

# Instrumented code is another build of everything. With a target named, build scripts and macros are built without.
export CARGO_TARGET_DIR=${CARGO_FUZZ_TARGET_DIR:-$HOME/.cache/ringline/target-fuzz}
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks" \
    cargo build --locked --release --target "$host" -p ringline-fuzz --bin ringline-fuzz --features libfuzzer
program=$CARGO_TARGET_DIR/$host/release/ringline-fuzz
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <("$corpus" names)

broken=bench/fuzz/broken
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
mkdir -p "$broken"
failed=0
printf '%-16s %12s %9s %8s %8s %8s\n' target inputs per_second edges features kept
for target in "${targets[@]}"; do
    kept=$found/$target-kept
    log=$found/log
    mkdir -p "$found/$target" "$found/merged"
    "$corpus" unpack "$target" "$kept"
    if ! RINGLINE_FUZZ_TARGET=$target "$program" "$found/$target" "$kept" -max_total_time="$seconds" \
        -max_len=4096 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$broken/$target-" \
        >"$log" 2>&1; then
        failed=1
        tail -30 "$log"
        echo "again: RINGLINE_FUZZ_TARGET=$target $program $broken/$target-..."
    fi
    # Only what reaches something that nothing else does is kept, the smallest first.
    if RINGLINE_FUZZ_TARGET=$target "$program" -merge=1 "$found/merged" "$kept" "$found/$target" >"$found/merge" 2>&1; then
        "$corpus" pack "$target" "$found/merged"
    else
        failed=1
        tail -30 "$found/merge"
    fi
    last=$(grep -o 'cov: [0-9]* ft: [0-9]*' "$log" | tail -1 | tr -dc '0-9 ')
    inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
    # shellcheck disable=SC2086
    printf '%-16s %12s %9s %8s %8s %8s\n' "$target" "${inputs:-?}" "${rate:-?}" ${last:-? ?} "$(find "$found/merged" -type f | wc -l)"
    rm -rf "$kept" "$found/merged" "${found:?}/$target"
done
exit $failed
