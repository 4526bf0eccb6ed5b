import { createRequire } from "node:module";
import { defineConfig } from "hardhat/config";
import hardhatIgnitionViem from "@nomicfoundation/hardhat-ignition-viem";
import hardhatViem from "@nomicfoundation/hardhat-viem";

const require = createRequire(import.meta.url);
const url = process.env.RPC_URL ?? "http://127.0.0.1:8545";
const mnemonic = "test test test test test test test test test test test junk";

export default defineConfig({
  plugins: [hardhatViem, hardhatIgnitionViem],
  solidity: {
    version: "0.8.37",
    // The compiler of npm's solc: nothing is downloaded.
    path: require.resolve("solc/soljson.js"),
    settings: { optimizer: { enabled: true, runs: 200 }, evmVersion: "osaka" },
  },
  paths: {
    sources: "contracts",
    artifacts: ".build/hardhat/artifacts",
    cache: ".build/hardhat/cache",
    ignition: ".build/hardhat/ignition",
  },
  networks: {
    running: {
      type: "http",
      chainType: "l1",
      url,
      accounts: { mnemonic, initialIndex: 4, count: 3 },
    },
    unlocked: { type: "http", chainType: "l1", url },
    fork: { type: "edr-simulated", chainType: "l1", chainId: 31337, forking: { url } },
  },
  // What Hardhat needs to run calls on a fork of a chain it does not know.
  chainDescriptors: {
    31337: { name: "Sluice", chainType: "l1", hardforkHistory: { osaka: { blockNumber: 0 } } },
  },
  ignition: { requiredConfirmations: 1, blockPollingInterval: 50 },
});
