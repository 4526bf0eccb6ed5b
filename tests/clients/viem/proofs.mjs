// viem: answers of eth_getProof, fetched by viem and verified by @ethereumjs/mpt against the headers' state roots.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  bytesToHex,
  encodeAbiParameters,
  encodeFunctionData,
  keccak256,
  pad,
  parseGwei,
  zeroHash,
} from "viem";
import { check, failure } from "../lib/check.mjs";
import { checkProof, neighbour, tampered } from "../lib/proof.mjs";
import { alice, counter, deploy, me, node, owner, read } from "./setup.mjs";

/** How many blocks back the node proves, if that is known. */
const window = process.env.PROOF_WINDOW && Number(process.env.PROOF_WINDOW);
const bumps = (address) =>
  keccak256(encodeAbiParameters([{ type: "address" }, { type: "uint256" }], [address, 1n]));
const someone = () => bytesToHex(randomBytes(20));

/** A proof in JSON-RPC's words as viem's transport brings it, verified. */
async function proven(address, keys, { number, stateRoot }) {
  const params = [address, keys, `0x${number.toString(16)}`];
  const answer = await node.request({ method: "eth_getProof", params });
  assert.deepEqual(
    answer.storageProof.map(({ key }) => BigInt(key)),
    keys.map(BigInt),
  );
  await checkProof(answer, stateRoot);
  return answer;
}

check("proofs: accounts and slots, present and absent, against the state root", async () => {
  const bare = await deploy(owner, "Batch");
  const at = await node.getBlock();
  const slots = [zeroHash, bumps(me()), bumps(someone()), pad("0x99")];
  const contract = await proven(counter.address, slots, at);
  const values = contract.storageProof.map(({ value }) => BigInt(value));
  assert.equal(values[0], await read(counter, "value", [], { blockNumber: at.number }));
  assert.equal(
    values[1],
    await read(counter, "bumps", [me()], { blockNumber: at.number }),
  );
  assert.deepEqual(values.slice(2), [0n, 0n]);
  assert.equal(
    await node.getStorageAt({ address: counter.address, slot: "0x0", blockNumber: at.number }),
    pad(contract.storageProof[0].value),
  );
  const account = await proven(me(), [zeroHash], at);
  assert.equal(
    BigInt(account.balance),
    await node.getBalance({ address: me(), blockNumber: at.number }),
  );
  assert.equal(
    Number(account.nonce),
    await node.getTransactionCount({ address: me(), blockNumber: at.number }),
  );
  const empty = await proven(bare.address, [zeroHash, bumps(me())], at);
  assert.equal(empty.storageHash, keccak256("0x80"));
  assert.notEqual(empty.codeHash, keccak256("0x"));
  const nobody = await proven(someone(), [zeroHash], at);
  // Nobody's way ends at somebody else's leaf, and no slot's at another slot's.
  const near = await proven(neighbour(account.accountProof, me().toLowerCase(), someone), [], at);
  assert.deepEqual(near.accountProof, account.accountProof);
  const [first] = contract.storageProof;
  const nearby = neighbour(first.proof, zeroHash, () => bytesToHex(randomBytes(32)));
  const beside = await proven(counter.address, [nearby], at);
  assert.deepEqual(beside.storageProof[0].proof, first.proof);
  assert.equal(BigInt(beside.storageProof[0].value), 0n);

  for (const answer of [contract, account, empty, nobody, near, beside]) {
    for (const changed of tampered(answer)) await failure(checkProof(changed, at.stateRoot));
    await failure(checkProof({ ...answer, balance: "0x1234567" }, at.stateRoot));
    await failure(checkProof(answer, keccak256(at.stateRoot)));
  }
  const typed = await node.getProof({
    address: counter.address,
    storageKeys: [zeroHash],
    blockNumber: at.number,
  });
  assert.equal(typed.storageProof[0].value, values[0]);
});

check("proofs of the past, as far as the window goes", async () => {
  const from = alice.account.address;
  const slots = [zeroHash, bumps(from), bumps(someone())];
  const bump = {
    to: counter.address,
    data: encodeFunctionData({ ...counter, functionName: "bump", args: [zeroHash] }),
    gas: 100_000n,
    maxFeePerGas: (await node.getBlock()).baseFeePerGas * 4n + parseGwei("2"),
    maxPriorityFeePerGas: parseGwei("1"),
  };
  let nonce = await node.getTransactionCount({ address: from });
  let value = await read(counter, "value");
  // What each height left, as the receipts tell.
  const left = new Map();
  const bumped = async () => {
    const receipt = await alice.sendTransactionSync({ ...bump, nonce });
    assert.equal(receipt.status, "success");
    [nonce, value] = [nonce + 1, value + 1n];
    left.set(receipt.blockNumber, { nonce, value });
  };
  // More heights than lie in memory; then, as only checkpoints take old ones away, until the first of them is gone.
  while (left.size < 150) await bumped();
  const [oldest] = left.keys();
  const old = (height) => node.getProof({ address: from, storageKeys: [], blockNumber: height });
  const refusal = (height) => old(height).then(() => undefined, ({ details }) => details);
  while (window && (await refusal(oldest)) === undefined) await bumped();
  const tip = await node.getBlockNumber();
  const lowest = window ? tip - BigInt(window) : oldest;
  for (const [height, { nonce, value }] of left) {
    if (height < lowest || (height !== lowest && height % 7n !== 0n)) continue;
    const at = await node.getBlock({ blockNumber: height });
    const contract = await proven(counter.address, slots, at);
    assert.equal(BigInt(contract.storageProof[0].value), value);
    assert.equal(BigInt(contract.storageProof[2].value), 0n);
    assert.equal(Number((await proven(from, [], at)).nonce), nonce);
    await proven(someone(), [zeroHash], at);
  }
  for (const height of window ? [0n, 1n, oldest] : []) {
    const words = await refusal(height);
    const [, asked, from] = words.match(/state at height (\d+): proofs go back to height (\d+)$/);
    assert.equal(BigInt(asked), height);
    assert(oldest < BigInt(from) && BigInt(from) <= lowest, words);
  }
});
