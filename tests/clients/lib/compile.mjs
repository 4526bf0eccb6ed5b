// Compiles contracts/ with npm's solc into .build/contracts.json: { Name: { abi, bytecode } }.
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const root = new URL("../", import.meta.url);
const target = new URL(".build/contracts.json", root);
const require = createRequire(import.meta.url);

/** The compiled contracts; compiles only when a source or the compiler has changed. */
export function contracts() {
  const sources = {};
  for (const file of readdirSync(new URL("contracts/", root)).sort()) {
    sources[file] = { content: readFileSync(new URL(`contracts/${file}`, root), "utf8") };
  }
  const compiler = require("solc/package.json").version;
  const key = createHash("sha256")
    .update(JSON.stringify([compiler, sources]))
    .digest("hex");
  if (existsSync(target)) {
    const kept = JSON.parse(readFileSync(target));
    if (kept.key === key) return kept.contracts;
  }
  const input = {
    language: "Solidity",
    sources,
    settings: {
      optimizer: { enabled: true, runs: 200 },
      evmVersion: "osaka",
      outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
    },
  };
  const find = (path) => ({ contents: readFileSync(require.resolve(path), "utf8") });
  const output = JSON.parse(require("solc").compile(JSON.stringify(input), { import: find }));
  const errors = (output.errors ?? []).filter((e) => e.severity === "error");
  if (errors.length > 0) throw new Error(errors.map((e) => e.formattedMessage).join("\n"));
  const result = {};
  for (const file of Object.keys(sources)) {
    for (const [name, made] of Object.entries(output.contracts[file])) {
      if (made.evm.bytecode.object) {
        result[name] = { abi: made.abi, bytecode: `0x${made.evm.bytecode.object}` };
      }
    }
  }
  mkdirSync(new URL(".build/", root), { recursive: true });
  const fresh = new URL(`.build/contracts.${process.pid}.json`, root);
  writeFileSync(fresh, JSON.stringify({ key, contracts: result }));
  renameSync(fresh, target);
  return result;
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  console.log(Object.keys(contracts()).join(" "));
