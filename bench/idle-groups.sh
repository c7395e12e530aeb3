#!/usr/bin/env bash
# What three storage nodes cost while nothing happens: seconds of CPU of each, and bytes between them.
#
#   bench/idle-groups.sh [SHARDS] [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/env
shards=${1:-256}
seconds=${2:-15}
program=$CARGO_TARGET_DIR/debug/ringline-storage
[ -x "$program" ] || { echo "build it first: cargo build --locked --workspace" >&2; exit 1; }

folder=$(mktemp -d)
nodes=()
end() {
    kill "${nodes[@]}" 2>/dev/null || true
    wait
    rm -rf "$folder"
}
trap end EXIT
cd "$folder"

key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "${key[@]}" -keyout ca.key -out ca.pem -subj /CN=idle-groups -days 2 2>/dev/null
openssl req "${key[@]}" -keyout key.pem -out node.csr -subj /CN=ringline-storage 2>/dev/null
printf 'subjectAltName=DNS:ringline-storage\nextendedKeyUsage=serverAuth,clientAuth\n' >extensions
openssl x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile extensions 2>/dev/null

for id in 1 2 3; do
    {
        printf 'node_id = %s\nshard_count = %s\nreplicas = 3\ncores = 1\n' "$id" "$shards"
        printf 'listen = "127.0.0.1:1700%s"\ndata_dir = "%s/node-%s"\n' "$id" "$folder" "$id"
        printf '[tls]\nca = "ca.pem"\ncert = "cert.pem"\nkey = "key.pem"\n'
        for other in 1 2 3; do
            printf '[[nodes]]\nid = %s\naddress = "127.0.0.1:1700%s"\nzone = "%s"\n' "$other" "$other" "$other"
        done
    } >"$id.toml"
    "$program" --config "$id.toml" --new-fleet >"$id.log" 2>&1 &
    nodes+=($!)
done

ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
wire() { awk '/lo:/ { print $2 }' /proc/net/dev; }
# Elections, and leaders that go where they should.
sleep 10
before=()
for node in "${nodes[@]}"; do before+=("$(ticks "$node")"); done
wire_before=$(wire)
sleep "$seconds"
wire_after=$(wire)
for place in 0 1 2; do
    after=$(ticks "${nodes[$place]}")
    awk -v node="$((place + 1))" -v ticks="$((after - before[place]))" -v hz="$(getconf CLK_TCK)" -v seconds="$seconds" \
        'BEGIN { printf "node %d: %.2f %% of a core\n", node, 100 * ticks / hz / seconds }'
done
awk -v bytes="$((wire_after - wire_before))" -v seconds="$seconds" \
    'BEGIN { printf "loopback, all three: %.0f bytes/s\n", bytes / seconds }'
