#!/usr/bin/env bash
# Compile the contracts of the practice chains (Token.sol, the demo's, and Payer.sol, the tests') into the JSON files
# next to them. Ends with 3 where the compiler cannot be had: it needs Node.js and npm.
#
#   scripts/compile-token.sh            write the files
#   scripts/compile-token.sh --check    fail if the files are not what the sources give; nothing of them is written
set -euo pipefail
cd "$(dirname "$0")/.."

cannot() {
  echo "compile-token: no compiler: $*" >&2
  exit 3
}

for program in node npm; do
  command -v "$program" >/dev/null || cannot "$program is not on this machine"
done
# One short retry: npm's own would have whoever is offline wait for minutes.
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error --prefer-offline --prefix scripts/token \
  --fetch-retries=1 --fetch-retry-mintimeout=2000 --fetch-timeout=60000 >/dev/null || cannot "npm could not install it"
if [ "${1:-}" != "--check" ]; then
  exec node scripts/token/compile.js
fi

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
node scripts/token/compile.js "$made"
for file in src/strongroom/demo/contracts/Token.json tests/data/evm/Payer.json; do
  cmp "$made/$(basename "$file")" "$file"
done
