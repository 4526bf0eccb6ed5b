"""web3.py against a node. Each run uses fresh accounts, so it can be repeated on the same chain."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
import traceback
from pathlib import Path

from eth_abi import encode
from eth_account import Account
from eth_account.messages import encode_defunct, encode_typed_data
from eth_utils import function_signature_to_4byte_selector, keccak, to_checksum_address
from web3 import AsyncWeb3, HTTPProvider, Web3, WebSocketProvider
from web3.exceptions import (
    ContractCustomError,
    ContractLogicError,
    ContractPanicError,
    Web3RPCError,
)
from web3.logs import DISCARD

import proofs

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE / "lib"))
import cases  # noqa: E402

URL = os.environ.get("RPC_URL", "http://127.0.0.1:8545")
WS_URL = os.environ.get("WS_URL", "ws://127.0.0.1:8546")
MNEMONIC = "test test test test test test test test test test test junk"
DEPLOYER2 = "0x4e59b44847b379578588920cA78FbF26c0B4956C"
MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11"
ETHER = 10**18
MOST = 2**256 - 1
# How many blocks back the node proves, if that is known.
WINDOW = int(os.environ.get("PROOF_WINDOW", 0))
PLENTY = 3_000_000
ZERO = "0x" + "00" * 20
ZERO_WORD = b"\0" * 32

w3 = Web3(HTTPProvider(URL))
on_anvil = w3.client_version.startswith("anvil")
Account.enable_unaudited_hdwallet_features()
RICH = Account.from_mnemonic(MNEMONIC, account_path="m/44'/60'/0'/0/8")

subprocess.run(["node", str(HERE / "lib/compile.mjs")], check=True, stdout=subprocess.DEVNULL)
OWN = json.loads((HERE / ".build/contracts.json").read_text())["contracts"]
PATHS = json.loads((HERE / "lib/artifacts.json").read_text())
PLANS = json.loads((HERE / "lib/market.json").read_text())


def artifact(name, addresses=None):
    """ABI and code of a contract, its libraries linked."""
    if name in OWN:
        return OWN[name]["abi"], OWN[name]["bytecode"]
    found = json.loads((HERE / "node_modules" / PATHS[name]).read_text())
    code = found.get("bytecode") or found["evm"]["bytecode"]["object"]
    code = code.removeprefix("0x")
    for libraries in found.get("linkReferences", {}).values():
        for library, places in libraries.items():
            for place in places:
                start, end = 2 * place["start"], 2 * (place["start"] + place["length"])
                code = code[:start] + addresses[library][2:].lower() + code[end:]
    return found["abi"], "0x" + code


def settled(tx_hash):
    return w3.eth.wait_for_transaction_receipt(tx_hash, timeout=30, poll_latency=0.02)


def done(tx_hash):
    receipt = settled(tx_hash)
    assert receipt.status == 1, receipt
    return receipt


def signed(account, tx):
    return account.sign_transaction(tx).raw_transaction


def send(account, tx):
    """Fills in what is missing, signs and sends; gives the receipt."""
    tx = {
        "from": account.address,
        "chainId": 31337,
        "nonce": w3.eth.get_transaction_count(account.address),
        **tx,
    }
    if "gasPrice" not in tx and "maxFeePerGas" not in tx:
        tip = w3.eth.max_priority_fee
        tx["maxPriorityFeePerGas"] = tip
        tx["maxFeePerGas"] = 2 * w3.eth.get_block("latest").baseFeePerGas + tip
    if "gas" not in tx:
        tx["gas"] = w3.eth.estimate_gas(tx)
    return done(w3.eth.send_raw_transaction(signed(account, tx)))


def funded(ether=5):
    account = Account.create()
    send(RICH, {"to": account.address, "value": ether * ETHER})
    return account


def deploy(account, name, *args, addresses=None):
    abi, code = artifact(name, addresses)
    data = w3.eth.contract(abi=abi, bytecode=code).constructor(*args).data_in_transaction
    receipt = send(account, {"data": data})
    return w3.eth.contract(address=receipt.contractAddress, abi=abi)


def write(account, call, **more):
    """Sends a contract call: `write(me, token.functions.mint(...))`."""
    return send(account, {"to": call.address, "data": call._encode_transaction_data(), **more})


def refused(kind, act, words=""):
    try:
        act()
    except kind as error:
        assert words.lower() in str(error).lower(), f"{words!r} is not in {error!r}"
        return error
    raise AssertionError(f"not refused with {kind.__name__}")


def custom(contract, error):
    """Name and arguments of a custom error, by the contract's ABI."""
    data = bytes.fromhex(error.data[2:])
    for entry in contract.abi:
        if entry["type"] == "error":
            types = [one["type"] for one in entry["inputs"]]
            if (
                function_signature_to_4byte_selector(f"{entry['name']}({','.join(types)})")
                == data[:4]
            ):
                return entry["name"], w3.codec.decode(types, data[4:])
    raise AssertionError(f"unknown error {error.data}")


def root(n):
    x = 1 << ((n.bit_length() + 1) // 2)
    while True:
        y = (x + n // x) >> 1
        if y >= x:
            return x
        x = y


def swap_out(amount, reserve_in, reserve_out):
    return amount * 997 * reserve_out // (reserve_in * 1000 + amount * 997)


def create2(deployer, salt, code):
    return to_checksum_address(
        keccak(b"\xff" + bytes.fromhex(deployer[2:]) + salt + keccak(code))[12:]
    )


class State:
    """What earlier cases leave for later ones."""

    me = alice = bob = token = counter = None


s = State()


def chain_accounts_and_node():
    assert w3.eth.chain_id == 31337 and w3.net.version == "31337" and w3.is_connected()
    height = w3.eth.block_number
    assert w3.eth.get_block(height).number == height
    for tag in ("earliest", "safe", "finalized", "latest", "pending"):
        w3.eth.get_block(tag)
    assert w3.eth.get_balance(RICH.address) > 100 * ETHER
    assert len(w3.eth.get_code(DEPLOYER2)) == 69 and len(w3.eth.get_code(MULTICALL3)) > 1000
    assert w3.eth.syncing is False


def every_type_of_transaction():
    to = Account.create().address
    before = w3.eth.get_balance(s.me.address)
    receipt = send(s.me, {"to": to, "value": 12345})
    assert (receipt.type, receipt.gasUsed) == (2, 21000)
    assert w3.eth.get_balance(s.me.address) == before - 12345 - 21000 * receipt.effectiveGasPrice
    assert w3.eth.get_balance(to, receipt.blockNumber - 1) == 0
    assert w3.eth.get_balance(to, receipt.blockNumber) == 12345
    assert w3.eth.get_transaction(receipt.transactionHash).blockHash == receipt.blockHash

    s.counter = deploy(s.me, "Counter", 10)
    bump = s.counter.functions.bump(ZERO_WORD)
    price = 2 * w3.eth.gas_price
    assert write(s.me, bump, gasPrice=price).type == 0
    access_list = [{"address": s.counter.address, "storageKeys": ["0x" + "00" * 32]}]
    listed = write(s.me, bump, gasPrice=price, accessList=access_list, type=1)
    assert listed.type == 1
    assert len(w3.eth.get_transaction(listed.transactionHash).accessList) == 1

    batch = deploy(s.me, "Batch")
    other = Account.create()
    auth = other.sign_authorization({"chainId": 31337, "address": batch.address, "nonce": 0})
    data = bump._encode_transaction_data()
    execute = batch.functions.execute([(s.counter.address, 0, data), (s.counter.address, 0, data)])
    fee = 2 * w3.eth.gas_price + w3.eth.max_priority_fee
    receipt = send(
        s.me,
        {
            "to": other.address,
            "data": execute._encode_transaction_data(),
            "authorizationList": [auth],
            "gas": 300_000,
            "maxFeePerGas": fee,
            "maxPriorityFeePerGas": w3.eth.max_priority_fee,
            "type": 4,
        },
    )
    assert receipt.type == 4 and len(receipt.logs) == 3
    assert w3.eth.get_code(other.address) == bytes.fromhex("ef0100" + batch.address[2:])
    assert s.counter.functions.bumps(other.address).call() == 2
    assert s.counter.functions.value().call() == 14
    assert s.counter.functions.opcodes(1).call() == [42, 42, 255]


def openzeppelin_erc20_and_erc721():
    token = s.token = deploy(s.me, "Token", "Gold", "GLD", 18, 1000 * ETHER)
    call = token.functions
    assert [call.name().call(), call.symbol().call(), call.decimals().call()] == ["Gold", "GLD", 18]
    receipt = write(s.me, call.transfer(s.alice.address, 7))
    (event,) = token.events.Transfer().process_receipt(receipt)
    assert dict(event.args) == {"from": s.me.address, "to": s.alice.address, "value": 7}
    fields = [
        ("owner", "address"),
        ("spender", "address"),
        ("value", "uint256"),
        ("nonce", "uint256"),
        ("deadline", "uint256"),
    ]
    message = dict(zip([name for name, _ in fields], [s.alice.address, s.me.address, 5, 0, MOST]))
    signature = s.alice.sign_typed_data(
        {"name": "Gold", "version": "1", "chainId": 31337, "verifyingContract": token.address},
        {"Permit": [{"name": name, "type": kind} for name, kind in fields]},
        message,
    )
    r, v_s = signature.r.to_bytes(32, "big"), signature.s.to_bytes(32, "big")
    write(s.me, call.permit(s.alice.address, s.me.address, 5, MOST, signature.v, r, v_s))
    write(s.me, call.transferFrom(s.alice.address, s.me.address, 5))
    assert call.balanceOf(s.alice.address).call() == 2
    poor = refused(
        ContractCustomError,
        lambda: call.transfer(s.me.address, 100).call({"from": s.alice.address}),
    )
    name, args = custom(token, poor)
    assert name == "ERC20InsufficientBalance" and args[1:] == (2, 100)

    nft = deploy(s.me, "Collectible")
    write(s.me, nft.functions.mint(s.alice.address, "ipfs://one"))
    assert nft.functions.tokenURI(1).call() == "ipfs://one"
    move = nft.get_function_by_signature("safeTransferFrom(address,address,uint256)")
    write(s.alice, move(s.alice.address, s.me.address, 1))
    assert nft.functions.ownerOf(1).call() == s.me.address
    missing = refused(ContractCustomError, lambda: nft.functions.ownerOf(9).call())
    assert custom(nft, missing) == ("ERC721NonexistentToken", (9,))


def uniswap_v2():
    me, token = s.me, s.token
    weth = deploy(me, "WETH9")
    factory = deploy(me, "UniswapV2Factory", me.address)
    router = deploy(me, "UniswapV2Router02", factory.address, weth.address)
    deadline = w3.eth.get_block("latest").timestamp + 86_400
    amounts = [100 * ETHER, 2 * ETHER]
    write(me, token.functions.approve(router.address, MOST))
    add = router.functions.addLiquidityETH(token.address, amounts[0], 0, 0, me.address, deadline)
    write(me, add, value=amounts[1], gas=2 * PLENTY)
    abi, code = artifact("UniswapV2Pair")
    pair = w3.eth.contract(
        address=factory.functions.getPair(token.address, weth.address).call(), abi=abi
    )
    first = int(token.address, 16) < int(weth.address, 16)
    low, high = (token.address, weth.address) if first else (weth.address, token.address)
    salt = keccak(bytes.fromhex(low[2:] + high[2:]))
    assert create2(factory.address, salt, bytes.fromhex(code[2:])) == pair.address
    assert pair.functions.balanceOf(me.address).call() == root(amounts[0] * amounts[1]) - 1000
    amount = ETHER // 10
    out = swap_out(amount, amounts[1], amounts[0])
    path = [weth.address, token.address]
    assert router.functions.getAmountsOut(amount, path).call() == [amount, out]
    swap = router.functions.swapExactETHForTokens(out, path, me.address, deadline)
    receipt = write(me, swap, value=amount, gas=PLENTY)
    (event,) = pair.events.Swap().process_receipt(receipt, errors=DISCARD)
    assert event.args.to == me.address
    wanted = [amounts[0] - out, amounts[1] + amount]
    assert pair.functions.getReserves().call()[:2] == (wanted if first else wanted[::-1])
    refused(
        ContractLogicError,
        lambda: swap.call({"from": me.address, "value": amount}),
        "UniswapV2Router: INSUFFICIENT_OUTPUT_AMOUNT",
    )


def uniswap_v3():
    me = s.me
    other = deploy(me, "Token", "Silver", "SLV", 18, 1000 * ETHER)
    factory = deploy(me, "UniswapV3Factory")
    trader = deploy(me, "Trader")
    write(me, factory.functions.createPool(s.token.address, other.address, 3000), gas=3 * PLENTY)
    abi, code = artifact("UniswapV3Pool")
    pool = w3.eth.contract(
        address=factory.functions.getPool(s.token.address, other.address, 3000).call(), abi=abi
    )
    pair = sorted([s.token.address, other.address], key=lambda address: int(address, 16))
    salt = keccak(encode(["address", "address", "uint24"], [*pair, 3000]))
    assert create2(factory.address, salt, bytes.fromhex(code[2:])) == pool.address
    write(me, pool.functions.initialize(2**96))
    for each in (s.token, other):
        write(me, each.functions.approve(trader.address, MOST))
    amount = 10 * ETHER
    write(me, trader.functions.mint(pool.address, -887220, 887220, amount), gas=PLENTY)
    assert pool.functions.liquidity().call() == amount
    receipt = write(me, trader.functions.swap(pool.address, True, ETHER, 4295128740), gas=PLENTY)
    (event,) = pool.events.Swap().process_receipt(receipt, errors=DISCARD)
    below = amount + ETHER * 997_000 // 1_000_000
    price = -(-amount * 2**96 // below)
    assert event.args.sqrtPriceX96 == price
    assert (event.args.amount0, event.args.amount1) == (ETHER, -(amount * (2**96 - price) >> 96))
    refused(
        ContractLogicError, lambda: trader.functions.swap(pool.address, True, 1, 1).call(), "SPL"
    )


def deploy_market(plan, owner):
    """A lending market, by the steps that all clients share."""
    made, addresses = {}, {"admin": owner.address}

    def fill(value):
        if isinstance(value, list):
            return [fill(one) for one in value]
        if not isinstance(value, str):
            return value
        if value.startswith("$"):
            return addresses[value[1:]]
        if value.isdigit():
            return int(value)
        return bytes.fromhex(value[2:]) if value.startswith("0x") and len(value) != 42 else value

    for verb, name, what, *rest in PLANS[plan]:
        if verb == "deploy":
            made[name] = deploy(owner, what, *fill(rest[0]), addresses=addresses)
        elif verb == "call":
            write(owner, made[name].functions[what](*fill(rest[0])), gas=15_000_000)
        else:
            function, args, code = rest
            address = made[what].functions[function](*fill(args)).call()
            made[name] = w3.eth.contract(address=address, abi=artifact(code, addresses)[0])
        if name in made:
            addresses[name] = made[name].address
    return made


def aave_v3():
    me, alice, bob = s.me, s.alice, s.bob
    market = deploy_market("aave", me)
    pool, collateral, cash = market["pool"], market["collateral"], market["cash"]
    act = pool.functions
    for who, asset, amount in ((alice, collateral, 10 * ETHER), (bob, cash, 10**11)):
        write(me, asset.functions.mint(who.address, amount))
        write(who, asset.functions.approve(pool.address, MOST))
    write(bob, act.supply(cash.address, 5 * 10**10, bob.address, 0), gas=PLENTY)
    write(alice, act.supply(collateral.address, 10 * ETHER, alice.address, 0), gas=PLENTY)
    account = act.getUserAccountData(alice.address)
    assert account.call()[2] == 1_500_000_000_000
    over = act.borrow(cash.address, 15_000_000_001, 2, 0, alice.address)
    refused(
        ContractLogicError, lambda: over.call({"from": alice.address}), "execution reverted: 36"
    )
    write(alice, act.borrow(cash.address, 14_000_000_000, 2, 0, alice.address), gas=PLENTY)
    assert cash.functions.balanceOf(alice.address).call() == 14_000_000_000
    low = deploy(me, "MockAggregator", 160_000_000_000)
    write(me, market["oracle"].functions.setAssetSources([collateral.address], [low.address]))
    assert account.call()[5] < ETHER
    liquidate = act.liquidationCall(
        collateral.address, cash.address, alice.address, 5_000_000_000, False
    )
    write(bob, liquidate, gas=PLENTY)
    assert collateral.functions.balanceOf(bob.address).call() == 3_281_250_000_000_000_000
    write(me, cash.functions.mint(alice.address, 10**11))
    write(alice, cash.functions.approve(pool.address, MOST))
    write(alice, act.repay(cash.address, MOST, 2, alice.address), gas=PLENTY)
    assert account.call()[1] == 0


def market_of_bench():
    market = deploy_market("own", s.me)
    lending, collateral, cash = market["lending"], market["collateral"], market["cash"]
    act = lending.functions
    write(s.me, act.deposit(cash.address, 10**11), gas=PLENTY)
    write(s.me, act.deposit(collateral.address, 10 * ETHER), gas=PLENTY)
    over = act.borrow(cash.address, 10**11)
    error = refused(ContractCustomError, lambda: over.call({"from": s.me.address}))
    assert custom(lending, error)[0] == "Unhealthy"
    write(s.me, act.borrow(cash.address, 10**10), gas=PLENTY)
    write(s.me, act.repay(cash.address, MOST), gas=PLENTY)
    assert act.debtOf(cash.address, s.me.address).call() == 0


def reverts_decode():
    faults = deploy(s.me, "Faults")
    call = faults.functions
    sender = {"from": s.me.address}
    error = refused(ContractCustomError, lambda: call.custom(7).call(sender))
    assert custom(faults, error) == ("Refused", (s.me.address.lower(), 7))
    refused(
        ContractLogicError,
        lambda: call.reason("no luck").call(sender),
        "execution reverted: no luck",
    )
    refused(ContractPanicError, lambda: call.divide(0).call(sender), "0x12: Division by zero")
    refused(ContractPanicError, lambda: call.index(5).call(sender), "0x32")
    refused(ContractLogicError, lambda: call.silent().call(sender))
    refused(ContractCustomError, lambda: call.custom(3).estimate_gas(sender))
    tx = call.custom(9).build_transaction(
        {**sender, "gas": 100_000, "nonce": w3.eth.get_transaction_count(s.me.address)}
    )
    assert settled(w3.eth.send_raw_transaction(signed(s.me, tx))).status == 0


def estimates_access_lists_and_fees():
    many = s.counter.functions.bumpMany(20)
    gas = many.estimate_gas({"from": s.me.address})
    receipt = write(s.me, many, gas=gas)
    assert receipt.gasUsed <= gas
    tx = {"from": s.me.address, "to": s.counter.address, "data": many._encode_transaction_data()}
    made = w3.eth.create_access_list(tx)
    assert len(made.accessList[0].storageKeys) == 2 and made.gasUsed > 21000
    history = w3.eth.fee_history(2, "latest", [10, 90])
    assert len(history.baseFeePerGas) == 3 and len(history.reward[0]) == 2
    assert history.baseFeePerGas[0] == w3.eth.get_block(history.oldestBlock).baseFeePerGas
    override = {
        s.counter.address: {"stateDiff": {"0x" + "00" * 32: "0x" + (99).to_bytes(32, "big").hex()}}
    }
    assert s.counter.functions.value().call(state_override=override) == 99
    value = s.counter.functions.value().call()
    assert int.from_bytes(w3.eth.get_storage_at(s.counter.address, 0), "big") == value
    assert s.counter.functions.value().call(block_identifier=receipt.blockNumber - 1) == value - 20
    with w3.batch_requests() as batch:
        for _ in range(50):
            batch.add(s.counter.functions.value())
        assert batch.execute() == [value] * 50


def logs_by_query_and_filter():
    note = secrets.token_bytes(32)
    event = s.counter.events.Bumped
    # w3.eth.filter asks eth_newFilter, and so on.
    by_contract = w3.eth.filter({"address": s.counter.address})
    blocks = w3.eth.filter("latest")
    receipt = write(s.me, s.counter.functions.bump(note))
    limit = time.monotonic() + 20
    entries = []
    while not entries and time.monotonic() < limit:
        entries = by_contract.get_new_entries()
    assert [bytes(one.data) for one in entries] == [note]
    assert receipt.blockHash in blocks.get_new_entries()
    assert len(by_contract.get_all_entries()) >= 1
    height = receipt.blockNumber
    found = event.get_logs(
        from_block=height, to_block=height, argument_filters={"by": s.me.address}
    )
    assert [one.args.note for one in found] == [note]
    topics = ["0x" + keccak(text="Bumped(address,uint256,bytes32)").hex()]
    assert (
        len(
            w3.eth.get_logs(
                {"blockHash": receipt.blockHash, "address": s.counter.address, "topics": topics}
            )
        )
        == 1
    )
    assert w3.eth.get_logs({"blockHash": receipt.blockHash, "topics": ["0x" + "00" * 32]}) == []
    receipts = w3.eth.get_block_receipts(height)
    assert receipt.transactionHash in [one.transactionHash for one in receipts]


def subscriptions_over_websocket():
    async def subscribe():
        async with AsyncWeb3(WebSocketProvider(WS_URL)) as ws:
            assert await ws.eth.chain_id == 31337
            waiting = {
                await ws.eth.subscribe("newHeads"): "head",
                await ws.eth.subscribe("logs", {"address": s.counter.address}): "log",
                await ws.eth.subscribe("newPendingTransactions"): "pending",
            }
            names = dict(waiting)
            note = secrets.token_bytes(32)
            tx = s.counter.functions.bump(note).build_transaction(
                {
                    "from": s.me.address,
                    "gas": 100_000,
                    "nonce": w3.eth.get_transaction_count(s.me.address),
                }
            )
            sent = await ws.eth.send_raw_transaction(signed(s.me, tx))
            async for message in ws.socket.process_subscriptions():
                kind, result = waiting.get(message["subscription"]), message["result"]
                if kind == "log":
                    assert bytes(result["data"]) == note and result["transactionHash"] == sent
                    assert (await ws.eth.get_transaction_receipt(sent)).blockHash == result[
                        "blockHash"
                    ]
                elif kind == "pending" and result != sent:
                    continue
                elif kind == "head":
                    assert (await ws.eth.get_block(result["hash"])).number == result["number"]
                waiting.pop(message["subscription"], None)
                if not waiting:
                    break
            for subscription in names:
                assert await ws.eth.unsubscribe(subscription)

    asyncio.run(asyncio.wait_for(subscribe(), 30))


def proofs_of_present_and_absent():
    call, bare = s.counter.functions, deploy(s.me, "Batch")
    tip = w3.eth.get_block("latest")
    height, root_of_state = tip.number, tip.stateRoot
    slots = [0, bumps_of(s.me.address), bumps_of(Account.create().address), 0x99]
    words = ["0x" + key.to_bytes(32, "big").hex() for key in slots]
    contract = w3.eth.get_proof(s.counter.address, words, height)
    if not on_anvil:  # it refuses web3.py's own form of a key, 0x0
        again = w3.eth.get_proof(s.counter.address, slots, height)
        assert again.storageHash == contract.storageHash
    values = [int.from_bytes(one.value, "big") for one in contract.storageProof]
    assert values == [call.value().call(), call.bumps(s.me.address).call(), 0, 0]
    mine = w3.eth.get_proof(s.me.address, words[:1], height)
    assert mine.balance == w3.eth.get_balance(s.me.address, height)
    empty = w3.eth.get_proof(bare.address, words, height)
    assert empty.storageHash == proofs.BLANK_NODE_HASH and empty.codeHash != keccak(b"")
    nobody = w3.eth.get_proof(Account.create().address, words, height)
    # Nobody's way ends at somebody else's leaf, and no slot's at another slot's.
    present = bytes.fromhex(s.me.address[2:])
    other = proofs.neighbour(mine.accountProof, present, lambda: secrets.token_bytes(20))
    near = w3.eth.get_proof(to_checksum_address(other), [], height)
    assert near.accountProof == mine.accountProof
    first = contract.storageProof[0].proof
    other = proofs.neighbour(first, ZERO_WORD, lambda: secrets.token_bytes(32))
    beside = w3.eth.get_proof(s.counter.address, ["0x" + other.hex()], height)
    assert beside.storageProof[0].proof == first

    for proof in (contract, mine, empty, nobody, near, beside):
        proofs.check(proof, root_of_state)
        assert not any(proofs.holds(changed, root_of_state) for changed in proofs.tampered(proof))
        assert not proofs.holds(proof, keccak(root_of_state))


def bumps_of(address):
    return int.from_bytes(keccak(encode(["address", "uint256"], [address, 1])), "big")


def proofs_of_the_past():
    who = s.bob.address
    bump = s.counter.functions.bump(ZERO_WORD)._encode_transaction_data()
    fees = {"maxFeePerGas": 4 * w3.eth.gas_price + 2 * 10**9, "maxPriorityFeePerGas": 10**9}
    nonce, value = w3.eth.get_transaction_count(who), s.counter.functions.value().call()
    left = {}

    def bumped():
        nonlocal nonce, value
        tx = {"to": s.counter.address, "data": bump, "gas": 100_000, "nonce": nonce, **fees}
        receipt = done(w3.eth.send_raw_transaction(signed(s.bob, {"chainId": 31337, **tx})))
        nonce, value = nonce + 1, value + 1
        left[receipt.blockNumber] = nonce, value

    def refusal(height):
        try:
            w3.eth.get_proof(who, [], height)
        except Web3RPCError as error:
            return error.rpc_response["error"]["message"]

    # More heights than lie in memory; then, as only checkpoints take old ones away, until the first of them is gone.
    while len(left) < 150:
        bumped()
    oldest = min(left)
    while WINDOW and refusal(oldest) is None:
        bumped()
    tip = w3.eth.block_number
    lowest = tip - WINDOW if WINDOW else oldest
    slots = ["0x" + key.to_bytes(32, "big").hex() for key in (0, bumps_of(who), 0x99)]
    for height, (nonce, value) in left.items():
        if height < lowest or (height != lowest and height % 7):
            continue
        root_of_state = w3.eth.get_block(height).stateRoot
        contract = w3.eth.get_proof(s.counter.address, slots, height)
        account = w3.eth.get_proof(who, [], height)
        nobody = w3.eth.get_proof(Account.create().address, slots[:1], height)
        for proof in (contract, account, nobody):
            proofs.check(proof, root_of_state)
        assert int.from_bytes(contract.storageProof[0].value, "big") == value
        assert int.from_bytes(contract.storageProof[2].value, "big") == 0
        assert account.nonce == nonce
    for height in (0, 1, oldest) if WINDOW else ():
        words = refusal(height)
        begin, named = words.rsplit(" ", 1)
        assert begin == f"no proof of the state at height {height}: proofs go back to height"
        assert oldest < int(named) <= lowest, words


def pool_refusals():
    account = funded(1)
    price = 4 * w3.eth.gas_price + 10**10
    base = {
        "type": 2,
        "chainId": 31337,
        "to": s.me.address,
        "gas": 21_000,
        "maxFeePerGas": price,
        "maxPriorityFeePerGas": 10**9,
    }

    def raw(nonce, value, **more):
        return signed(account, {**base, "nonce": nonce, "value": value, **more})

    def refuse(words, *args, **more):
        refused(Web3RPCError, lambda: w3.eth.send_raw_transaction(raw(*args, **more)), words)

    last = w3.eth.send_raw_transaction(raw(2, 3))
    w3.eth.send_raw_transaction(raw(1, 2))
    refuse("replacement transaction underpriced", 1, 5)
    refuse("already imported" if on_anvil else "already known", 1, 2)
    better = w3.eth.send_raw_transaction(
        raw(1, 4, maxFeePerGas=2 * price, maxPriorityFeePerGas=2 * 10**9)
    )
    first = w3.eth.send_raw_transaction(raw(0, 1))
    for sent in (first, better, last):
        done(sent)
    assert w3.eth.get_transaction_count(account.address) == 3
    refuse("nonce too low", 0, 9)
    refuse("insufficient funds", 3, 2 * ETHER)
    refuse("intrinsic gas too low", 3, 1, gas=20_000)


def unlocked_accounts():
    assert len(w3.eth.accounts) >= 10
    account = w3.eth.accounts[9]
    to = Account.create().address
    done(w3.eth.send_transaction({"from": account, "to": to, "value": 5}))
    assert w3.eth.get_balance(to) == 5
    signature = w3.eth.sign(account, text="hello")
    assert Account.recover_message(encode_defunct(text="hello"), signature=signature) == account
    asked = w3.manager.request_blocking("personal_sign", ["0x" + b"hello".hex(), account])
    assert Account.recover_message(encode_defunct(text="hello"), signature=asked) == account
    typed = {
        "domain": {"name": "Test", "chainId": 31337},
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "chainId", "type": "uint256"},
            ],
            "Note": [{"name": "text", "type": "string"}],
        },
        "primaryType": "Note",
        "message": {"text": "x"},
    }
    note = w3.manager.request_blocking("eth_signTypedData_v4", [account, typed])
    assert Account.recover_message(encode_typed_data(full_message=typed), signature=note) == account


def multicall3_and_create2():
    abi = [
        {
            "type": "function",
            "name": "aggregate3",
            "stateMutability": "payable",
            "inputs": [
                {
                    "name": "calls",
                    "type": "tuple[]",
                    "components": [
                        {"name": "target", "type": "address"},
                        {"name": "allowFailure", "type": "bool"},
                        {"name": "callData", "type": "bytes"},
                    ],
                }
            ],
            "outputs": [
                {
                    "name": "",
                    "type": "tuple[]",
                    "components": [
                        {"name": "success", "type": "bool"},
                        {"name": "data", "type": "bytes"},
                    ],
                }
            ],
        }
    ]
    calls = [s.token.functions.symbol(), s.token.functions.transfer(ZERO, 1)]
    many = w3.eth.contract(address=MULTICALL3, abi=abi)
    answers = many.functions.aggregate3(
        [(s.token.address, True, one._encode_transaction_data()) for one in calls]
    ).call()
    assert [success for success, _ in answers] == [True, False]
    abi, code = artifact("Counter")
    code = bytes.fromhex(code[2:]) + (5).to_bytes(32, "big")
    salt = secrets.token_bytes(32)
    send(s.me, {"to": DEPLOYER2, "data": salt + code})
    made = w3.eth.contract(address=create2(DEPLOYER2, salt, code), abi=abi)
    assert made.functions.value().call() == 5


CASES = [
    chain_accounts_and_node,
    every_type_of_transaction,
    openzeppelin_erc20_and_erc721,
    uniswap_v2,
    uniswap_v3,
    aave_v3,
    market_of_bench,
    reverts_decode,
    estimates_access_lists_and_fees,
    logs_by_query_and_filter,
    subscriptions_over_websocket,
    proofs_of_present_and_absent,
    proofs_of_the_past,
    pool_refusals,
    unlocked_accounts,
    multicall3_and_create2,
]


def main():
    try:
        s.me, s.alice, s.bob = funded(20), funded(), funded()
    except Exception:
        traceback.print_exc(file=sys.stdout)
        print("web3py: 0 passed, 1 failed")
        return 1
    return cases.run("web3py", CASES)


if __name__ == "__main__":
    sys.exit(main())
