// viem clients, accounts and contracts that the cases share.
import assert from "node:assert/strict";
import {
  BaseError,
  ContractFunctionRevertedError,
  createPublicClient,
  createWalletClient,
  getAddress,
  http,
  parseEther,
} from "viem";
import { generatePrivateKey, mnemonicToAccount, privateKeyToAccount } from "viem/accounts";
import { foundry } from "viem/chains";
import { artifact } from "../lib/artifacts.mjs";
import { failure, mnemonic, multicall3, url } from "../lib/check.mjs";

export const chain = { ...foundry, contracts: { multicall3: { address: multicall3 } } };
export const options = { chain, pollingInterval: 50, cacheTime: 0 };
export const node = createPublicClient({ ...options, transport: http(url) });
export const dev = [0, 1].map((at) => mnemonicToAccount(mnemonic, { addressIndex: at }));
const client = (account) => createWalletClient({ ...options, account, transport: http(url) });
const rich = client(dev[0]);

export const done = async (hash) => {
  const receipt = await node.waitForTransactionReceipt({ hash, timeout: 30_000 });
  assert.equal(receipt.status, "success", `transaction ${hash}`);
  return receipt;
};
export const funded = async (ether = 5) => {
  const account = privateKeyToAccount(generatePrivateKey());
  await done(await rich.sendTransaction({ to: account.address, value: parseEther(`${ether}`) }));
  return client(account);
};
export const deploy = async (from, name, args = []) => {
  const { abi, bytecode } = typeof name === "string" ? artifact(name) : name;
  const { contractAddress } = await done(await from.deployContract({ abi, bytecode, args }));
  return { address: getAddress(contractAddress), abi };
};
export const write = async (from, contract, functionName, args, more = {}) =>
  done(await from.writeContract({ ...contract, functionName, args, ...more }));
export const read = (contract, functionName, args = [], more = {}) =>
  node.readContract({ ...contract, functionName, args, ...more });
export const deployer = {
  deploy: async (code, args) => (await deploy(owner, code, args)).address,
  call: (contract, name, args) => write(owner, contract, name, args, { gas: 15_000_000n }),
  read,
};
/** Name and arguments of the error a call was reverted with. */
export const revert = async (promise) => {
  const error = await failure(promise);
  assert(error instanceof BaseError, `${error}`);
  const found = error.walk((cause) => cause instanceof ContractFunctionRevertedError);
  assert(found, `not a revert: ${error.message}`);
  return [
    found.data?.errorName ?? found.reason ?? found.signature,
    found.data?.args ?? [],
    found.reason,
  ];
};
export const cause = (error, kind) =>
  assert(error.walk((e) => e instanceof kind) instanceof kind, error.message);

/** Accounts and contracts that the cases share. */
export let owner;
export let alice;
export let bob;
export let token;
export let counter;
export const me = () => owner.account.address;

/** Makes them, before the first case. */
export async function prepare() {
  [owner, alice, bob] = [await funded(20), await funded(), await funded()];
  token = await deploy(owner, "Token", ["Gold", "GLD", 18, parseEther("1000")]);
  counter = await deploy(owner, "Counter", [10n]);
}
