#!/usr/bin/env bash
# Compile the contracts of the tests, tests/data/evm/Token.sol, into the JSON files next to it (needs Node.js and npm).
#
#   scripts/compile-token.sh            write the files
#   scripts/compile-token.sh --check    fail if the files are not what the source gives
set -euo pipefail
cd "$(dirname "$0")/.."

npm ci --ignore-scripts --no-audit --no-fund --prefix scripts/token >/dev/null
if [ "${1:-}" != "--check" ]; then
  exec node scripts/token/compile.js
fi

kept=$(mktemp -d)
trap 'rm -rf "$kept"' EXIT
cp tests/data/evm/*.json "$kept"
node scripts/token/compile.js
for file in "$kept"/*.json; do
  cmp "$file" "tests/data/evm/$(basename "$file")"
done
