// viem against a node. Each run uses fresh accounts, so it can be repeated on the same chain.
import { run } from "./lib/check.mjs";
import { prepare } from "./viem/setup.mjs";
import "./viem/node.mjs";
import "./viem/contracts.mjs";
import "./viem/proofs.mjs";

await run("viem", prepare);
