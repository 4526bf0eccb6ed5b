// Deploys the contracts on the chain at RPC_URL and checks them against the models.
//
//   RPC_URL=http://127.0.0.1:8545 node --test test.mjs
//
// Needs the accounts of the development mnemonic funded. SEED replays a random run. Time is stepped where
// the node knows how (evm_increaseTime); elsewhere the tests wait a few seconds.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test, before, after } from "node:test";
import { ContractFactory, HDNodeWallet, Interface, JsonRpcProvider, MaxUint256, Mnemonic } from "ethers";
import { BookModel, LendingModel, PairModel } from "./model.mjs";

const url = process.env.RPC_URL;
if (!url) throw new Error("RPC_URL is not set");

const provider = new JsonRpcProvider(url, undefined, { cacheTimeout: -1, batchMaxCount: 1 });
const mnemonic = Mnemonic.fromPhrase("test test test test test test test test test test test junk");
const wallets = Array.from({ length: 5 }, (_, i) =>
  HDNodeWallet.fromMnemonic(mnemonic, `m/44'/60'/0'/0/${i}`).connect(provider),
);
const [owner, alice, bob, carol, dave] = wallets;

const artifact = (name) => JSON.parse(readFileSync(new URL(`artifacts/${name}.json`, import.meta.url), "utf8"));
const names = ["Token", "Pair", "PairFactory", "Router", "PriceOracle", "Lending", "OrderBook"];
const artifacts = Object.fromEntries(names.map((name) => [name, artifact(name)]));

const unit = (amount, decimals) => BigInt(amount) * 10n ** BigInt(decimals);
const never = 2n ** 40n;
const gasTable = [];

// Written down on purpose: a load generator may hold them as constants.
const SELECTORS = {
  swapExactIn: "0xc2f15fb2",
  deposit: "0x47e7ef24",
  withdraw: "0xf3fef3a3",
  borrow: "0x4b8a3529",
  repay: "0x22867d78",
  liquidate: "0xaab3f868",
  listReserve: "0x224afcf7",
  place: "0xa8b7e77d",
  cancel: "0x4c125e79",
};

const standard = {
  collateralFactor: 7500n, liquidationBonus: 800n, reserveFactor: 1000n,
  kink: 8000n, rateBase: 100n, rateSlope: 700n, rateSlopeSteep: 10000n,
};

before(() => provider.getBlockNumber());
after(() => {
  provider.destroy();
  if (gasTable.length > 0) console.log(["operation | new second | same second", ...gasTable].join("\n"));
});

// ---------------------------------------------------------------- the chain

async function deploy(name, ...args) {
  const { abi, bytecode } = artifacts[name];
  const contract = await new ContractFactory(abi, bytecode, owner).deploy(...args);
  const { receipt } = await mined(contract.deploymentTransaction());
  assert.equal(receipt.status, 1, `${name} is deployed`);
  contract.deployGas = receipt.gasUsed;
  assert.ok(receipt.gasUsed < 2n ** 24n, `${name} fits the transaction gas limit of EIP-7825`);
  return contract;
}

function attach(name, address) {
  return new ContractFactory(artifacts[name].abi, artifacts[name].bytecode, owner).attach(address);
}

/// Sends and waits; the transaction must succeed. Returns the receipt with the second of its block.
async function send(contract, from, method, ...args) {
  const call = contract.connect(from)[method];
  // An estimate made in the second of the last change misses what a later second costs: accrual, sums of prices.
  const gasLimit = (await call.estimateGas(...args)) + 80_000n;
  const response = await call(...args, { gasLimit });
  const result = await mined(response);
  assert.equal(result.receipt.status, 1, `${method} succeeds`);
  return result;
}

/// Sends with a gas limit, so that a revert lands in a block. Returns the receipt, whatever its status.
async function attempt(contract, from, method, ...args) {
  const response = await contract.connect(from)[method](...args, { gasLimit: 1_000_000 });
  return mined(response);
}

/// Polls for the receipt: a wait that begins with the next block misses one that came before it.
async function mined({ hash }) {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const receipt = await provider.getTransactionReceipt(hash);
    if (receipt !== null) {
      const { timestamp } = await provider.getBlock(receipt.blockNumber);
      return { receipt, block: receipt.blockNumber, now: BigInt(timestamp), gas: receipt.gasUsed };
    }
    assert.ok(Date.now() < deadline, `no receipt of ${hash} within 30 s`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/// The call must revert with the named error, which must decode with the ABI of the called contract.
async function refused(contract, from, method, args, name) {
  const error = await contract.connect(from)[method].staticCall(...args).then(
    () => assert.fail(`${method} must revert with ${name}`),
    (error) => error,
  );
  assert.equal(error.revert?.name, name, `${method}: ${error.shortMessage ?? error.message}`);
  return error.revert.args;
}

async function knows(method, params) {
  return provider.send(method, params).then(() => true, () => false);
}

async function passTime(seconds) {
  if (await knows("evm_increaseTime", [seconds])) return provider.send("evm_mine", []);
  const wanted = (await provider.getBlock("latest")).timestamp + Math.min(seconds, 3);
  while ((await provider.getBlock("latest")).timestamp < wanted) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/// Sends calls of different accounts into one block where the node can, else right after one another.
async function together(...calls) {
  const stepped = await knows("evm_setAutomine", [false]);
  try {
    const responses = [];
    for (const [contract, from, method, ...args] of calls) {
      responses.push(await contract.connect(from)[method](...args, { gasLimit: 1_000_000 }));
    }
    if (stepped) await provider.send("evm_mine", []);
    const results = [];
    for (const response of responses) results.push(await mined(response));
    return { stepped, results };
  } finally {
    if (stepped) await provider.send("evm_setAutomine", [true]);
  }
}

/// A number below `bound`, the same for the same seed.
function dice(seed) {
  let state = BigInt(seed);
  return (bound) => {
    state = (state * 6364136223846793005n + 1442695040888963407n) % 2n ** 64n;
    return (state >> 20n) % BigInt(bound);
  };
}

function freshSeed() {
  return process.env.SEED ?? String(Math.floor(Math.random() * 2 ** 32));
}

// ---------------------------------------------------------------- what is deployed

async function token(name, decimals, holders = wallets, whole = 1_000_000_000n) {
  const contract = await deploy("Token", name, name, decimals);
  await send(contract, owner, "mintBatch", holders.map((wallet) => wallet.address), unit(whole, decimals));
  return contract;
}

async function approve(spender, tokens, holders = wallets) {
  for (const contract of tokens) {
    for (const holder of holders) await send(contract, holder, "approve", spender.target, MaxUint256);
  }
}

async function exchange(count = 2) {
  const factory = await deploy("PairFactory");
  const router = await deploy("Router", factory.target);
  const tokens = [];
  for (let i = 0; i < count; i += 1) tokens.push(await token(`T${i}`, i === 1 ? 6 : 18, wallets, unit(1, 15)));
  tokens.sort((a, b) => (BigInt(a.target) < BigInt(b.target) ? -1 : 1));
  await approve(router, tokens);
  return { factory, router, tokens };
}

/// A pair of the two tokens, given in address order, with its model.
async function pool(router, token0, token1, amount0, amount1) {
  const args = [token0.target, token1.target, amount0, amount1, 0n, 0n, owner.address, never];
  const { now } = await send(router, owner, "addLiquidity", ...args);
  const pair = attach("Pair", await router.pairFor(token0.target, token1.target));
  const model = new PairModel();
  model.add(amount0, amount1, now);
  return { pair, model };
}

async function assertPair({ pair, model }, block) {
  const at = { blockTag: block };
  const [reserve0, reserve1, updatedAt] = await pair.reserves(at);
  assert.deepEqual([reserve0, reserve1], model.reserves, "reserves");
  assert.equal(updatedAt, model.updatedAt, "time of the reserves");
  assert.equal(await pair.price0Cumulative(at), model.cumulative[0], "price0Cumulative");
  assert.equal(await pair.price1Cumulative(at), model.cumulative[1], "price1Cumulative");
  assert.equal(await pair.totalSupply(at), model.supply, "shares");
}

/// A market of three assets with 18, 6 and 8 decimals, and its model.
async function market() {
  const oracle = await deploy("PriceOracle", never);
  const lending = await deploy("Lending", oracle.target);
  const model = new LendingModel();
  const tokens = [];
  for (const [name, decimals, price] of [["ETH", 18, 3000], ["USD", 6, 1], ["BTC", 8, 60000]]) {
    const asset = await token(name, decimals);
    await send(oracle, owner, "setPrice", asset.target, unit(price, 8));
    const { now } = await send(lending, owner, "listReserve", asset.target, standard);
    model.list(asset.target, BigInt(decimals), standard, now);
    model.prices.set(asset.target, unit(price, 8));
    tokens.push(asset);
  }
  await approve(lending, tokens);
  return { oracle, lending, model, tokens };
}

async function setPrice({ oracle, model }, asset, price) {
  await send(oracle, owner, "setPrice", asset.target, price);
  model.prices.set(asset.target, price);
}

/// One call on the market and on the model; both must agree on success and on the state after it.
async function step(world, from, method, assets, ...args) {
  const { lending, model } = world;
  const targets = assets.map((asset) => asset.target);
  const { receipt, now, block, gas } = await attempt(lending, from, method, ...targets, ...args);
  const modelArgs = method === "liquidate" ? [args[0], from.address, args[1]] : [from.address, ...args];
  const refusal = model[method](...targets, ...modelArgs, now);
  assert.equal(receipt.status, refusal === null ? 1 : 0, `${method} of ${args}: the model says ${refusal ?? "ok"}`);
  await assertMarket(world, block, now);
  return { refusal, now, block, gas };
}

async function assertMarket({ lending, model, tokens }, block, now) {
  const at = { blockTag: block };
  for (const asset of tokens) {
    const have = await lending.reserveOf(asset.target, at);
    const want = model.accrued(asset.target, now);
    for (const key of ["supplyIndex", "borrowIndex", "scaledSupply", "scaledDebt", "cash", "fees"]) {
      assert.equal(have[key], want[key], key);
    }
    let [supply, debt] = [0n, 0n];
    for (const { address } of wallets) {
      const position = await lending.positions(asset.target, address, at);
      assert.equal(position.scaledSupply, model.position(asset.target, address).scaledSupply, "scaledSupply");
      assert.equal(position.scaledDebt, model.position(asset.target, address).scaledDebt, "scaledDebt");
      supply += position.scaledSupply;
      debt += position.scaledDebt;
    }
    assert.equal(have.scaledSupply, supply, "the total is the sum of the scaled supplies");
    assert.equal(have.scaledDebt, debt, "the total is the sum of the scaled debts");
    const ray = 10n ** 27n;
    const owed = (have.scaledSupply * have.supplyIndex) / ray + have.fees;
    const owned = have.cash + (have.scaledDebt * have.borrowIndex + ray - 1n) / ray;
    assert.ok(owned >= owed, "cash and debt cover supply and fees");
    assert.ok((await asset.balanceOf(lending.target, at)) >= have.cash, "the cash is there");
  }
}

// ---------------------------------------------------------------- token

test("a transfer moves units and an overdraft reverts with the numbers", async () => {
  const coin = await token("COIN", 18, [alice], 10n);
  await send(coin, alice, "transfer", bob.address, 4n);
  assert.equal(await coin.balanceOf(bob.address), 4n);
  assert.equal(await coin.balanceOf(alice.address), unit(10, 18) - 4n);
  assert.equal(await coin.totalSupply(), unit(10, 18));
  const args = await refused(coin, bob, "transfer", [carol.address, 5n], "ERC20InsufficientBalance");
  assert.deepEqual([...args], [bob.address, 4n, 5n]);
  const { receipt } = await attempt(coin, bob, "transfer", carol.address, 5n);
  assert.equal(receipt.status, 0);
  await refused(coin, alice, "transfer", ["0x0000000000000000000000000000000000000000", 1n], "ERC20InvalidReceiver");
});

test("an allowance runs down unless it is infinite", async () => {
  const coin = await token("COIN", 18, [alice], 10n);
  await send(coin, alice, "approve", bob.address, 5n);
  await send(coin, bob, "transferFrom", alice.address, carol.address, 3n);
  assert.equal(await coin.allowance(alice.address, bob.address), 2n);
  await refused(coin, bob, "transferFrom", [alice.address, carol.address, 3n], "ERC20InsufficientAllowance");
  await send(coin, alice, "approve", bob.address, MaxUint256);
  await send(coin, bob, "transferFrom", alice.address, carol.address, 3n);
  assert.equal(await coin.allowance(alice.address, bob.address), MaxUint256);
});

test("only the owner mints", async () => {
  const coin = await token("COIN", 6, [alice], 1n);
  assert.deepEqual([await coin.name(), await coin.symbol(), await coin.decimals()], ["COIN", "COIN", 6n]);
  await refused(coin, alice, "mint", [alice.address, 1n], "NotOwner");
  await send(coin, owner, "transferOwnership", alice.address);
  await send(coin, alice, "mint", alice.address, 1n);
  await refused(coin, owner, "mint", [owner.address, 1n], "NotOwner");
});

// ---------------------------------------------------------------- exchange

test("swaps and deposits follow the integer model", async (t) => {
  const seed = freshSeed();
  t.diagnostic(`SEED=${seed}`);
  const roll = dice(seed);
  const { router, tokens } = await exchange();
  const world = await pool(router, ...tokens, unit(1_000, 12) + 7n, unit(3_000, 12) + 11n);
  const { pair, model } = world;
  await send(pair, owner, "approve", router.target, MaxUint256);
  for (let i = 0; i < 40; i += 1) {
    if (roll(3) === 0n) await passTime(Number(roll(100)) + 1);
    const kind = roll(6);
    if (kind === 0n) {
      const wish = [roll(unit(10, 12)) + 1n, roll(unit(30, 12)) + 1n];
      const fit1 = (wish[0] * model.reserves[1]) / model.reserves[0];
      const taken = fit1 <= wish[1] ? [wish[0], fit1] : [(wish[1] * model.reserves[0]) / model.reserves[1], wish[1]];
      const args = [tokens[0].target, tokens[1].target, ...wish, ...taken, owner.address, never];
      const shares = await pair.balanceOf(owner.address);
      const { now, block } = await send(router, owner, "addLiquidity", ...args);
      const issued = model.add(...taken, now);
      assert.equal(await pair.balanceOf(owner.address), shares + issued, "shares issued");
      await assertPair(world, block);
    } else if (kind === 1n) {
      const shares = roll(unit(1, 12)) + 1000n;
      const args = [tokens[0].target, tokens[1].target, shares, 0n, 0n, owner.address, never];
      const { now, block } = await send(router, owner, "removeLiquidity", ...args);
      model.remove(shares, now);
      await assertPair(world, block);
    } else {
      const side = Number(roll(2));
      const path = side === 0 ? tokens : [...tokens].reverse();
      const amountIn = roll(unit(50, 12)) + 1000n;
      const want = model.amountOut(side, amountIn);
      const targets = path.map((coin) => coin.target);
      assert.deepEqual([...(await router.quote(targets, amountIn))], [amountIn, want], "the quote");
      const [sold, bought] = [await path[0].balanceOf(alice.address), await path[1].balanceOf(alice.address)];
      // The exact amount as the minimum: one unit less paid would revert.
      const { now, block } = await send(router, alice, "swapExactIn", targets, amountIn, want, alice.address, never);
      assert.equal(model.swap(side, amountIn, now), want);
      assert.equal(await path[0].balanceOf(alice.address), sold - amountIn, "the input left");
      assert.equal(await path[1].balanceOf(alice.address), bought + want, "the output came");
      await assertPair(world, block);
    }
  }
});

test("a swap pays 0.3 percent to the pool", async () => {
  const { router, tokens } = await exchange();
  const reserve = unit(1_000_000, 12);
  const { pair, model } = await pool(router, ...tokens, reserve, reserve);
  const amountIn = unit(1, 12);
  const targets = tokens.map((coin) => coin.target);
  await send(router, alice, "swapExactIn", targets, amountIn, 0n, alice.address, never);
  const [reserve0, reserve1] = await pair.reserves();
  // Without a fee the product would be kept up to rounding; the fee is what exceeds it.
  const kept = (reserve * reserve) / reserve1;
  const fee = reserve0 - kept;
  const exact = (amountIn * 3n) / 1000n;
  assert.ok(fee >= exact - 2n && fee <= exact + 2n, `fee ${fee}, expected ${exact}`);
  assert.equal(model.amountOut(0, amountIn), reserve - reserve1);
});

test("a swap through two pools pays what the pools pay in turn", async () => {
  const { router, tokens } = await exchange(3);
  const first = await pool(router, tokens[0], tokens[1], unit(5, 15), unit(7, 15));
  const second = await pool(router, tokens[1], tokens[2], unit(11, 15), unit(3, 15));
  const targets = tokens.map((coin) => coin.target);
  const amountIn = unit(123, 12);
  const middle = first.model.amountOut(0, amountIn);
  const amountOut = second.model.amountOut(0, middle);
  const held = await tokens[2].balanceOf(carol.address);
  const { now, block } = await send(router, bob, "swapExactIn", targets, amountIn, amountOut, carol.address, never);
  first.model.swap(0, amountIn, now);
  second.model.swap(0, middle, now);
  await assertPair(first, block);
  await assertPair(second, block);
  assert.equal(await tokens[2].balanceOf(carol.address), held + amountOut);
});

test("swaps in one second leave the sums of prices alone", async () => {
  const { router, tokens } = await exchange();
  const world = await pool(router, ...tokens, unit(5, 15), unit(7, 15));
  await passTime(10);
  const targets = tokens.map((coin) => coin.target);
  const amountIn = unit(1, 12);
  const { stepped, results } = await together(
    [router, alice, "swapExactIn", targets, amountIn, 0n, alice.address, never],
    [router, bob, "swapExactIn", targets, amountIn, 0n, bob.address, never],
    [router, carol, "swapExactIn", targets, amountIn, 0n, carol.address, never],
  );
  for (const { receipt } of results) assert.equal(receipt.status, 1);
  if (stepped) assert.equal(results[0].block, results[2].block);
  for (const { now } of results) world.model.swap(0, amountIn, now);
  await assertPair(world, results[2].block);
});

test("a swap beyond its limits reverts with the reason", async () => {
  const { router, factory, tokens } = await exchange(3);
  const { pair, model } = await pool(router, tokens[0], tokens[1], unit(5, 15), unit(7, 15));
  const [a, b, c] = tokens.map((coin) => coin.target);
  const want = model.amountOut(0, 1000n);
  const swap = (...args) => [router, alice, "swapExactIn", args];
  const low = await refused(...swap([a, b], 1000n, want + 1n, alice.address, never), "InsufficientOutput");
  assert.deepEqual([...low], [want, want + 1n]);
  await refused(...swap([a, b], 1000n, 0n, alice.address, 1n), "Expired");
  await refused(...swap([a], 1000n, 0n, alice.address, never), "InvalidPath");
  await refused(...swap([a, c], 1000n, 0n, alice.address, never), "PairMissing");
  await refused(...swap([a, b], 0n, 0n, alice.address, never), "InsufficientInput");
  await refused(...swap([a, b], 1000n, 0n, b, never), "InvalidRecipient");
  await refused(...swap([a, b], unit(1, 40), 0n, alice.address, never), "ERC20InsufficientBalance");
  await send(tokens[0], dave, "approve", router.target, 999n);
  await refused(router, dave, "swapExactIn", [[a, b], 1000n, 0n, dave.address, never], "ERC20InsufficientAllowance");
  await refused(pair, alice, "swap", [0n, 1n, alice.address], "InsufficientInput");
  await refused(pair, alice, "swap", [0n, unit(7, 15), alice.address], "InsufficientLiquidity");
  await refused(pair, alice, "initialize", [a, b], "NotFactory");
  await refused(factory, alice, "createPair", [b, a], "PairExists");
  await refused(factory, alice, "createPair", [a, a], "IdenticalTokens");
  await refused(factory, alice, "createPair", [a, alice.address], "TokenWithoutCode");
  const { receipt } = await attempt(router, alice, "swapExactIn", [a, b], 1000n, want + 1n, alice.address, never);
  assert.equal(receipt.status, 0);
});

test("a pair pays no more than the product allows", async () => {
  const { router, tokens } = await exchange();
  const { pair, model } = await pool(router, ...tokens, unit(5, 15), unit(7, 15));
  const amountIn = unit(1, 12);
  const want = model.amountOut(0, amountIn);
  await send(tokens[0], alice, "transfer", pair.target, amountIn);
  await refused(pair, alice, "swap", [0n, want + 1n, alice.address], "ProductDecreased");
  await send(pair, alice, "swap", 0n, want, alice.address);
});

test("what is given to a pair can be skimmed or synced", async () => {
  const { router, tokens } = await exchange();
  const { pair, model } = await pool(router, ...tokens, unit(5, 15), unit(7, 15));
  await send(tokens[0], alice, "transfer", pair.target, 5n);
  const held = await tokens[0].balanceOf(bob.address);
  await send(pair, carol, "skim", bob.address);
  assert.equal(await tokens[0].balanceOf(bob.address), held + 5n);
  await send(tokens[1], alice, "transfer", pair.target, 9n);
  await send(pair, carol, "sync");
  const [reserve0, reserve1] = await pair.reserves();
  assert.deepEqual([reserve0, reserve1], [model.reserves[0], model.reserves[1] + 9n]);
});

// ---------------------------------------------------------------- oracle

test("a price is refused when it is unknown or stale", async () => {
  const oracle = await deploy("PriceOracle", 1n);
  const asset = alice.address;
  await refused(oracle, alice, "price", [asset], "PriceUnknown");
  await refused(oracle, alice, "setPrice", [asset, 1n], "NotOwner");
  await refused(oracle, owner, "setPrice", [asset, 0n], "PriceZero");
  await refused(oracle, owner, "setPrices", [[asset], []], "LengthMismatch");
  const { now, block } = await send(oracle, owner, "setPrices", [asset, bob.address], [5n, 6n]);
  assert.equal(await oracle.price(bob.address, { blockTag: block }), 6n);
  assert.deepEqual([...(await oracle.quotes(asset))], [5n, now]);
  await passTime(3);
  await refused(oracle, alice, "price", [asset], "PriceStale");
});

// ---------------------------------------------------------------- lending

test("interest accrues to depositors and fees as the model says", async () => {
  const world = await market();
  const { lending, model, tokens: [eth, usd] } = world;
  await step(world, alice, "deposit", [usd], unit(100_000, 6));
  await step(world, bob, "deposit", [eth], unit(100, 18));
  await step(world, bob, "borrow", [usd], unit(90_000, 6));
  // 0.9 used, kink at 0.8: 1 % + 7 % + 100 % * (0.9 - 0.8) / 0.2.
  assert.equal(await lending.borrowRate(usd.target), unit(58, 16));
  const debt = await lending.debtOf(usd.target, bob.address);
  await passTime(86_400 * 30);
  const block = await provider.getBlock("latest");
  const [now, at] = [BigInt(block.timestamp), { blockTag: block.number }];
  await assertMarket(world, block.number, now);
  const debtNow = await lending.debtOf(usd.target, bob.address, at);
  assert.ok(debtNow > debt, "debt grew");
  assert.equal(debtNow, model.debtOf(usd.target, bob.address, now));
  const supplyNow = await lending.supplyOf(usd.target, alice.address, at);
  assert.equal(supplyNow, model.supplyOf(usd.target, alice.address, now));
  assert.ok(supplyNow > unit(100_000, 6), "supply grew");
  const want = model.health(bob.address, now);
  assert.deepEqual([...(await lending.health(bob.address, at))], [want.collateral, want.debt, want.health]);

  await step(world, bob, "repay", [usd], unit(1_000, 6));
  await step(world, bob, "repay", [usd], MaxUint256);
  assert.equal(await lending.debtOf(usd.target, bob.address), 0n);
  await step(world, alice, "withdraw", [usd], MaxUint256);
  await step(world, bob, "withdraw", [eth], MaxUint256);
  assert.equal(await lending.memberships(alice.address), 0n);
  assert.equal(await lending.memberships(bob.address), 0n);

  const { fees, cash } = await lending.reserveOf(usd.target);
  assert.ok(fees > 0n && cash - fees < 10n, "what is left is fees and rounding");
  await send(lending, owner, "collectFees", usd.target, dave.address);
  assert.equal(await usd.balanceOf(dave.address), unit(1_000_000_000, 6) + fees);
  assert.equal((await lending.reserveOf(usd.target)).fees, 0n);
});

test("nobody borrows or withdraws below a health of one", async () => {
  const world = await market();
  const { lending, tokens: [eth, usd] } = world;
  await step(world, alice, "deposit", [usd], unit(100_000, 6));
  await step(world, bob, "deposit", [eth], unit(10, 18));
  // 10 ETH * 3000 * 0.75 = 22,500: exactly that is healthy, one unit more is not.
  await refused(lending, bob, "borrow", [usd.target, unit(22_500, 6) + 1n], "Unhealthy");
  await step(world, bob, "borrow", [usd], unit(22_500, 6));
  await refused(lending, bob, "withdraw", [eth.target, unit(1, 15)], "Unhealthy");
  assert.equal((await step(world, bob, "withdraw", [eth], unit(1, 15))).refusal, "Unhealthy");
  await refused(lending, carol, "borrow", [usd.target, 1n], "Unhealthy");
  await step(world, bob, "repay", [usd], unit(10_000, 6));
  await step(world, bob, "withdraw", [eth], unit(4, 18));
  await refused(lending, bob, "withdraw", [eth.target, unit(1, 18)], "Unhealthy");
});

test("wrong calls on the market revert with the reason", async () => {
  const world = await market();
  const { lending, oracle, tokens: [eth, usd] } = world;
  await step(world, alice, "deposit", [usd], unit(1_000, 6));
  await step(world, bob, "deposit", [eth], unit(10, 18));
  await refused(lending, alice, "deposit", [usd.target, 0n], "AmountZero");
  await refused(lending, alice, "deposit", [alice.address, 1n], "ReserveUnknown");
  await refused(lending, alice, "deposit", [usd.target, unit(1, 18)], "ERC20InsufficientBalance");
  await refused(lending, alice, "withdraw", [usd.target, unit(1_001, 6)], "InsufficientSupply");
  await refused(lending, alice, "withdraw", [eth.target, MaxUint256], "InsufficientSupply");
  await refused(lending, bob, "borrow", [usd.target, unit(1_001, 6)], "InsufficientLiquidity");
  await refused(lending, bob, "repay", [usd.target, 1n], "NoDebt");
  await refused(lending, alice, "listReserve", [usd.target, standard], "NotOwner");
  await refused(lending, owner, "listReserve", [usd.target, standard], "ReserveExists");
  const coin = await token("COIN", 18);
  const greedy = { ...standard, collateralFactor: 9500n };
  await refused(lending, owner, "listReserve", [coin.target, greedy], "InvalidConfig");
  await refused(lending, alice, "collectFees", [usd.target, alice.address], "NotOwner");
  await send(lending, owner, "listReserve", coin.target, standard);
  await send(coin, bob, "approve", lending.target, MaxUint256);
  await send(lending, bob, "deposit", coin.target, 5n);
  await refused(lending, bob, "borrow", [usd.target, 1n], "PriceUnknown");
  // Without debt no price is needed.
  await send(lending, bob, "withdraw", coin.target, MaxUint256);
  assert.equal(await lending.oracle(), oracle.target);
});

test("a withdrawal waits for cash that is lent out", async () => {
  const world = await market();
  const { lending, tokens: [eth, usd] } = world;
  await step(world, alice, "deposit", [usd], unit(10_000, 6));
  await step(world, bob, "deposit", [eth], unit(10, 18));
  await step(world, bob, "borrow", [usd], unit(9_000, 6));
  await refused(lending, alice, "withdraw", [usd.target, MaxUint256], "InsufficientLiquidity");
  await step(world, bob, "repay", [usd], MaxUint256);
  await step(world, alice, "withdraw", [usd], MaxUint256);
});

test("a liquidation needs a health below one and takes at most half, then all", async () => {
  const world = await market();
  const { lending, tokens: [eth, usd] } = world;
  await step(world, alice, "deposit", [usd], unit(100_000, 6));
  await step(world, bob, "deposit", [eth], unit(10, 18));
  await step(world, bob, "borrow", [usd], unit(20_000, 6));
  const call = (amount) => [usd.target, eth.target, bob.address, amount];
  await refused(lending, carol, "liquidate", call(unit(1_000, 6)), "Healthy");
  assert.equal((await step(world, carol, "liquidate", [usd, eth], bob.address, unit(1_000, 6))).refusal, "Healthy");

  // 10 ETH * 2600 * 0.75 = 19,500 against 20,000: health 0.975, half may be repaid.
  await setPrice(world, eth, unit(2_600, 8));
  await refused(lending, bob, "liquidate", call(1n), "SelfLiquidation");
  await refused(lending, carol, "liquidate", call(0n), "AmountZero");
  await refused(lending, carol, "liquidate", [eth.target, eth.target, bob.address, 1n], "NoDebt");
  await refused(lending, carol, "liquidate", [usd.target, usd.target, bob.address, 1n], "InsufficientSupply");
  const held = await usd.balanceOf(carol.address);
  const { block } = await step(world, carol, "liquidate", [usd, eth], bob.address, MaxUint256);
  const paid = held - (await usd.balanceOf(carol.address));
  assert.ok(paid >= unit(10_000, 6) && paid < unit(10_001, 6), `about half is paid: ${paid}`);
  // Worth what was paid and 8 %.
  const seized = await lending.supplyOf(eth.target, carol.address, { blockTag: block });
  assert.equal(seized, (paid * 108n * 10n ** 10n) / 2_600n);
  const [, , healed] = await lending.health(bob.address);
  assert.ok(healed >= unit(1, 18), `health rose: ${healed}`);
  await refused(lending, carol, "liquidate", call(1n), "Healthy");
  await step(world, carol, "withdraw", [eth], MaxUint256);

  // Far below: the whole debt may be repaid, up to what the collateral covers.
  await setPrice(world, eth, unit(500, 8));
  assert.equal((await step(world, carol, "liquidate", [usd, eth], bob.address, MaxUint256)).refusal, null);
  assert.equal(await lending.supplyOf(eth.target, bob.address), 0n);
  assert.ok((await lending.debtOf(usd.target, bob.address)) > 0n, "what nothing covers stays owed");
});

test("calls in one second accrue nothing twice", async () => {
  const world = await market();
  const { lending, model, tokens: [eth, usd] } = world;
  const { target } = usd;
  await step(world, alice, "deposit", [usd], unit(100_000, 6));
  await step(world, bob, "deposit", [eth], unit(10, 18));
  await step(world, bob, "borrow", [usd], unit(20_000, 6));
  await passTime(1000);
  const { results } = await together(
    [lending, alice, "withdraw", target, 5n],
    [lending, bob, "repay", target, 7n],
    [lending, carol, "deposit", target, 11n],
  );
  for (const { receipt } of results) assert.equal(receipt.status, 1);
  assert.equal(model.withdraw(target, alice.address, 5n, results[0].now), null);
  assert.equal(model.repay(target, bob.address, 7n, results[1].now), null);
  assert.equal(model.deposit(target, carol.address, 11n, results[2].now), null);
  await assertMarket(world, results[2].block, results[2].now);
});

test("a random run of the market agrees with the model at every step", async (t) => {
  const seed = freshSeed();
  t.diagnostic(`SEED=${seed}`);
  const roll = dice(seed);
  const world = await market();
  const { tokens } = world;
  const worth = [unit(3_000, 8), unit(1, 8), unit(60_000, 8)];
  const pick = (list) => list[Number(roll(list.length))];
  const some = async (asset) => {
    if (roll(12) === 0n) return roll(5) + 1n; // The smallest amounts find the rounding.
    const at = tokens.indexOf(asset);
    return ((roll(50_000) + 1n) * unit(1, 8) * unit(1, await asset.decimals())) / worth[at];
  };
  const refusals = {};
  for (let i = 0; i < 150; i += 1) {
    if (roll(3) === 0n) await passTime(Number(roll(86_400 * 20)) + 1);
    if (roll(6) === 0n) {
      const asset = pick(tokens);
      await setPrice(world, asset, (worth[tokens.indexOf(asset)] * (roll(120) + 40n)) / 100n);
    }
    const method = pick(["deposit", "deposit", "withdraw", "borrow", "borrow", "repay", "liquidate", "liquidate"]);
    let [from, asset, refusal] = [pick(wallets), pick(tokens)];
    // Mostly someone who owes, else nearly all repayments and liquidations would find nothing to do.
    const owing = wallets.flatMap((wallet) =>
      tokens
        .filter((coin) => world.model.position(coin.target, wallet.address).scaledDebt > 0n)
        .map((coin) => [wallet, coin]),
    );
    const guided = roll(4) !== 0n && owing.length > 0;
    if (method === "liquidate") {
      let account = pick(wallets);
      let collateral = pick(tokens);
      if (guided) {
        [account, asset] = pick(owing);
        const held = tokens.filter((coin) => world.model.position(coin.target, account.address).scaledSupply > 0n);
        if (held.length > 0) collateral = pick(held);
        const { health } = world.model.health(account.address, BigInt((await provider.getBlock("latest")).timestamp));
        const price = (world.model.prices.get(asset.target) * health * (roll(30) + 101n)) / (100n * unit(1, 18));
        if (health >= unit(1, 18) && price < unit(1, 16) && roll(2) === 0n) await setPrice(world, asset, price);
      }
      const amount = roll(4) === 0n ? MaxUint256 : await some(asset);
      ({ refusal } = await step(world, from, method, [asset, collateral], account.address, amount));
    } else {
      if (guided && method === "repay") [from, asset] = pick(owing);
      const all = roll(4) === 0n && (method === "repay" || method === "withdraw");
      ({ refusal } = await step(world, from, method, [asset], all ? MaxUint256 : await some(asset)));
    }
    const outcome = `${method}: ${refusal ?? "done"}`;
    refusals[outcome] = (refusals[outcome] ?? 0) + 1;
  }
  for (const outcome of Object.keys(refusals).sort()) t.diagnostic(`${outcome} ${refusals[outcome]}`);
});

// ---------------------------------------------------------------- order book

const [lotSize, tickSize] = [1_000n, 10n];

/// A book whose traders have deposited, and its model.
async function orderBook(traders = wallets, amount = unit(1, 9)) {
  const tokens = [await token("BASE", 18, traders, 1n), await token("QUOTE", 18, traders, 1n)];
  const book = await deploy("OrderBook", ...tokens.map((coin) => coin.target), lotSize, tickSize);
  await approve(book, tokens, traders);
  const model = new BookModel(lotSize, tickSize);
  for (const trader of traders) {
    for (const coin of tokens) await send(book, trader, "deposit", coin.target, amount);
    Object.assign(model.balance(trader.address), { base: amount, quote: amount });
  }
  return { book, model, tokens };
}

async function assertBook({ book, model, tokens }, block) {
  const at = { blockTag: block };
  const best = [model.best(true), model.best(false)];
  assert.deepEqual([...(await book.market(at))], [model.lastId, ...best], "latest order and best prices");
  assert.ok(best.includes(0n) || best[0] < best[1], "bids are below asks");
  for (const { id, owner: trader, bid, tick, lots } of model.orders) {
    assert.deepEqual([...(await book.orders(id, at))], [trader, lots, tick, bid], `order ${id}`);
    const queue = model.level(bid, tick);
    const total = queue.reduce((sum, order) => sum + order.lots, 0n);
    assert.deepEqual([...(await book.levelOf(bid, tick, at))], [queue[0].id, queue.at(-1).id, total], `tick ${tick}`);
  }
  const owed = [0n, 0n];
  for (const [account, { base, quote }] of model.balances) {
    assert.deepEqual([...(await book.balances(account, at))], [base, quote], "balances");
    [owed[0], owed[1]] = [owed[0] + base, owed[1] + quote];
  }
  for (const { bid, tick, lots } of model.orders) {
    if (bid) owed[1] += tick * lots * tickSize;
    else owed[0] += lots * lotSize;
  }
  const held = await Promise.all(tokens.map((coin) => coin.balanceOf(book.target, at)));
  assert.deepEqual(held, owed, "the book holds what it owes");
}

test("a random run of the order book agrees with the model at every step", async (t) => {
  const seed = freshSeed();
  t.diagnostic(`SEED=${seed}`);
  const roll = dice(seed);
  const traders = [alice, bob, carol];
  const world = await orderBook(traders, unit(1, 6));
  const outcomes = {};
  for (let i = 0; i < 120; i += 1) {
    const from = traders[Number(roll(3))];
    const { orders, lastId } = world.model;
    let [method, args] = ["place", [roll(2) === 0n, 990n + roll(21), roll(40) + 1n]];
    if (roll(3) === 0n) {
      const known = orders.length > 0 && roll(5) !== 0n;
      [method, args] = ["cancel", [known ? orders[Number(roll(orders.length))].id : roll(lastId + 2n)]];
    }
    // Prices far away are found through the upper words of the tree.
    if (method === "place" && roll(8) === 0n) args[1] = args[0] ? roll(300) + 1n : 2n ** 24n - 1n - roll(300);
    const own = orders.find((order) => order.id === args[0]);
    const trader = own !== undefined && roll(4) !== 0n ? traders.find((one) => one.address === own.owner) : from;
    const { receipt, block } = await attempt(world.book, trader, method, ...args);
    const refusal = world.model[method](trader.address, ...args);
    assert.equal(receipt.status, refusal === null ? 1 : 0, `${method} of ${args}: the model says ${refusal ?? "ok"}`);
    await assertBook(world, block);
    const outcome = `${method}: ${refusal ?? "done"}`;
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  }
  for (const outcome of Object.keys(outcomes).sort()) t.diagnostic(`${outcome} ${outcomes[outcome]}`);
});

test("wrong calls on the order book revert with the reason", async () => {
  const { book, tokens: [base, quote] } = await orderBook([alice, bob], 10_000n);
  await send(book, alice, "place", false, 7n, 5n);
  await refused(book, alice, "place", [true, 0n, 1n], "TickZero");
  await refused(book, alice, "place", [true, 1n, 0n], "LotsZero");
  const short = await refused(book, alice, "place", [false, 9n, 6n], "InsufficientBalance");
  assert.deepEqual([...short], [5_000n, 6_000n]);
  // Five lots trade at 7, the sixth would lock 10,010.
  await refused(book, bob, "place", [true, 1_001n, 6n], "InsufficientBalance");
  await refused(book, bob, "cancel", [1n], "NotOrderOwner");
  await refused(book, bob, "cancel", [2n], "OrderUnknown");
  await refused(book, alice, "deposit", [base.target, 0n], "AmountZero");
  await refused(book, alice, "deposit", [alice.address, 1n], "TokenUnknown");
  await refused(book, alice, "deposit", [base.target, unit(1, 19)], "ERC20InsufficientBalance");
  await refused(book, alice, "withdraw", [base.target, 5_001n], "InsufficientBalance");
  await refused(book, dave, "withdraw", [quote.target, 1n], "InsufficientBalance");
  await send(book, alice, "cancel", 1n);
  await refused(book, alice, "cancel", [1n], "OrderUnknown");
  await send(book, alice, "withdraw", base.target, 10_000n);
  assert.equal(await base.balanceOf(alice.address), unit(1, 18));
  const same = new ContractFactory(artifacts.OrderBook.abi, artifacts.OrderBook.bytecode, owner);
  const { data } = await same.getDeployTransaction(base.target, base.target, lotSize, tickSize);
  const invalid = ({ data: reason }) => same.interface.parseError(reason)?.name === "InvalidMarket";
  await assert.rejects(provider.call({ data }), invalid);
});

// ---------------------------------------------------------------- interfaces and gas

test("selectors of the calls a load sends do not drift", () => {
  const selector = (name, call) => new Interface(artifacts[name].abi).getFunction(call).selector;
  assert.equal(selector("Token", "transfer"), "0xa9059cbb");
  assert.equal(selector("Router", "swapExactIn"), SELECTORS.swapExactIn);
  for (const call of ["deposit", "withdraw", "borrow", "repay", "liquidate", "listReserve"]) {
    assert.equal(selector("Lending", call), SELECTORS[call], call);
  }
  for (const call of ["place", "cancel"]) assert.equal(selector("OrderBook", call), SELECTORS[call], call);
});

/// Two accounts do the same in one block: the first pays for the new second, the other does not.
async function measure(label, ...calls) {
  await passTime(5);
  const { stepped, results } = await together(...calls);
  for (const { receipt } of results) assert.equal(receipt.status, 1, label);
  if (stepped) gasTable.push(`${label} | ${results.map(({ gas }) => gas).join(" | ")}`);
}

test("gas of each operation in steady state is printed", async () => {
  const { router, factory, tokens } = await exchange(3);
  const targets = tokens.map((coin) => coin.target);
  await pool(router, tokens[0], tokens[1], unit(5, 14), unit(7, 14));
  await pool(router, tokens[1], tokens[2], unit(7, 14), unit(5, 14));
  const both = (build) => [alice, bob].map(build);
  const swap = (path, from) => [router, from, "swapExactIn", path, unit(1, 9), 1n, from.address, never];
  const pair = attach("Pair", await router.pairFor(targets[0], targets[1]));
  const add = (from) => [
    router, from, "addLiquidity", targets[0], targets[1], unit(1, 9), unit(2, 9), 1n, 1n, from.address, never,
  ];
  const remove = (from) => [
    router, from, "removeLiquidity", targets[0], targets[1], unit(1, 8), 1n, 1n, from.address, never,
  ];
  // Every slot is in use before it is measured.
  await passTime(5);
  for (const from of [alice, bob]) {
    await send(pair, from, "approve", router.target, MaxUint256);
    await send(...add(from));
    await send(...swap(targets, from));
  }
  await measure("Token.transfer", ...both((from) => [tokens[0], from, "transfer", carol.address, 5n]));
  await measure("Token.approve", ...both((from) => [tokens[0], from, "approve", router.target, MaxUint256 - 1n]));
  for (const from of [alice, bob]) await send(tokens[0], from, "approve", router.target, MaxUint256);
  await measure("Router.swapExactIn, one pool", ...both((from) => swap(targets.slice(0, 2), from)));
  await measure("Router.swapExactIn, two pools", ...both((from) => swap(targets, from)));
  await measure("Router.addLiquidity", ...both(add));
  await measure("Router.removeLiquidity", ...both(remove));

  const world = await market();
  const { lending, oracle, tokens: [eth, usd] } = world;
  const call = (method, asset, amount) => both((from) => [lending, from, method, asset.target, amount]);
  await send(lending, carol, "deposit", usd.target, unit(1_000_000, 6));
  for (const from of [alice, bob]) {
    await send(lending, from, "deposit", eth.target, unit(100, 18));
    await send(lending, from, "borrow", usd.target, unit(1_000, 6));
    await send(lending, from, "deposit", usd.target, unit(10, 6));
  }
  for (const from of [carol, dave]) await send(lending, from, "deposit", eth.target, unit(1_000, 18));
  await measure("Lending.deposit", ...call("deposit", usd, unit(1, 6)));
  await measure("Lending.borrow", ...call("borrow", usd, unit(1, 6)));
  await measure("Lending.repay", ...call("repay", usd, unit(1, 6)));
  await measure("Lending.withdraw, with debt", ...call("withdraw", usd, unit(1, 6)));
  await measure(
    "Lending.withdraw, without debt",
    ...[carol, dave].map((from) => [lending, from, "withdraw", (from === carol ? usd : eth).target, 1000n]),
  );
  await send(lending, alice, "borrow", usd.target, unit(200_000, 6));
  await send(lending, bob, "borrow", usd.target, unit(200_000, 6));
  await send(oracle, owner, "setPrice", eth.target, unit(2_650, 8));
  await measure(
    "Lending.liquidate",
    [lending, carol, "liquidate", usd.target, eth.target, alice.address, unit(100, 6)],
    [lending, dave, "liquidate", usd.target, eth.target, bob.address, unit(100, 6)],
  );
  const { gas: priceGas } = await send(oracle, owner, "setPrice", usd.target, unit(1, 8));
  gasTable.push(`PriceOracle.setPrice | ${priceGas} |`);
  const fresh = Array.from({ length: 500 }, (_, i) => `0x${(2n ** 159n + BigInt(i)).toString(16)}`);
  const { gas: batchGas } = await send(tokens[0], owner, "mintBatch", fresh, 5n);
  gasTable.push(`Token.mintBatch, 500 new holders | ${batchGas} |`);
  const created = await send(factory, owner, "createPair", targets[0], targets[2]);
  gasTable.push(`PairFactory.createPair | ${created.gas} |`);
  const deployed = { Token: tokens[0], PairFactory: factory, Router: router, PriceOracle: oracle, Lending: lending };
  for (const [name, { deployGas }] of Object.entries(deployed)) gasTable.push(`deploy ${name} | ${deployGas} |`);
});
