// Compiles src/*.sol into artifacts/<Name>.json.
//
//   node build.mjs           writes the artefacts
//   node build.mjs --check   recompiles and exits 1 if a written artefact differs
//
// The same sources give the same bytes: the compiler is pinned in package.json, its settings are
// below, keys are sorted, and the metadata hash (which would change with a comment) is left out.

import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import solc from "solc";

const root = dirname(fileURLToPath(import.meta.url));
const sourceDir = join(root, "src");
const artifactDir = join(root, "artifacts");

// What is deployed, and the file it is in. Bases, interfaces and libraries have no artefact.
const contracts = {
  Lending: "src/Lending.sol",
  OrderBook: "src/OrderBook.sol",
  Pair: "src/Exchange.sol",
  PairFactory: "src/Exchange.sol",
  PriceOracle: "src/PriceOracle.sol",
  Router: "src/Exchange.sol",
  Token: "src/Token.sol",
};

const settings = {
  evmVersion: "osaka",
  metadata: { bytecodeHash: "none" },
  optimizer: { enabled: true, runs: 200 },
  viaIR: false,
};

function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
}

function compile() {
  const names = readdirSync(sourceDir).filter((name) => name.endsWith(".sol")).sort();
  const sources = Object.fromEntries(
    names.map((name) => [`src/${name}`, { content: readFileSync(join(sourceDir, name), "utf8") }]),
  );
  const outputSelection = { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } };
  const input = { language: "Solidity", sources, settings: { ...settings, outputSelection } };
  const output = JSON.parse(solc.compile(JSON.stringify(input)));
  const findings = output.errors ?? [];
  for (const finding of findings) console.error(finding.formattedMessage);
  if (findings.length > 0) process.exit(1); // A warning is a finding too.
  return output.contracts;
}

function artifacts() {
  const compiled = compile();
  return Object.entries(contracts).map(([contractName, file]) => {
    const { abi, evm } = compiled[file][contractName];
    const artifact = {
      abi,
      bytecode: `0x${evm.bytecode.object}`,
      contractName,
      deployedBytecode: `0x${evm.deployedBytecode.object}`,
      settings,
      solc: solc.version(),
    };
    return [`${contractName}.json`, `${JSON.stringify(sorted(artifact), null, 2)}\n`];
  });
}

function written(name) {
  try {
    return readFileSync(join(artifactDir, name), "utf8");
  } catch {
    return null;
  }
}

function strays(expected) {
  try {
    return readdirSync(artifactDir).filter((name) => !expected.includes(name)).sort();
  } catch {
    return [];
  }
}

// One line for each key that differs, with enough to see what kind of difference it is.
function differences(have, want) {
  if (have === null) return ["is missing"];
  let old;
  try {
    old = JSON.parse(have);
  } catch {
    return ["is not JSON"];
  }
  const fresh = JSON.parse(want);
  const show = (value) => {
    if (value === undefined) return "absent";
    if (typeof value === "string" && value.startsWith("0x")) return `${value.length / 2 - 1} bytes`;
    return Array.isArray(value) ? `${value.length} entries` : JSON.stringify(value);
  };
  const keys = [...new Set([...Object.keys(old), ...Object.keys(fresh)])].sort();
  const lines = keys
    .filter((key) => JSON.stringify(old[key]) !== JSON.stringify(fresh[key]))
    .map((key) => `${key}: written ${show(old[key])}, compiled ${show(fresh[key])}`);
  return lines.length > 0 ? lines : ["same content, different formatting"];
}

function check(built) {
  let failed = false;
  for (const [name, text] of built) {
    const have = written(name);
    if (have === text) continue;
    failed = true;
    for (const line of differences(have, text)) console.error(`artifacts/${name}: ${line}`);
  }
  for (const name of strays(built.map(([name]) => name))) {
    failed = true;
    console.error(`artifacts/${name}: no contract of this name`);
  }
  if (failed) {
    console.error("artefacts differ from the sources; run: node build.mjs");
    process.exit(1);
  }
  console.log(`${built.length} artefacts match the sources`);
}

function write(built) {
  mkdirSync(artifactDir, { recursive: true });
  for (const name of strays(built.map(([name]) => name))) rmSync(join(artifactDir, name), { recursive: true });
  for (const [name, text] of built) writeFileSync(join(artifactDir, name), text);
  console.log(`${built.length} artefacts written`);
}

const [mode, ...rest] = process.argv.slice(2);
if (rest.length > 0 || (mode !== undefined && mode !== "--check")) {
  console.error("usage: node build.mjs [--check]");
  process.exit(2);
}
(mode === "--check" ? check : write)(artifacts());
