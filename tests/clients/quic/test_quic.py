"""The Python client over QUIC against a node, its answers compared with those of JSON-RPC."""

import asyncio
import os
import secrets
import sys
from pathlib import Path

import rlp
from eth_account import Account
from web3 import HTTPProvider, Web3

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1] / "lib"), str(HERE.parents[3] / "tools/python")]
import cases  # noqa: E402
from sluice_quic import Client, Dropped, Refused, keccak  # noqa: E402

w3 = Web3(HTTPProvider(os.environ["RPC_URL"]))
KEY, _, ADDRESS = os.environ["QUIC_NODE"].partition("@")
HOST, _, PORT = ADDRESS.rpartition(":")
MNEMONIC = "test test test test test test test test test test test junk"
Account.enable_unaudited_hdwallet_features()
RICH = Account.from_mnemonic(MNEMONIC, account_path="m/44'/60'/0'/0/9")
ETHER = 10**18
PATIENCE = 30
# Logs 5 bytes under topic 7 and stores no code.
LOGGING = bytes.fromhex("600760056000a100")


def client(**more):
    return Client(HOST, int(PORT), node_key=bytes.fromhex(KEY), **more)


def signed(account, nonce, **more):
    fields = {"to": "0x" + "11" * 20, "value": 1, "gas": 21_000, "chainId": w3.eth.chain_id, "type": 2}
    fees = {"maxFeePerGas": 10**11, "maxPriorityFeePerGas": 10**9}
    fields.update(fees, nonce=nonce, **more)
    return bytes(account.sign_transaction({k: v for k, v in fields.items() if v is not None}).raw_transaction)


async def within(waiting):
    return await asyncio.wait_for(waiting, PATIENCE)


async def funded(c, count):
    """Fresh accounts with an ether each."""
    accounts = [Account.from_key(secrets.token_bytes(32)) for _ in range(count)]
    first = w3.eth.get_transaction_count(RICH.address, "pending")
    pay = enumerate(accounts, first)
    gifts = [await c.submit(signed(RICH, nonce, to=account.address, value=ETHER)) for nonce, account in pay]
    for gift in gifts:
        await within(gift.included())
    return accounts


def compare(submission, included):
    receipt = w3.eth.get_transaction_receipt(submission.hash)
    assert (receipt.blockNumber, receipt.transactionIndex) == (included.height, included.index), receipt
    assert bytes(receipt.blockHash) == included.block, receipt
    assert (receipt.status == 1) == included.success, receipt
    assert (receipt.gasUsed, receipt.effectiveGasPrice) == (included.gas_used, included.gas_price), receipt
    # JSON-RPC names the address of a creation that failed as well.
    contract = bytes.fromhex(receipt.contractAddress[2:]) if receipt.contractAddress and receipt.status else None
    assert contract == included.contract, receipt
    logs = [[bytes.fromhex(log.address[2:]), [bytes(topic) for topic in log.topics], bytes(log.data)] for log in receipt.logs]
    assert rlp.decode(included.logs) == logs, (included.logs.hex(), receipt.logs)
    return receipt


async def the_node_says_who_it_is():
    async with client() as c:
        assert c.welcome.version == 1 and c.welcome.chain_id == w3.eth.chain_id, c.welcome
        assert c.welcome.window > 0 and c.welcome.outstanding > c.welcome.window, c.welcome


async def pipelined_transfers_are_included_with_the_receipts_of_json_rpc():
    async with client() as c:
        accounts = await funded(c, 3)
        sent = [await c.submit(signed(account, nonce)) for nonce in range(100) for account in accounts]
        for submission in sent:
            await within(submission.admitted())
            compare(submission, await within(submission.included()))


async def a_contract_and_its_logs_are_told():
    async with client() as c:
        (account,) = await funded(c, 1)
        created = await c.submit(signed(account, 0, to=None, value=0, gas=100_000, data=LOGGING))
        included = await within(created.included())
        receipt = compare(created, included)
        assert included.contract and len(receipt.logs) == 1, receipt
        out_of_gas = await c.submit(signed(account, 1, to=None, value=0, gas=53_200, data=LOGGING))
        included = await within(out_of_gas.included())
        assert not included.success and included.contract is None
        compare(out_of_gas, included)


async def refusals_have_their_codes():
    async with client() as c:
        (account,) = await funded(c, 1)
        await within((await c.submit(signed(account, 0))).included())
        poor = Account.from_key(secrets.token_bytes(32))
        for raw, code in [
            (b"\x02nonsense", 1),
            (b"\x03nonsense", 3),
            (signed(account, 1, chainId=5), 5),
            (signed(account, 1, gas=20_999), 8),
            (signed(account, 1, maxPriorityFeePerGas=2 * 10**11), 11),
            (signed(account, 0, value=2), 15),
            (signed(account, 10**6), 17),
            (signed(poor, 0), 18),
        ]:
            submission = await c.submit(raw)
            try:
                await within(submission.admitted())
                raise AssertionError(f"{raw.hex()} is admitted")
            except Dropped:
                raise
            except Refused as refused:
                assert refused.code == code, (refused, code)


async def what_is_replaced_is_dropped_and_the_dearer_one_included():
    async with client() as c:
        (account,) = await funded(c, 1)
        cheap = await c.submit(signed(account, 1))
        await within(cheap.admitted())
        dear = await c.submit(signed(account, 1, maxFeePerGas=2 * 10**11, maxPriorityFeePerGas=2 * 10**9))
        await within(dear.admitted())
        try:
            await within(cheap.included())
            raise AssertionError("it is included")
        except Dropped as dropped:
            assert dropped.code == 100 and dear.hash.hex() in str(dropped), dropped
        await within((await c.submit(signed(account, 0))).included())
        compare(dear, await within(dear.included()))


async def what_is_included_already_is_final_at_once_for_anybody():
    async with client() as c, client() as other:
        (account,) = await funded(c, 1)
        raw = signed(account, 0)
        first = await within((await c.submit(raw)).included())
        assert await within((await other.submit(raw)).included()) == first


async def a_node_of_another_key_is_not_talked_to():
    try:
        async with Client(HOST, int(PORT), node_key=keccak(b"another node")):
            raise AssertionError("it is")
    except ConnectionError as error:
        assert "another node" in str(error), error


CASES = [
    the_node_says_who_it_is,
    pipelined_transfers_are_included_with_the_receipts_of_json_rpc,
    a_contract_and_its_logs_are_told,
    refusals_have_their_codes,
    what_is_replaced_is_dropped_and_the_dearer_one_included,
    what_is_included_already_is_final_at_once_for_anybody,
    a_node_of_another_key_is_not_talked_to,
]


if __name__ == "__main__":
    sys.exit(cases.run("quic", CASES, lambda case: asyncio.run(case())))
