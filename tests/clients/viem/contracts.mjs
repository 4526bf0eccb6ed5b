// viem: contracts that people use, and how their refusals decode.
import assert from "node:assert/strict";
import {
  concat,
  decodeEventLog,
  encodeAbiParameters,
  encodeDeployData,
  erc20Abi,
  getContract,
  getContractAddress,
  getCreate2Address,
  keccak256,
  maxUint256,
  parseEther,
  parseEventLogs,
  zeroAddress,
  zeroHash,
} from "viem";
import { generatePrivateKey } from "viem/accounts";
import { artifact, deployMarket } from "../lib/artifacts.mjs";
import { check, deployer2, plenty, root, swapOut } from "../lib/check.mjs";
import {
  owner,
  alice,
  bob,
  token,
  me,
  node,
  done,
  deploy,
  write,
  read,
  deployer,
  revert,
  counter,
} from "./setup.mjs";

check("opcodes of Cancun and Osaka", async () => {
  const { result } = await node.simulateContract({
    ...counter,
    functionName: "opcodes",
    args: [1n],
  });
  assert.deepEqual(result, [42n, 42n, 255n]);
});

check("OpenZeppelin ERC-20 with permit", async () => {
  assert.deepEqual(
    await Promise.all(
      ["name", "symbol", "decimals", "totalSupply"].map((name) => read(token, name)),
    ),
    ["Gold", "GLD", 18, parseEther("1000")],
  );
  const a = alice.account.address;
  const { logs } = await write(owner, token, "transfer", [a, 7n]);
  const event = decodeEventLog({ abi: token.abi, ...logs[0] });
  assert.deepEqual([event.eventName, event.args], ["Transfer", { from: me(), to: a, value: 7n }]);
  const domain = { name: "Gold", version: "1", chainId: 31337, verifyingContract: token.address };
  const types = {
    Permit: [
      "owner:address",
      "spender:address",
      "value:uint256",
      "nonce:uint256",
      "deadline:uint256",
    ].map((field) => {
      const [name, type] = field.split(":");
      return { name, type };
    }),
  };
  const message = { owner: a, spender: me(), value: 5n, nonce: 0n, deadline: maxUint256 };
  const signature = await alice.signTypedData({ domain, types, primaryType: "Permit", message });
  const [r, s, v] = [
    signature.slice(0, 66),
    `0x${signature.slice(66, 130)}`,
    Number(`0x${signature.slice(130)}`),
  ];
  await write(owner, token, "permit", [a, me(), 5n, maxUint256, v, r, s]);
  await write(owner, token, "transferFrom", [a, me(), 5n]);
  assert.equal(await read(token, "balanceOf", [a]), 2n);
  const poor = node.simulateContract({
    ...token,
    functionName: "transfer",
    args: [me(), 100n],
    account: alice.account,
  });
  assert.deepEqual((await revert(poor)).slice(0, 2), ["ERC20InsufficientBalance", [a, 2n, 100n]]);
});

check("OpenZeppelin ERC-721", async () => {
  const nft = await deploy(owner, "Collectible");
  const a = alice.account.address;
  await write(owner, nft, "mint", [a, "ipfs://one"]);
  assert.equal(await read(nft, "tokenURI", [1n]), "ipfs://one");
  await write(alice, nft, "safeTransferFrom", [a, me(), 1n]);
  assert.equal(await read(nft, "ownerOf", [1n]), me());
  assert.deepEqual((await revert(read(nft, "ownerOf", [9n]))).slice(0, 2), [
    "ERC721NonexistentToken",
    [9n],
  ]);
  const refused = node.simulateContract({
    ...nft,
    functionName: "safeTransferFrom",
    args: [me(), token.address, 1n],
    account: me(),
  });
  assert.deepEqual((await revert(refused)).slice(0, 2), ["ERC721InvalidReceiver", [token.address]]);
});

check("Uniswap V2: liquidity, swaps, exact reserves", async () => {
  const weth = await deploy(owner, "WETH9");
  const factory = await deploy(owner, "UniswapV2Factory", [me()]);
  const router = await deploy(owner, "UniswapV2Router02", [factory.address, weth.address]);
  const deadline = (await node.getBlock()).timestamp + 86_400n;
  const amounts = [parseEther("100"), parseEther("2")];
  await write(owner, token, "approve", [router.address, maxUint256]);
  const added = await write(
    owner,
    router,
    "addLiquidityETH",
    [token.address, amounts[0], 0n, 0n, me(), deadline],
    { value: amounts[1], gas: 2n * plenty },
  );
  const address = await read(factory, "getPair", [token.address, weth.address]);
  const { abi, bytecode } = artifact("UniswapV2Pair");
  const pair = { address, abi };
  const first = BigInt(token.address) < BigInt(weth.address);
  const salt = keccak256(
    concat(first ? [token.address, weth.address] : [weth.address, token.address]),
  );
  assert.equal(
    getCreate2Address({ from: factory.address, salt, bytecode }),
    address,
    "init code hash",
  );
  assert.equal(await read(pair, "balanceOf", [me()]), root(amounts[0] * amounts[1]) - 1000n);
  assert(added.logs.some((log) => log.address.toLowerCase() === address.toLowerCase()));
  const reserves = async () => {
    const [a, b] = await read(pair, "getReserves");
    return first ? [a, b] : [b, a];
  };
  assert.deepEqual(await reserves(), amounts);

  const input = parseEther("0.1");
  const out = swapOut(input, amounts[1], amounts[0]);
  const path = [weth.address, token.address];
  assert.deepEqual(await read(router, "getAmountsOut", [input, path]), [input, out]);
  const held = await read(token, "balanceOf", [me()]);
  await write(owner, router, "swapExactETHForTokens", [out, path, me(), deadline], {
    value: input,
    gas: plenty,
  });
  assert.equal(await read(token, "balanceOf", [me()]), held + out);
  assert.deepEqual(await reserves(), [amounts[0] - out, amounts[1] + input]);
  const greedy = node.simulateContract({
    ...router,
    functionName: "swapExactETHForTokens",
    args: [out, path, me(), deadline],
    value: input,
    account: owner.account,
  });
  assert.equal((await revert(greedy))[2], "UniswapV2Router: INSUFFICIENT_OUTPUT_AMOUNT");

  const shares = await read(pair, "balanceOf", [me()]);
  await write(owner, pair, "approve", [router.address, maxUint256]);
  const supply = await read(pair, "totalSupply");
  const now = await reserves();
  const removed = await write(
    owner,
    router,
    "removeLiquidity",
    [token.address, weth.address, shares, 0n, 0n, me(), deadline],
    { gas: plenty },
  );
  assert(removed.logs.length > 3);
  assert.deepEqual(
    await reserves(),
    now.map((held) => held - (held * shares) / supply),
  );
});

check("Uniswap V3 core: pool, liquidity, swap", async () => {
  const other = await deploy(owner, "Token", ["Silver", "SLV", 18, parseEther("1000")]);
  const factory = await deploy(owner, "UniswapV3Factory");
  const trader = await deploy(owner, "Trader");
  await write(owner, factory, "createPool", [token.address, other.address, 3000], {
    gas: 3n * plenty,
  });
  const address = await read(factory, "getPool", [token.address, other.address, 3000]);
  const { abi, bytecode } = artifact("UniswapV3Pool");
  const pool = { address, abi };
  const [token0, token1] =
    BigInt(token.address) < BigInt(other.address) ? [token, other] : [other, token];
  const salt = keccak256(
    encodeAbiParameters(
      [{ type: "address" }, { type: "address" }, { type: "uint24" }],
      [token0.address, token1.address, 3000],
    ),
  );
  assert.equal(getCreate2Address({ from: factory.address, salt, bytecode }), address);
  await write(owner, pool, "initialize", [2n ** 96n]);
  for (const each of [token0, token1])
    await write(owner, each, "approve", [trader.address, maxUint256]);
  const amount = parseEther("10");
  await write(owner, trader, "mint", [address, -887220, 887220, amount], { gas: plenty });
  assert.equal(await read(pool, "liquidity"), amount);

  const input = parseEther("1");
  const limit = 4295128740n;
  const before = await read(token1, "balanceOf", [me()]);
  const { logs } = await write(owner, trader, "swap", [address, true, input, limit], {
    gas: plenty,
  });
  const [swap] = parseEventLogs({ abi, logs, eventName: "Swap" });
  // Between ticks: price' = L * price / (L + in * price), out = L * (price - price').
  const net = (input * 997_000n) / 1_000_000n;
  const up = (a, b) => (a + b - 1n) / b;
  const price = up((amount << 96n) * 2n ** 96n, (amount << 96n) + net * 2n ** 96n);
  assert.equal(swap.args.sqrtPriceX96, price);
  const out = (amount * (2n ** 96n - price)) >> 96n;
  assert.deepEqual([swap.args.amount0, swap.args.amount1], [input, -out]);
  assert.equal(await read(token1, "balanceOf", [me()]), before + out);
  assert.equal((await read(pool, "slot0"))[0], price);
  const wrong = node.simulateContract({
    ...trader,
    functionName: "swap",
    args: [address, true, 1n, 1n],
    account: me(),
  });
  assert.equal((await revert(wrong))[2], "SPL");
});

check(
  "Aave V3: supply, borrow, refusals, liquidation, repay",
  async () => {
    const market = await deployMarket("aave", deployer, me());
    const { pool, collateral, cash } = market;
    const gas = { gas: plenty };
    const [a, b] = [alice.account.address, bob.account.address];
    const coll = parseEther("10"); // worth 20,000
    const lent = 50_000_000_000n; // 50,000 of six decimals
    for (const [who, asset, amount] of [
      [alice, collateral, coll],
      [bob, cash, 2n * lent],
    ]) {
      await write(owner, asset, "mint", [who.account.address, amount]);
      await write(who, asset, "approve", [pool.address, maxUint256]);
    }
    await write(bob, pool, "supply", [cash.address, lent, b, 0], gas);
    await write(alice, pool, "supply", [collateral.address, coll, a, 0], gas);
    const account = async () => {
      const [collateralValue, debt, room, threshold, ltv, health] = await read(
        pool,
        "getUserAccountData",
        [a],
      );
      return { collateralValue, debt, room, threshold, ltv, health };
    };
    assert.deepEqual(await account(), {
      collateralValue: 2_000_000_000_000n,
      debt: 0n,
      room: 1_500_000_000_000n,
      threshold: 8000n,
      ltv: 7500n,
      health: maxUint256,
    });
    const borrow = (amount) => [cash.address, amount, 2n, 0, a];
    const over = node.simulateContract({
      ...pool,
      functionName: "borrow",
      args: borrow(15_000_000_001n),
      account: alice.account,
    });
    assert.equal((await revert(over))[2], "36"); // COLLATERAL_CANNOT_COVER_NEW_BORROW
    await write(alice, pool, "borrow", borrow(14_000_000_000n), gas);
    assert.equal(await read(cash, "balanceOf", [a]), 14_000_000_000n);
    const { variableDebtTokenAddress, aTokenAddress } = await read(pool, "getReserveData", [
      cash.address,
    ]);
    const debtOf = () =>
      read({ address: variableDebtTokenAddress, abi: erc20Abi }, "balanceOf", [a]);
    const debt = await debtOf();
    assert(debt >= 14_000_000_000n && debt < 14_001_000_000n, `${debt}`);
    assert((await read({ address: aTokenAddress, abi: erc20Abi }, "balanceOf", [b])) >= lent);
    const leave = node.simulateContract({
      ...pool,
      functionName: "withdraw",
      args: [collateral.address, parseEther("5"), a],
      account: alice.account,
    });
    assert.equal((await revert(leave))[2], "35"); // HEALTH_FACTOR_LOWER_THAN_LIQUIDATION_THRESHOLD
    const liquidate = [collateral.address, cash.address, a, 5_000_000_000n, false];
    const early = node.simulateContract({
      ...pool,
      functionName: "liquidationCall",
      args: liquidate,
      account: bob.account,
    });
    assert.equal((await revert(early))[2], "45"); // HEALTH_FACTOR_NOT_BELOW_THRESHOLD

    const low = await deploy(owner, "MockAggregator", [160_000_000_000n]);
    await write(owner, market.oracle, "setAssetSources", [[collateral.address], [low.address]]);
    assert((await account()).health < 10n ** 18n);
    const { logs } = await write(bob, pool, "liquidationCall", liquidate, gas);
    const [event] = parseEventLogs({ abi: pool.abi, logs, eventName: "LiquidationCall" });
    assert.equal(event.args.debtToCover, 5_000_000_000n);
    // 5,000 / 1,600 with a bonus of five per cent.
    assert.equal(event.args.liquidatedCollateralAmount, 3_281_250_000_000_000_000n);
    assert.equal(await read(collateral, "balanceOf", [b]), 3_281_250_000_000_000_000n);

    await write(owner, cash, "mint", [a, lent]);
    await write(alice, cash, "approve", [pool.address, maxUint256]);
    await write(alice, pool, "repay", [cash.address, maxUint256, 2n, a], gas);
    assert.equal(await debtOf(), 0n);
    await write(alice, pool, "withdraw", [collateral.address, maxUint256, a], gas);
    assert.equal(await read(collateral, "balanceOf", [a]), coll - 3_281_250_000_000_000_000n);
  },
  { limitMs: 120_000 },
);

check("the lending market of bench/: deposit, borrow, refusals, liquidation, repay", async () => {
  const { lending, oracle, collateral, cash } = await deployMarket("own", deployer, me());
  const gas = { gas: plenty };
  const b = bob.account.address;
  await write(owner, cash, "mint", [b, 10n ** 11n]);
  await write(bob, cash, "approve", [lending.address, maxUint256]);
  await write(bob, lending, "deposit", [cash.address, 9n * 10n ** 10n], gas);
  await write(owner, lending, "deposit", [collateral.address, parseEther("10")], gas);
  const over = node.simulateContract({
    ...lending,
    functionName: "borrow",
    args: [cash.address, 17n * 10n ** 9n],
    account: me(),
  });
  assert.deepEqual((await revert(over)).slice(0, 2), ["Unhealthy", [parseEther("16") / 17n]]);
  await write(owner, lending, "borrow", [cash.address, 15n * 10n ** 9n], gas);
  assert.equal(await read(cash, "balanceOf", [me()]), 215n * 10n ** 9n);
  const seize = [cash.address, collateral.address, me(), 10n ** 9n];
  const early = node.simulateContract({
    ...lending,
    functionName: "liquidate",
    args: seize,
    account: b,
  });
  assert.equal((await revert(early))[0], "Healthy");
  await write(owner, oracle, "setPrice", [collateral.address, 180_000_000_000n]);
  const { logs } = await write(bob, lending, "liquidate", seize, gas);
  const [event] = parseEventLogs({ abi: lending.abi, logs, eventName: "Liquidate" });
  assert.deepEqual(
    [event.args.repaid, event.args.seized],
    [10n ** 9n, (parseEther("1000") * 105n) / 180_000n],
  );
  await write(owner, lending, "repay", [cash.address, maxUint256], gas);
  assert.equal(await read(lending, "debtOf", [cash.address, me()]), 0n);
  await write(owner, lending, "withdraw", [collateral.address, maxUint256], gas);
});

check("reverts decode", async () => {
  const faults = await deploy(owner, "Faults");
  const call = (functionName, args = []) =>
    revert(node.simulateContract({ ...faults, functionName, args, account: me() }));
  assert.deepEqual((await call("custom", [7n])).slice(0, 2), ["Refused", [me(), 7n]]);
  assert.equal((await call("reason", ["no luck"]))[2], "no luck");
  assert.equal((await call("divide", [0n]))[1][0], 0x12n);
  assert.equal((await call("index", [5n]))[1][0], 0x32n);
  assert.match((await call("silent"))[0], /^execution reverted$/);
  const estimate = node.estimateContractGas({
    ...faults,
    functionName: "custom",
    args: [3n],
    account: me(),
  });
  assert.deepEqual((await revert(estimate)).slice(0, 2), ["Refused", [me(), 3n]]);
  // With its gas given, the transaction is sent and fails in a block.
  const hash = await owner.writeContract({
    ...faults,
    functionName: "custom",
    args: [9n],
    gas: 100_000n,
  });
  const receipt = await node.waitForTransactionReceipt({ hash });
  assert.equal(receipt.status, "reverted");
  assert.equal(receipt.logs.length, 0);
  const spin = await owner.writeContract({ ...faults, functionName: "spin", gas: 100_000n });
  assert.equal((await node.waitForTransactionReceipt({ hash: spin })).gasUsed, 100_000n);
});

check("Multicall3 and the CREATE2 deployer", async () => {
  const results = await node.multicall({
    contracts: [
      { ...token, functionName: "symbol" },
      { ...counter, functionName: "value" },
      { ...token, functionName: "transfer", args: [zeroAddress, 1n] },
    ],
  });
  assert.deepEqual(
    results.map((r) => r.status),
    ["success", "success", "failure"],
  );
  assert.equal(results[0].result, "GLD");
  const { abi, bytecode } = artifact("Counter");
  const code = encodeDeployData({ abi, bytecode, args: [5n] });
  const salt = generatePrivateKey();
  await done(await owner.sendTransaction({ to: deployer2, data: concat([salt, code]) }));
  const address = getContractAddress({ opcode: "CREATE2", from: deployer2, salt, bytecode: code });
  assert.equal(await read({ address, abi }, "value"), 5n);
  const proxy = getContract({ address, abi, client: { public: node, wallet: owner } });
  await done(await proxy.write.bump([zeroHash]));
  assert.equal(await proxy.read.value(), 6n);
});
