// Compiles the contracts and writes one JSON file each, its interface and its bytecode: beside its source, or into the
// folder that is given.
"use strict";

const fs = require("fs");
const path = require("path");
const solc = require("solc");

const project = path.resolve(__dirname, "../..");
const folders = { Token: "src/strongroom/demo/contracts", Payer: "tests/data/evm" };
const fileOf = (name, kind) => path.join(project, folders[name], `${name}.${kind}`);
const names = Object.keys(folders);
const input = {
  language: "Solidity",
  sources: Object.fromEntries(names.map((name) => [`${name}.sol`, { content: fs.readFileSync(fileOf(name, "sol"), "utf8") }])),
  settings: {
    optimizer: { enabled: true, runs: 200 },
    evmVersion: "paris",
    metadata: { bytecodeHash: "none" },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
  },
};

const find = (name) => ({ contents: fs.readFileSync(require.resolve(name), "utf8") });
const output = JSON.parse(solc.compile(JSON.stringify(input), { import: find }));
const errors = (output.errors || []).filter((error) => error.severity === "error");
if (errors.length) {
  errors.forEach((error) => console.error(error.formattedMessage));
  process.exit(1);
}
for (const name of names) {
  const contract = output.contracts[`${name}.sol`][name];
  const kept = { abi: contract.abi, bytecode: "0x" + contract.evm.bytecode.object };
  const file = process.argv[2] ? path.join(process.argv[2], `${name}.json`) : fileOf(name, "json");
  fs.writeFileSync(file, JSON.stringify(kept, null, 1) + "\n");
}
