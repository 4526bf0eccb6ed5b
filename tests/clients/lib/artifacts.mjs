// Contracts by name: our own (compiled by compile.mjs) and those that npm packages bring compiled.
import { readFileSync } from "node:fs";
import { contracts } from "./compile.mjs";

const read = (path) => JSON.parse(readFileSync(new URL(path, import.meta.url)));
const paths = read("artifacts.json");
const plans = read("market.json");

/** { abi, bytecode } of a contract; `addresses` gives the libraries it links. */
export function artifact(name, addresses = {}) {
  const own = contracts()[name];
  if (own) return own;
  const found = read(`../node_modules/${paths[name]}`);
  let code = found.bytecode?.object ?? found.bytecode ?? found.evm.bytecode.object;
  if (!code.startsWith("0x")) code = `0x${code}`;
  for (const libraries of Object.values(found.linkReferences ?? {})) {
    for (const [library, places] of Object.entries(libraries)) {
      const address = addresses[library];
      if (!address) throw new Error(`${name} needs the library ${library}`);
      for (const { start, length } of places) {
        const from = 2 + start * 2;
        code = code.slice(0, from) + address.slice(2).toLowerCase() + code.slice(from + length * 2);
      }
    }
  }
  return { abi: found.abi, bytecode: code };
}

/**
 * Deploys a lending market by the steps of market.json: "aave" or "own".
 * The client gives `deploy(artifact, args)` (answers an address),
 * `call({ address, abi }, name, args)` and `read({ address, abi }, name, args)`.
 * Answers { name: { address, abi } }.
 */
export async function deployMarket(plan, client, admin) {
  const made = {};
  const addresses = { admin };
  const filled = (value) => {
    if (Array.isArray(value)) return value.map(filled);
    if (typeof value === "string" && value.startsWith("$")) return addresses[value.slice(1)];
    return value;
  };
  const keep = (name, address, { abi }) => {
    made[name] = { address, abi };
    addresses[name] = address;
  };
  for (const [verb, name, ...rest] of plans[plan]) {
    if (verb === "deploy") {
      const code = artifact(rest[0], addresses);
      keep(name, await client.deploy(code, filled(rest[1])), code);
    } else if (verb === "call") {
      await client.call(made[name], rest[0], filled(rest[1]));
    } else {
      const address = await client.read(made[rest[0]], rest[1], filled(rest[2]));
      keep(name, address, { abi: artifact(rest[3], addresses).abi });
    }
  }
  return made;
}
