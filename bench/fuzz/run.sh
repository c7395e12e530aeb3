#!/usr/bin/env bash
# Throws inputs at each target, guided by the code they reach (libFuzzer, on stable Rust), and keeps those that reach
# new code in bench/fuzz/corpus.
#
#   bench/fuzz/run.sh [--seconds 60] [--jobs 1] [TARGET...]
#
# Prints a row for each target as it ends, as docs/reliability.md has them; "cpu" is in seconds, of the search alone.
# An input that breaks a target is written to bench/fuzz/broken/, and the command to run it again is printed.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=60
jobs=1
targets=()
while [ $# -gt 0 ]; do
    case "$1" in
        --seconds) seconds=$2; shift 2 ;;
        --jobs) jobs=$2; shift 2 ;;
        -*) echo "usage: bench/fuzz/run.sh [--seconds N] [--jobs N] [TARGET...]" >&2; exit 2 ;;
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

# One target: the search, what is kept of it, and its row. Leaves a file "failed" if anything broke.
search() {
    local target=$1 own=$found/$1
    mkdir -p "$own/new"
    "$corpus" unpack "$target" "$own/kept"
    # A little more than the largest frame that a stranger may send (4 KiB), so that an input can exceed it.
    if ! { TIMEFORMAT=%U; time RINGLINE_FUZZ_TARGET=$target "$program" "$own/new" "$own/kept" \
        -max_total_time="$seconds" -max_len=5120 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$broken/$target-" >"$own/log" 2>&1; } 2>"$own/cpu"; then
        touch "$found/failed"
        tail -30 "$own/log"
        echo "again: RINGLINE_FUZZ_TARGET=$target $program $broken/$target-..."
    fi
    # What is kept stays: inputs that were made by hand reach values that no coverage tells apart. Of the new ones those
    # stay that reach something that nothing else does, the smallest first.
    if RINGLINE_FUZZ_TARGET=$target "$program" -merge=1 "$own/kept" "$own/new" >"$own/merge" 2>&1; then
        "$corpus" pack "$target" "$own/kept"
    else
        touch "$found/failed"
        tail -30 "$own/merge"
    fi
    local reached inputs rate
    reached=$(grep -o "cov: [0-9]* ft: [0-9]*" "$own/log" | tail -1 | sed 's/cov: \(.*\) ft: \(.*\)/\1 | \2/') || true
    inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$own/log")
    rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$own/log")
    echo "| \`$target\` | ${inputs:-?} | $(cat "$own/cpu") | ${rate:-?} | ${reached:-? | ?} | $(find "$own/kept" -type f | wc -l) |"
    rm -rf "$own"
}

echo "| target | inputs | cpu | a second | edges | features | kept |"
echo "| --- | --- | --- | --- | --- | --- | --- |"
export -f search
export found corpus program broken seconds
printf '%s\n' "${targets[@]}" | xargs -P "$jobs" -I{} bash -euo pipefail -c 'search "$1"' search {} || touch "$found/failed"
[ ! -e "$found/failed" ]
