#!/bin/sh
# Upgrades a fleet of an earlier commit's programs to this checkout's, process by process and back, under load
# (bench/tests/upgrade.rs): bench/upgrade.sh [REVISION], by default the commit before this one. As root.
#
# The earlier commit is unpacked into the cache folder and built into the same target folder, so that dependencies are
# not compiled again; its two programs are copied out before this checkout's are put there again.
set -eu
cd "$(dirname "$0")/.."

fail() { echo "upgrade: $*" >&2; exit 1; }

revision=$(git rev-parse --quiet --verify "${1:-HEAD^}^{commit}") ||
    fail "there is no commit ${1:-HEAD^} here; in a shallow clone: git fetch --deepen 1"
[ -n "${ROCKSDB_LIB_DIR:-}" ] || ROCKSDB_LIB_DIR=$(.ci/rocksdb)
export ROCKSDB_LIB_DIR ROCKSDB_STATIC=1
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/ringline/target}"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ringline/previous
tree=$cache/tree
programs=$cache/$revision

# What two checkouts build has the same names, and cargo goes by time alone: it would take the earlier commit's libraries
# for this one's, here and in whatever shares the target folder.
forget() { cargo clean --locked --quiet -p wire-protocol -p tuning -p storage-node -p gateway; }

if [ ! -x "$programs/ringline-gateway" ]; then
    trap forget EXIT
    rm -rf "$cache"
    mkdir -p "$tree" "$programs.new"
    # Files get the time of now, not the commit's: cargo would take an older one for built.
    git archive "$revision" | tar -x -m -C "$tree"
    started=$(date +%s)
    (cd "$tree" && cargo build --locked -p gateway -p storage-node)
    echo "upgrade: built $revision in $(($(date +%s) - started)) s"
    cp "$CARGO_TARGET_DIR/debug/ringline-gateway" "$CARGO_TARGET_DIR/debug/ringline-storage" "$programs.new"
    mv "$programs.new" "$programs"
    forget
    trap - EXIT
fi
cargo build --locked -p gateway -p storage-node -p bench --bins
RINGLINE_PREVIOUS_BIN_DIR="$programs" cargo test --locked -p bench --test upgrade -- --nocapture
