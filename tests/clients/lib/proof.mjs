// Checks a node's answers against its own block hashes: header, transactions, receipts, state.
import assert from "node:assert/strict";
import { MerklePatriciaTrie, verifyMerkleProof } from "@ethereumjs/mpt";
import { bytesToHex, fromRlp, hexToBytes, keccak256, toRlp } from "viem";

const number = (value) => {
  const hex = BigInt(value ?? 0).toString(16);
  return hex === "0" ? "0x" : `0x${hex.length % 2 ? "0" : ""}${hex}`;
};
const bytes = (hex) => hexToBytes(hex);
const emptyRoot = keccak256("0x80");

/** The hash of a header in JSON-RPC's hex strings; the fields of each fork when present. */
export function headerHash(block) {
  const fields = [
    block.parentHash,
    block.sha3Uncles,
    block.miner,
    block.stateRoot,
    block.transactionsRoot,
    block.receiptsRoot,
    block.logsBloom,
    number(block.difficulty),
    number(block.number),
    number(block.gasLimit),
    number(block.gasUsed),
    number(block.timestamp),
    block.extraData,
    block.mixHash,
    block.nonce,
    number(block.baseFeePerGas),
  ];
  if (block.withdrawalsRoot) fields.push(block.withdrawalsRoot);
  if (block.blobGasUsed !== undefined)
    fields.push(number(block.blobGasUsed), number(block.excessBlobGas));
  if (block.parentBeaconBlockRoot) fields.push(block.parentBeaconBlockRoot);
  if (block.requestsHash) fields.push(block.requestsHash);
  return keccak256(toRlp(fields));
}

/** The root of a list of encoded transactions or receipts, keyed by their index. */
export async function listRoot(items) {
  const trie = new MerklePatriciaTrie();
  for (const [at, item] of items.entries()) await trie.put(bytes(toRlp(number(at))), bytes(item));
  return bytesToHex(trie.root());
}

/** A receipt as it is hashed, from its JSON-RPC form. */
export function encodedReceipt(receipt) {
  const logs = receipt.logs.map(({ address, topics, data }) => [address, topics, data]);
  const body = toRlp([
    number(receipt.status),
    number(receipt.cumulativeGasUsed),
    receipt.logsBloom,
    logs,
  ]);
  return BigInt(receipt.type) === 0n ? body : `0x0${BigInt(receipt.type)}${body.slice(2)}`;
}

async function proven(root, key, proof) {
  // The library cannot open the empty trie, whose proof has no nodes or the empty one.
  if (proof.length === 0 || (proof.length === 1 && proof[0] === "0x80")) {
    assert.equal(root, emptyRoot, "no nodes, but the trie is not empty");
    return null;
  }
  const value = await verifyMerkleProof(bytes(keccak256(key)), proof.map(bytes));
  assert.equal(keccak256(proof[0]), root, "the proof starts at another root");
  return value === null ? null : bytesToHex(value);
}

/** Checks an answer of eth_getProof against a state root: account and slots, present or absent. */
export async function checkProof(answer, stateRoot) {
  const account = await proven(stateRoot, answer.address, answer.accountProof);
  if (account === null) {
    assert.equal(BigInt(answer.nonce), 0n);
    assert.equal(BigInt(answer.balance), 0n);
    assert.equal(answer.storageHash, emptyRoot, "storage of nobody");
  } else {
    const [nonce, balance, storage, code] = fromRlp(account, "hex");
    assert.equal(nonce, number(answer.nonce), "nonce");
    assert.equal(balance, number(answer.balance), "balance");
    assert.equal(storage, answer.storageHash, "storage root");
    assert.equal(code, answer.codeHash, "code hash");
  }
  for (const { key, value, proof } of answer.storageProof) {
    const slot = `0x${BigInt(key).toString(16).padStart(64, "0")}`;
    const found = await proven(answer.storageHash, slot, proof);
    assert.equal(found === null ? "0x" : fromRlp(found, "hex"), number(value), `slot ${key}`);
  }
}

/** The same answer with one bit of one byte changed, for each node of each of its proofs. */
export function* tampered(answer) {
  for (let proof = -1; proof < answer.storageProof.length; proof++) {
    const nodes = (of) => (proof < 0 ? of.accountProof : of.storageProof[proof].proof);
    for (let at = 0; at < nodes(answer).length; at++) {
      const changed = structuredClone(answer);
      const node = bytes(nodes(changed)[at]);
      node[Math.floor(Math.random() * node.length)] ^= 1 << Math.floor(Math.random() * 8);
      nodes(changed)[at] = bytesToHex(node);
      yield changed;
    }
  }
}

/** A key that is none, but whose hash goes the way of another's up to where that one's leaf stands. */
export function neighbour(proof, key, random) {
  const path = fromRlp(proof.at(-1), "hex")[0].slice(2);
  assert(["2", "3"].includes(path[0]), "a leaf is last");
  const shared = 2 + 64 - (path.length - (path[0] === "3" ? 1 : 2));
  const wanted = keccak256(key).slice(0, shared);
  for (;;) {
    const other = random();
    if (other !== key && keccak256(other).startsWith(wanted)) return other;
  }
}
