// Compiles tests/data/evm/Token.sol and writes one JSON file a contract: its interface and its bytecode.
"use strict";

const fs = require("fs");
const path = require("path");
const solc = require("solc");

const folder = path.resolve(__dirname, "../../tests/data/evm");
const input = {
  language: "Solidity",
  sources: { "Token.sol": { content: fs.readFileSync(path.join(folder, "Token.sol"), "utf8") } },
  settings: {
    optimizer: { enabled: true, runs: 200 },
    evmVersion: "paris",
    metadata: { bytecodeHash: "none" },
    outputSelection: { "Token.sol": { "*": ["abi", "evm.bytecode.object"] } },
  },
};

const find = (name) => ({ contents: fs.readFileSync(require.resolve(name), "utf8") });
const output = JSON.parse(solc.compile(JSON.stringify(input), { import: find }));
const errors = (output.errors || []).filter((error) => error.severity === "error");
if (errors.length) {
  errors.forEach((error) => console.error(error.formattedMessage));
  process.exit(1);
}
for (const [name, contract] of Object.entries(output.contracts["Token.sol"])) {
  const kept = { abi: contract.abi, bytecode: "0x" + contract.evm.bytecode.object };
  fs.writeFileSync(path.join(folder, `${name}.json`), JSON.stringify(kept, null, 1) + "\n");
}
