#!/usr/bin/env bash
# Starts a gateway with embedded storage on free ports and drives the web chat against it in headless Chromium.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${RINGLINE_BIN_DIR:-${CARGO_TARGET_DIR:-$HOME/.cache/ringline/target}/debug}
folder=$(mktemp -d "${TMPDIR:-/tmp}/ringline-web-XXXXXX")
mkfifo "$folder/stdout"
"$bin/ringline-gateway" --data-dir "$folder/data" --listen 127.0.0.1:0 --listen-plain 127.0.0.1:0 \
    --metrics 127.0.0.1:0 >"$folder/stdout" 2>"$folder/log" &
gateway=$!
trap 'kill $gateway 2>/dev/null || true; wait $gateway 2>/dev/null || true; rm -rf "$folder"' EXIT

page=
exec 3<"$folder/stdout"
while read -r -t 60 line <&3; do
    page=$(sed -n 's#.*ready:.*\(http://[^ ]*\)/ .*native.*#\1#p' <<<"$line")
    [ -n "$page" ] && break
done
if [ -z "$page" ]; then
    echo "the gateway did not get ready:" >&2
    tail -n 20 "$folder/log" >&2
    exit 1
fi
cat <&3 >/dev/null &
BASE_URL=$page SCREENSHOTS=${SCREENSHOTS:-$folder/screenshots} node e2e/chat.mjs
