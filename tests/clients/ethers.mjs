// ethers against a node. Each run uses fresh accounts, so it can be repeated on the same chain.
import assert from "node:assert/strict";
import {
  AbiCoder,
  Contract,
  ContractFactory,
  HDNodeWallet,
  Interface,
  JsonRpcProvider,
  Mnemonic,
  NonceManager,
  Wallet,
  WebSocketProvider,
  ZeroAddress,
  ZeroHash,
  concat,
  getCreate2Address,
  hexlify,
  id,
  isError,
  keccak256,
  parseEther,
  parseUnits,
  randomBytes,
  toBeHex,
  verifyMessage,
  verifyTypedData,
  zeroPadValue,
  MaxUint256,
} from "ethers";
import { artifact, deployMarket } from "./lib/artifacts.mjs";
import {
  awaited,
  check,
  deployer2,
  failure,
  mnemonic,
  multicall3,
  plenty,
  root,
  run,
  swapOut,
  url,
  wsUrl,
} from "./lib/check.mjs";
import { checkProof, headerHash } from "./lib/proof.mjs";

const node = new JsonRpcProvider(url, 31337, {
  staticNetwork: true,
  cacheTimeout: -1,
  polling: true,
});
node.pollingInterval = 50;
const dev = HDNodeWallet.fromMnemonic(Mnemonic.fromPhrase(mnemonic), "m/44'/60'/0'/0/1").connect(
  node,
);

const done = async (sent) => {
  const receipt = await (await sent).wait(1, 30_000);
  assert.equal(receipt.status, 1);
  return receipt;
};
const funded = async (ether = 5) => {
  const made = new Wallet(hexlify(randomBytes(32)), node);
  await done(dev.sendTransaction({ to: made.address, value: parseEther(`${ether}`) }));
  return made;
};
const deploy = async (from, name, ...args) => {
  const { abi, bytecode } = typeof name === "string" ? artifact(name) : name;
  const made = await new ContractFactory(abi, bytecode, from).deploy(...args);
  await made.waitForDeployment();
  assert.equal(
    (await made.deploymentTransaction().wait()).contractAddress,
    await made.getAddress(),
  );
  return made;
};
const at = ({ address, abi }, from = me) => new Contract(address, abi, from);
const deployer = {
  deploy: async (code, args) => (await deploy(me, code, ...args)).getAddress(),
  call: async (contract, name, args) =>
    done(at(contract)[name](...args, { gasLimit: 15_000_000n })),
  read: async (contract, name, args) => at(contract)[name](...args),
};
/** Name and arguments of the error that a call was reverted with. */
const revert = async (promise) => {
  const error = await failure(promise);
  assert(isError(error, "CALL_EXCEPTION"), `${error.code}: ${error.message}`);
  return [error.revert?.name ?? null, [...(error.revert?.args ?? [])], error.reason];
};

let me;
let alice;
let bob;
let token;
let counter;

check("chain, accounts and node", async () => {
  const network = await new JsonRpcProvider(url).getNetwork();
  assert.equal(network.chainId, 31337n);
  const height = await node.getBlockNumber();
  const block = await node.getBlock(height);
  assert.equal(block.number, height);
  for (const tag of ["earliest", "safe", "finalized", "latest", "pending"])
    assert(await node.getBlock(tag));
  assert((await node.getBalance(dev.address)) > parseEther("100"));
  assert.notEqual(await node.getCode(deployer2), "0x");
  assert.notEqual(await node.getCode(multicall3), "0x");
  assert.equal(await node.getCode(ZeroAddress), "0x");
});

check("EIP-1559, legacy, EIP-2930 and EIP-7702 transactions", async () => {
  const to = Wallet.createRandom().address;
  const before = await node.getBalance(me.address);
  const receipt = await done(me.sendTransaction({ to, value: 12345n }));
  assert.deepEqual([receipt.type, receipt.gasUsed], [2, 21000n]);
  assert.equal(await node.getBalance(me.address), before - 12345n - receipt.fee);
  assert.equal(await node.getBalance(to, receipt.blockNumber), 12345n);
  const block = await receipt.getBlock();
  assert.equal(block.transactions[receipt.index], receipt.hash);
  assert.equal((await block.getTransaction(receipt.hash)).hash, receipt.hash);

  const address = await counter.getAddress();
  const { gasPrice } = await node.getFeeData();
  const legacy = await done(counter.bump(ZeroHash, { type: 0, gasPrice: gasPrice * 2n }));
  assert.equal(legacy.type, 0);
  const accessList = [{ address, storageKeys: [ZeroHash] }];
  const listed = await done(
    counter.bump(ZeroHash, { type: 1, gasPrice: gasPrice * 2n, accessList }),
  );
  assert.equal(listed.type, 1);
  assert.deepEqual((await listed.getTransaction()).accessList, accessList);

  const batch = await deploy(me, "Batch");
  const other = Wallet.createRandom(node);
  const authorization = await other.authorize({ address: await batch.getAddress() });
  const data = counter.interface.encodeFunctionData("bump", [ZeroHash]);
  const delegated = await done(
    me.sendTransaction({
      type: 4,
      to: other.address,
      authorizationList: [authorization],
      gasLimit: 300_000n,
      data: batch.interface.encodeFunctionData("execute", [
        [
          [address, 0, data],
          [address, 0, data],
        ],
      ]),
    }),
  );
  assert.equal(delegated.type, 4);
  assert.equal(delegated.logs.length, 3);
  assert.equal(await node.getCode(other.address), concat(["0xef0100", await batch.getAddress()]));
  assert.equal((await delegated.getTransaction()).authorizationList.length, 1);
  assert.equal(await counter.bumps(other.address), 2n);
  assert.equal(await counter.value(), 14n);
});

check("OpenZeppelin ERC-20 and ERC-721", async () => {
  const here = await token.getAddress();
  assert.deepEqual(
    [await token.name(), await token.symbol(), await token.decimals()],
    ["Gold", "GLD", 18n],
  );
  const receipt = await done(token.transfer(alice.address, 7));
  const event = token.interface.parseLog(receipt.logs[0]);
  assert.deepEqual([event.name, [...event.args]], ["Transfer", [me.address, alice.address, 7n]]);
  const domain = { name: "Gold", version: "1", chainId: 31337, verifyingContract: here };
  const fields = {
    owner: "address",
    spender: "address",
    value: "uint256",
    nonce: "uint256",
    deadline: "uint256",
  };
  const types = { Permit: Object.entries(fields).map(([name, type]) => ({ name, type })) };
  const message = {
    owner: alice.address,
    spender: me.address,
    value: 5,
    nonce: 0,
    deadline: MaxUint256,
  };
  const signature = await alice.signTypedData(domain, types, message);
  const [r, s, v] = [
    signature.slice(0, 66),
    `0x${signature.slice(66, 130)}`,
    `0x${signature.slice(130)}`,
  ];
  await done(token.permit(alice.address, me.address, 5, MaxUint256, v, r, s));
  await done(token.transferFrom(alice.address, me.address, 5));
  assert.equal(await token.balanceOf(alice.address), 2n);
  assert.deepEqual(
    (await revert(token.connect(alice).transfer.staticCall(me.address, 100))).slice(0, 2),
    ["ERC20InsufficientBalance", [alice.address, 2n, 100n]],
  );

  const nft = await deploy(me, "Collectible");
  await done(nft.mint(alice.address, "ipfs://one"));
  assert.equal(await nft.tokenURI(1), "ipfs://one");
  await done(
    nft.connect(alice)["safeTransferFrom(address,address,uint256)"](alice.address, me.address, 1),
  );
  assert.equal(await nft.ownerOf(1), me.address);
  assert.deepEqual((await revert(nft.ownerOf(9))).slice(0, 2), ["ERC721NonexistentToken", [9n]]);
  const refused = nft["safeTransferFrom(address,address,uint256)"].staticCall(me.address, here, 1);
  assert.deepEqual((await revert(refused)).slice(0, 2), ["ERC721InvalidReceiver", [here]]);
});

check("Uniswap V2: liquidity, swap, exact reserves", async () => {
  const weth = await deploy(me, "WETH9");
  const factory = await deploy(me, "UniswapV2Factory", me.address);
  const [a, b] = [await token.getAddress(), await weth.getAddress()];
  const router = await deploy(me, "UniswapV2Router02", await factory.getAddress(), b);
  const deadline = (await node.getBlock("latest")).timestamp + 86_400;
  const amounts = [parseEther("100"), parseEther("2")];
  await done(token.approve(await router.getAddress(), MaxUint256));
  const more = { value: amounts[1], gasLimit: 2n * plenty };
  await done(router.addLiquidityETH(a, amounts[0], 0, 0, me.address, deadline, more));
  const { abi, bytecode } = artifact("UniswapV2Pair");
  const pair = new Contract(await factory.getPair(a, b), abi, me);
  const first = BigInt(a) < BigInt(b);
  const salt = keccak256(concat(first ? [a, b] : [b, a]));
  assert.equal(
    getCreate2Address(await factory.getAddress(), salt, keccak256(bytecode)),
    pair.target,
  );
  assert.equal(await pair.balanceOf(me.address), root(amounts[0] * amounts[1]) - 1000n);
  const reserves = async () => {
    const [low, high] = await pair.getReserves();
    return first ? [low, high] : [high, low];
  };
  const input = parseEther("0.1");
  const out = swapOut(input, amounts[1], amounts[0]);
  assert.deepEqual([...(await router.getAmountsOut(input, [b, a]))], [input, out]);
  const given = { value: input, gasLimit: plenty };
  const { logs } = await done(
    router.swapExactETHForTokens(out, [b, a], me.address, deadline, given),
  );
  const swap = logs.map((log) => pair.interface.parseLog(log)).find((log) => log?.name === "Swap");
  assert.equal(swap.args.to, me.address);
  assert.deepEqual(await reserves(), [amounts[0] - out, amounts[1] + input]);
  const greedy = router.swapExactETHForTokens.staticCall(out, [b, a], me.address, deadline, {
    value: input,
  });
  assert.equal((await revert(greedy))[2], "UniswapV2Router: INSUFFICIENT_OUTPUT_AMOUNT");
});

check("Uniswap V3 core: pool, liquidity, swap", async () => {
  const other = await deploy(me, "Token", "Silver", "SLV", 18, parseEther("1000"));
  const factory = await deploy(me, "UniswapV3Factory");
  const trader = await deploy(me, "Trader");
  const addresses = [await token.getAddress(), await other.getAddress()];
  await done(factory.createPool(...addresses, 3000, { gasLimit: 3n * plenty }));
  const sorted = addresses.toSorted((a, b) => (BigInt(a) < BigInt(b) ? -1 : 1));
  const { abi, bytecode } = artifact("UniswapV3Pool");
  const pool = new Contract(await factory.getPool(...addresses, 3000), abi, me);
  const salt = keccak256(
    AbiCoder.defaultAbiCoder().encode(["address", "address", "uint24"], [...sorted, 3000]),
  );
  assert.equal(
    getCreate2Address(await factory.getAddress(), salt, keccak256(bytecode)),
    pool.target,
  );
  await done(pool.initialize(2n ** 96n));
  for (const each of [token, other])
    await done(each.approve(await trader.getAddress(), MaxUint256));
  const amount = parseEther("10");
  await done(trader.mint(pool.target, -887220, 887220, amount, { gasLimit: plenty }));
  assert.equal(await pool.liquidity(), amount);
  const input = parseEther("1");
  const { logs } = await done(
    trader.swap(pool.target, true, input, 4295128740n, { gasLimit: plenty }),
  );
  const swap = logs.map((log) => pool.interface.parseLog(log)).find((log) => log?.name === "Swap");
  const net = (input * 997_000n) / 1_000_000n;
  const below = amount + net;
  const price = (amount * 2n ** 96n + below - 1n) / below;
  assert.equal(swap.args.sqrtPriceX96, price);
  assert.deepEqual(
    [swap.args.amount0, swap.args.amount1],
    [input, -((amount * (2n ** 96n - price)) >> 96n)],
  );
  assert.equal((await pool.slot0()).sqrtPriceX96, price);
  assert.equal((await revert(trader.swap.staticCall(pool.target, true, 1, 1)))[2], "SPL");
});

check(
  "Aave V3: supply, borrow, refusals, liquidation, repay",
  async () => {
    const market = await deployMarket("aave", deployer, me.address);
    const [pool, collateral, cash] = [at(market.pool), at(market.collateral), at(market.cash)];
    const gas = { gasLimit: plenty };
    for (const [who, asset, amount] of [
      [alice, collateral, parseEther("10")],
      [bob, cash, 10n ** 11n],
    ]) {
      await done(asset.mint(who.address, amount));
      await done(asset.connect(who).approve(pool.target, MaxUint256));
    }
    const [hers, his] = [pool.connect(alice), pool.connect(bob)];
    await done(his.supply(cash.target, 5n * 10n ** 10n, bob.address, 0, gas));
    await done(hers.supply(collateral.target, parseEther("10"), alice.address, 0, gas));
    assert.equal(
      (await pool.getUserAccountData(alice.address)).availableBorrowsBase,
      1_500_000_000_000n,
    );
    const refusal = async (promise) => (await revert(promise))[2];
    const borrow = (amount) => [cash.target, amount, 2, 0, alice.address];
    assert.equal(await refusal(hers.borrow.staticCall(...borrow(15_000_000_001n))), "36");
    await done(hers.borrow(...borrow(14_000_000_000n), gas));
    assert.equal(await cash.balanceOf(alice.address), 14_000_000_000n);
    assert.equal(
      await refusal(hers.withdraw.staticCall(collateral.target, parseEther("5"), alice.address)),
      "35",
    );
    const liquidate = [collateral.target, cash.target, alice.address, 5_000_000_000n, false];
    assert.equal(await refusal(his.liquidationCall.staticCall(...liquidate)), "45");
    const low = await deploy(me, "MockAggregator", 160_000_000_000n);
    await done(at(market.oracle).setAssetSources([collateral.target], [await low.getAddress()]));
    await done(his.liquidationCall(...liquidate, gas));
    assert.equal(await collateral.balanceOf(bob.address), 3_281_250_000_000_000_000n);
    await done(cash.mint(alice.address, 10n ** 11n));
    await done(cash.connect(alice).approve(pool.target, MaxUint256));
    await done(hers.repay(cash.target, MaxUint256, 2, alice.address, gas));
    assert.equal((await pool.getUserAccountData(alice.address)).totalDebtBase, 0n);
  },
  { limitMs: 120_000 },
);

check("the lending market of bench/: deposit, borrow, refusal, repay", async () => {
  const market = await deployMarket("own", deployer, me.address);
  const [lending, collateral, cash] = [at(market.lending), at(market.collateral), at(market.cash)];
  const gas = { gasLimit: plenty };
  await done(lending.deposit(cash.target, 10n ** 11n, gas));
  await done(lending.deposit(collateral.target, parseEther("10"), gas));
  const over = await revert(lending.borrow.staticCall(cash.target, 10n ** 11n));
  assert.equal(over[0], "Unhealthy");
  await done(lending.borrow(cash.target, 10n ** 10n, gas));
  assert.equal(await cash.balanceOf(me.address), 11n * 10n ** 10n);
  const { logs } = await done(lending.repay(cash.target, MaxUint256, gas));
  assert(logs.some((log) => lending.interface.parseLog(log)?.name === "Repay"));
  assert.equal(await lending.debtOf(cash.target, me.address), 0n);
});

check("reverts decode", async () => {
  const faults = await deploy(me, "Faults");
  const custom = await revert(faults.custom.staticCall(7));
  assert.deepEqual(custom.slice(0, 2), ["Refused", [me.address, 7n]]);
  assert.deepEqual(await revert(faults.reason.staticCall("no luck")), [
    "Error",
    ["no luck"],
    "no luck",
  ]);
  assert.deepEqual((await revert(faults.divide.staticCall(0))).slice(0, 2), ["Panic", [0x12]]);
  assert.deepEqual((await revert(faults.index(5))).slice(0, 2), ["Panic", [0x32]]);
  assert.equal((await revert(faults.silent()))[0], null);
  const estimate = await failure(faults.custom.estimateGas(3));
  assert.equal(estimate.code, "CALL_EXCEPTION");
  assert.deepEqual([...faults.interface.parseError(estimate.data).args], [me.address, 3n]);
  const sent = await faults.custom(9, { gasLimit: 100_000n });
  const error = await failure(sent.wait());
  assert(isError(error, "CALL_EXCEPTION"));
  assert.equal(error.receipt.status, 0);
});

check("gas estimates, access lists, fee history", async () => {
  const gas = await counter.bumpMany.estimateGas(20);
  const receipt = await done(counter.bumpMany(20, { gasLimit: gas }));
  assert(receipt.gasUsed <= gas);
  const request = await counter.bumpMany.populateTransaction(5);
  const { accessList } = await node.send("eth_createAccessList", [
    { from: me.address, to: request.to, data: request.data },
    "latest",
  ]);
  assert.equal(accessList[0].storageKeys.length, 2);
  await done(me.sendTransaction({ ...request, accessList, gasLimit: 2n * gas }));
  const history = await node.send("eth_feeHistory", ["0x2", "latest", [50]]);
  assert.equal(history.baseFeePerGas.length, 3);
  const fees = await node.getFeeData();
  assert(fees.maxFeePerGas > 0n && fees.gasPrice > 0n && fees.maxPriorityFeePerGas !== null);
  assert.equal(await node.getStorage(counter.target, 0), toBeHex(await counter.value(), 32));
  // A historical read.
  assert.equal(
    await counter.value({ blockTag: receipt.blockNumber }),
    (await counter.value()) - 5n,
  );
});

check("logs by query, by filter and by polling", async () => {
  const note = hexlify(randomBytes(32));
  const receipt = await done(counter.bump(note));
  const { blockNumber, blockHash } = receipt;
  const logs = await counter.queryFilter(
    counter.filters.Bumped(me.address),
    blockNumber,
    blockNumber,
  );
  assert.equal(logs.at(-1).args.note, note);
  assert.equal(logs.at(-1).transactionHash, receipt.hash);
  const topics = [id("Bumped(address,uint256,bytes32)"), [zeroPadValue(me.address, 32), ZeroHash]];
  assert.equal((await node.getLogs({ blockHash, address: counter.target, topics })).length, 1);
  assert.equal((await node.getLogs({ blockHash, topics: [ZeroHash] })).length, 0);
  const head = awaited("a block by polling");
  const log = awaited("an event by polling");
  await node.on("block", head.give);
  await counter.on("Bumped", (by, value, words) => log.give([by, words]));
  try {
    let come = false;
    const end = log.come().finally(() => {
      come = true;
    });
    while (!come) await done(counter.bump(note));
    assert.deepEqual(await end, [me.address, note]);
    assert((await head.come()) > 0);
  } finally {
    await counter.off("Bumped");
    await node.off("block");
  }
  const filter = await node.send("eth_newFilter", [{ address: counter.target }]);
  await done(counter.bump(note));
  const changes = [];
  const limit = Date.now() + 20_000;
  while (changes.length === 0 && Date.now() < limit)
    changes.push(...(await node.send("eth_getFilterChanges", [filter])));
  assert.equal(changes.at(-1).data, note);
  assert.equal(await node.send("eth_uninstallFilter", [filter]), true);
});

check("subscriptions over WebSocket", async () => {
  const ws = new WebSocketProvider(wsUrl, 31337, { staticNetwork: true });
  // What the provider asks by itself fails if it is destroyed meanwhile.
  const asked = { eth_subscribe: [], eth_unsubscribe: [] };
  const send = ws.send.bind(ws);
  ws.send = (method, params) => {
    const answer = send(method, params);
    asked[method]?.push(answer);
    return answer;
  };
  try {
    const log = awaited("a log by subscription");
    const head = awaited("a head by subscription");
    const pending = awaited("a pending hash by subscription");
    const live = new Contract(counter.target, counter.interface, ws);
    await live.on("Bumped", (by, value, note, event) => log.give(event.log));
    await ws.on("block", head.give);
    await ws.on("pending", pending.give);
    let come = false;
    const end = log.come().finally(() => {
      come = true;
    });
    while (!come) await done(counter.bump(hexlify(randomBytes(32))));
    const seen = await end;
    assert((await node.getTransactionReceipt(seen.transactionHash)).blockHash === seen.blockHash);
    assert(await node.getBlock(await head.come()));
    assert.match(await pending.come(), /^0x[0-9a-f]{64}$/);
    await live.removeAllListeners();
    await ws.removeAllListeners();
    do {
      assert.equal(await ws.send("eth_chainId", []), "0x7a69");
    } while (asked.eth_unsubscribe.length < asked.eth_subscribe.length);
    assert((await Promise.all(asked.eth_unsubscribe)).every((ended) => ended === true));
  } finally {
    await ws.destroy();
  }
});

check("proofs, block hash and block receipts", async () => {
  const receipt = await done(counter.bump(ZeroHash));
  const block = await node.send("eth_getBlockByHash", [receipt.blockHash, false]);
  assert.equal(headerHash(block), receipt.blockHash);
  const slot = keccak256(
    AbiCoder.defaultAbiCoder().encode(["address", "uint256"], [me.address, 1]),
  );
  await checkProof(
    await node.send("eth_getProof", [counter.target, [ZeroHash, slot], block.number]),
    block.stateRoot,
  );
  await checkProof(
    await node.send("eth_getProof", [me.address, [], block.number]),
    block.stateRoot,
  );
  const receipts = await node.send("eth_getBlockReceipts", [block.number]);
  assert(receipts.some((one) => one.transactionHash === receipt.hash));
});

check("pool: gaps, replacement, refusals by name", async () => {
  const from = await funded(1);
  const price = (await node.getFeeData()).gasPrice * 4n + parseUnits("10", "gwei");
  const signed = (nonce, value, more = {}) =>
    from.signTransaction({
      type: 2,
      chainId: 31337,
      to: me.address,
      value,
      nonce,
      gasLimit: 21_000n,
      maxFeePerGas: price,
      maxPriorityFeePerGas: parseUnits("1", "gwei"),
      ...more,
    });
  const send = async (raw) => node.broadcastTransaction(await raw);
  const refusal = async (raw) => {
    const error = await failure(send(raw));
    return `${error.code} ${error.info?.error?.message ?? error.error?.message ?? error.message}`;
  };
  const third = await send(signed(2, 3));
  await send(signed(1, 2));
  assert.match(
    await refusal(signed(1, 5)),
    /^REPLACEMENT_UNDERPRICED .*replacement transaction underpriced/,
  );
  assert.match(await refusal(signed(1, 2)), /already known|already imported/);
  const better = await send(
    signed(1, 4, { maxFeePerGas: price * 2n, maxPriorityFeePerGas: parseUnits("2", "gwei") }),
  );
  const first = await send(signed(0, 1));
  for (const sent of [first, better, third]) await done(sent);
  assert.equal(await node.getTransactionCount(from.address), 3);
  assert.match(await refusal(signed(0, 9)), /^NONCE_EXPIRED .*nonce too low/);
  assert.match(await refusal(signed(3, parseEther("2"))), /^INSUFFICIENT_FUNDS /);
  assert.match(await refusal(signed(3, 1, { gasLimit: 20_000n })), /intrinsic gas too low/);
  const typed = (more) =>
    failure(from.sendTransaction({ to: me.address, value: 1, gasLimit: 21_000n, ...more }));
  assert.equal((await typed({ nonce: 0 })).code, "NONCE_EXPIRED");
  assert.equal((await typed({ value: parseEther("2") })).code, "INSUFFICIENT_FUNDS");
});

check("a burst through NonceManager", async () => {
  const manager = new NonceManager(await funded(1));
  const sent = await Promise.all(
    Array.from({ length: 16 }, () => manager.sendTransaction({ to: me.address, value: 1 })),
  );
  for (const one of sent) await done(one);
  assert.equal(await node.getTransactionCount(await manager.getAddress()), 16);
});

check("unlocked accounts", async () => {
  const accounts = await node.listAccounts();
  assert(accounts.length >= 10);
  const signer = await node.getSigner(2);
  const to = Wallet.createRandom().address;
  await done(signer.sendTransaction({ to, value: 5 }));
  assert.equal(await node.getBalance(to), 5n);
  assert.equal(verifyMessage("hello", await signer.signMessage("hello")), signer.address);
  const types = { Note: [{ name: "text", type: "string" }] };
  const domain = { name: "Test", chainId: 31337 };
  const signature = await signer.signTypedData(domain, types, { text: "x" });
  assert.equal(verifyTypedData(domain, types, { text: "x" }, signature), signer.address);
  assert.equal(verifyMessage("hello", await signer._legacySignMessage("hello")), signer.address);
});

check("Multicall3, the CREATE2 deployer and the newest opcodes", async () => {
  const many = new Contract(
    multicall3,
    new Interface([
      "function aggregate3((address, bool, bytes)[]) view returns ((bool success, bytes data)[])",
    ]),
    me,
  );
  const call = (contract, name, ...args) => [
    contract.target,
    true,
    contract.interface.encodeFunctionData(name, args),
  ];
  const answers = await many.aggregate3.staticCall([
    call(token, "symbol"),
    call(token, "transfer", ZeroAddress, 1),
  ]);
  assert.deepEqual(
    answers.map(([success]) => success),
    [true, false],
  );
  const { abi, bytecode } = artifact("Counter");
  const code = (await new ContractFactory(abi, bytecode).getDeployTransaction(5)).data;
  const salt = hexlify(randomBytes(32));
  await done(me.sendTransaction({ to: deployer2, data: concat([salt, code]) }));
  const made = new Contract(getCreate2Address(deployer2, salt, keccak256(code)), abi, node);
  assert.equal(await made.value(), 5n);
  assert.deepEqual([...(await counter.opcodes.staticCall(1))], [42n, 42n, 255n]);
});

await run("ethers", async () => {
  [me, alice, bob] = [await funded(20), await funded(), await funded()];
  token = await deploy(me, "Token", "Gold", "GLD", 18, parseEther("1000"));
  counter = await deploy(me, "Counter", 10);
});
