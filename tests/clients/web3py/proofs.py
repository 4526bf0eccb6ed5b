"""Answers of eth_getProof, verified by the package `trie` of Ethereum's Python clients against a state root."""

import random

import rlp
from eth_utils import keccak
from trie import HexaryTrie
from trie.constants import BLANK_NODE_HASH
from web3.datastructures import AttributeDict

NOBODY = (0, 0, BLANK_NODE_HASH)


def value_of(root, key, nodes):
    """What the trie of `root` has under the hash of `key`, by a proof; b"" for nothing."""
    return HexaryTrie.get_from_proof(root, keccak(key), [rlp.decode(bytes(one)) for one in nodes])


def check(proof, state_root):
    """Fails unless the account and every slot are as the proof says, present or absent."""
    found = value_of(bytes(state_root), bytes.fromhex(proof.address[2:]), proof.accountProof)
    told = (proof.nonce, proof.balance, bytes(proof.storageHash))
    if found:
        nonce, balance, storage, code = rlp.decode(found)
        assert told == (int.from_bytes(nonce, "big"), int.from_bytes(balance, "big"), storage)
        assert bytes(proof.codeHash) == code
    else:
        assert told == NOBODY
    for slot in proof.storageProof:
        key = int.from_bytes(slot.key, "big").to_bytes(32, "big")
        word = value_of(bytes(proof.storageHash), key, slot.proof)
        assert int.from_bytes(slot.value, "big") == (
            int.from_bytes(rlp.decode(word), "big") if word else 0
        )


def holds(proof, state_root):
    """Whether `check` takes it; what is not a node at all fails in many ways."""
    try:
        check(proof, state_root)
    except Exception:
        return False
    return True


def tampered(proof):
    """The proof with one bit of one byte changed, for each node of it in turn."""
    for nodes in damaged(proof.accountProof):
        yield AttributeDict({**proof, "accountProof": nodes})
    for at, slot in enumerate(proof.storageProof):
        for nodes in damaged(slot.proof):
            slots = list(proof.storageProof)
            slots[at] = AttributeDict({**slot, "proof": nodes})
            yield AttributeDict({**proof, "storageProof": slots})


def damaged(nodes):
    for at, node in enumerate(nodes):
        bad = bytearray(node)
        bad[random.randrange(len(bad))] ^= 1 << random.randrange(8)
        yield [*nodes[:at], bytes(bad), *nodes[at + 1 :]]


def neighbour(nodes, key, make):
    """Another key whose hash goes the way of this one's up to where its leaf, the last node, stands."""
    path = rlp.decode(bytes(nodes[-1]))[0].hex()
    assert path[0] in "23", "a leaf is last"
    shared = 64 - len(path) + (1 if path[0] == "3" else 2)
    while True:
        other = make()
        if other != key and keccak(other).hex()[:shared] == keccak(key).hex()[:shared]:
            return other
