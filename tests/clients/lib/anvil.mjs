// Runs a command with RPC_URL and WS_URL set to a fresh anvil that has Multicall3, then stops it.
// A suite that fails here as well as on the node is wrong itself.
import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { once } from "node:events";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { createPublicClient, createTestClient, http } from "viem";
import { multicall3Bytecode } from "../node_modules/viem/_esm/constants/contracts.js";
import { multicall3 } from "./check.mjs";

const require = createRequire(import.meta.url);
const arch = process.arch === "x64" ? "amd64" : process.arch;
const home = dirname(require.resolve(`@foundry-rs/anvil-${process.platform}-${arch}/package.json`));

const free = createServer().listen(0, "127.0.0.1");
await once(free, "listening");
const { port } = free.address();
free.close();
await once(free, "close");

const options = (process.env.ANVIL_OPTIONS ?? "").split(" ").filter(Boolean);
const anvil = spawn(
  join(home, "bin", "anvil"),
  ["--port", `${port}`, "--gas-limit", "300000000", "--silent", "--hardfork", "osaka", ...options],
  { stdio: "inherit" },
);
let child;
process.on("exit", () => {
  child?.kill("SIGTERM");
  anvil.kill("SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

const url = `http://127.0.0.1:${port}`;
const transport = http(url, { retryCount: 50, retryDelay: 50 });
const node = createPublicClient({ transport });
await node.getChainId();
const { data } = await node.call({ data: multicall3Bytecode });
await createTestClient({ mode: "anvil", transport }).setCode({
  address: multicall3,
  bytecode: data,
});

const [command, ...args] = process.argv.slice(2);
const env = { ...process.env, RPC_URL: url, WS_URL: `ws://127.0.0.1:${port}` };
child = spawn(command, args, { stdio: "inherit", env });
const [code] = await once(child, "exit");
process.exit(code ?? 1);
