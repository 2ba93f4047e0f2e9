#!/usr/bin/env bash
# Compile the contracts of the practice chains (Token.sol, the demo's, and Payer.sol, the tests') into the JSON files
# next to them (needs Node.js and npm).
#
#   scripts/compile-token.sh            write the files
#   scripts/compile-token.sh --check    fail if the files are not what the sources give
set -euo pipefail
cd "$(dirname "$0")/.."

npm ci --ignore-scripts --no-audit --no-fund --prefix scripts/token >/dev/null
if [ "${1:-}" != "--check" ]; then
  exec node scripts/token/compile.js
fi

files=(src/strongroom/demo/contracts/Token.json tests/data/evm/Payer.json)
kept=$(mktemp -d)
trap 'rm -rf "$kept"' EXIT
cp "${files[@]}" "$kept"
node scripts/token/compile.js
for file in "${files[@]}"; do
  cmp "$kept/$(basename "$file")" "$file"
done
