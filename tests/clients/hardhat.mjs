// Hardhat against a node: its compiler run, hardhat-viem, Ignition and a fork; by `hardhat run`.
import assert from "node:assert/strict";
import { network } from "hardhat";
import {
  BaseError,
  ContractFunctionRevertedError,
  InsufficientFundsError,
  NonceTooLowError,
  encodeFunctionData,
  getAddress,
  maxUint256,
  parseEther,
  parseEventLogs,
  recoverMessageAddress,
  recoverTypedDataAddress,
  zeroAddress,
  zeroHash,
} from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import shop from "./hardhat/ignition.mjs";
import { artifact, deployMarket } from "./lib/artifacts.mjs";
import { ask, check, failure, multicall3, plenty, root, run, swapOut } from "./lib/check.mjs";
import { checkProof } from "./lib/proof.mjs";

const { viem, provider, ignition } = await network.create("running");
const fast = { pollingInterval: 50, cacheTime: 0 };
const node = await viem.getPublicClient(fast);
const [owner, alice] = await viem.getWalletClients(fast);
const me = getAddress(owner.account.address);
const client = { client: { public: node, wallet: owner } };

const done = async (hash) => {
  const receipt = await node.waitForTransactionReceipt({ hash: await hash, timeout: 30_000 });
  assert.equal(receipt.status, "success");
  return receipt;
};
const fresh = () => privateKeyToAccount(generatePrivateKey()).address;
const deploy = (name, args = []) => viem.deployContract(name, args, client);
/** Deploys what npm brings compiled. */
const bring = async (name, args = []) => {
  const { abi, bytecode } = typeof name === "string" ? artifact(name) : name;
  const { contractAddress } = await done(owner.deployContract({ abi, bytecode, args }));
  return { address: getAddress(contractAddress), abi };
};
const write = async ({ address, abi }, functionName, args, more = {}) =>
  done(owner.writeContract({ address, abi, functionName, args, ...more }));
const read = ({ address, abi }, functionName, args = []) =>
  node.readContract({ address, abi, functionName, args });
const deployer = {
  deploy: async (code, args) => (await bring(code, args)).address,
  call: (contract, name, args) => write(contract, name, args, { gas: 15_000_000n }),
  read,
};
const revert = async (promise) => {
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

let token;
let counter;

check("chain, accounts and node", async () => {
  assert.equal(await node.getChainId(), 31337);
  assert((await node.getBalance({ address: me })) > parseEther("10"));
  assert.equal(await provider.request({ method: "eth_chainId" }), "0x7a69");
  assert.equal((await node.getBlock({ blockTag: "finalized" })).hash.length, 66);
});

check("OpenZeppelin ERC-20 and ERC-721 with hardhat-viem", async () => {
  token = await deploy("Token", ["Gold", "GLD", 18, parseEther("1000")]);
  counter = await deploy("Counter", [10n]);
  const nft = await deploy("Collectible");
  assert.equal(await token.read.symbol(), "GLD");
  const to = fresh();
  const { logs } = await done(token.write.transfer([to, 7n]));
  assert.equal(logs.length, 1);
  assert.equal(await token.read.balanceOf([to]), 7n);
  await done(nft.write.mint([to, "ipfs://one"]));
  assert.equal(await nft.read.ownerOf([1n]), to);
  const poor = token.simulate.transfer([me, 1n], { account: fresh() });
  assert.equal((await revert(poor))[0], "ERC20InsufficientBalance");
  assert.deepEqual((await revert(nft.read.ownerOf([9n]))).slice(0, 2), [
    "ERC721NonexistentToken",
    [9n],
  ]);
});

check("EIP-1559, legacy, EIP-2930 and EIP-7702 transactions", async () => {
  const to = fresh();
  assert.equal((await done(owner.sendTransaction({ to, value: 5n }))).type, "eip1559");
  const gasPrice = (await node.getGasPrice()) * 2n;
  assert.equal(
    (await done(owner.sendTransaction({ to, value: 5n, gasPrice, type: "legacy" }))).type,
    "legacy",
  );
  const accessList = [{ address: counter.address, storageKeys: [zeroHash] }];
  const data = encodeFunctionData({ abi: counter.abi, functionName: "bump", args: [zeroHash] });
  const listed = await done(
    owner.sendTransaction({ to: counter.address, data, gasPrice, accessList, type: "eip2930" }),
  );
  assert.equal(listed.type, "eip2930");
  assert.equal(await node.getBalance({ address: to }), 10n);

  // Hardhat signs the transaction, the delegating account its authorization.
  const batch = await deploy("Batch");
  let other;
  let authorization;
  // viem drops leading zeros of r and s, and Hardhat 3.18.0 refuses the shorter words.
  do {
    other = privateKeyToAccount(generatePrivateKey());
    authorization = await other.signAuthorization({
      address: batch.address,
      chainId: 31337,
      nonce: 0,
    });
  } while (authorization.r.startsWith("0x0") || authorization.s.startsWith("0x0"));
  const execute = encodeFunctionData({
    abi: batch.abi,
    functionName: "execute",
    args: [[{ to: counter.address, value: 0n, data }]],
  });
  const receipt = await done(
    owner.sendTransaction({
      to: other.address,
      data: execute,
      authorizationList: [authorization],
      gas: 300_000n,
    }),
  );
  assert.equal(receipt.type, "eip7702");
  assert.equal(receipt.logs.length, 2);
  assert.equal(await counter.read.bumps([other.address]), 1n);
});

check("Uniswap V2: liquidity, swap, exact reserves", async () => {
  const weth = await bring("WETH9");
  const factory = await bring("UniswapV2Factory", [me]);
  const router = await bring("UniswapV2Router02", [factory.address, weth.address]);
  const deadline = (await node.getBlock()).timestamp + 86_400n;
  const amounts = [parseEther("100"), parseEther("2")];
  await done(token.write.approve([router.address, maxUint256]));
  const liquidity = [token.address, amounts[0], 0n, 0n, me, deadline];
  await write(router, "addLiquidityETH", liquidity, { value: amounts[1], gas: 2n * plenty });
  const pair = {
    address: await read(factory, "getPair", [token.address, weth.address]),
    abi: artifact("UniswapV2Pair").abi,
  };
  assert.equal(await read(pair, "balanceOf", [me]), root(amounts[0] * amounts[1]) - 1000n);
  const input = parseEther("0.1");
  const out = swapOut(input, amounts[1], amounts[0]);
  const path = [weth.address, token.address];
  await write(router, "swapExactETHForTokens", [out, path, me, deadline], {
    value: input,
    gas: plenty,
  });
  const [a, b] = await read(pair, "getReserves");
  const wanted = [amounts[0] - out, amounts[1] + input];
  assert.deepEqual(
    [a, b],
    BigInt(token.address) < BigInt(weth.address) ? wanted : wanted.toReversed(),
  );
  const greedy = node.simulateContract({
    ...router,
    functionName: "swapExactETHForTokens",
    args: [out, path, me, deadline],
    value: input,
    account: me,
  });
  assert.equal((await revert(greedy))[2], "UniswapV2Router: INSUFFICIENT_OUTPUT_AMOUNT");
});

check("Uniswap V3 core: pool, liquidity, swap", async () => {
  const other = await deploy("Token", ["Silver", "SLV", 18, parseEther("1000")]);
  const trader = await deploy("Trader");
  const factory = await bring("UniswapV3Factory");
  await write(factory, "createPool", [token.address, other.address, 3000], { gas: 3n * plenty });
  const { abi } = artifact("UniswapV3Pool");
  const pool = {
    address: await read(factory, "getPool", [token.address, other.address, 3000]),
    abi,
  };
  await write(pool, "initialize", [2n ** 96n]);
  for (const each of [token, other]) await done(each.write.approve([trader.address, maxUint256]));
  const amount = parseEther("10");
  await done(trader.write.mint([pool.address, -887220, 887220, amount], { gas: plenty }));
  const input = parseEther("1");
  const { logs } = await done(
    trader.write.swap([pool.address, true, input, 4295128740n], { gas: plenty }),
  );
  const [swap] = parseEventLogs({ abi, logs, eventName: "Swap" });
  const below = amount + (input * 997_000n) / 1_000_000n;
  const price = (amount * 2n ** 96n + below - 1n) / below;
  assert.equal(swap.args.sqrtPriceX96, price);
  assert.equal(swap.args.amount1, -((amount * (2n ** 96n - price)) >> 96n));
});

check(
  "Aave V3: supply, borrow, refusal, repay",
  async () => {
    const { pool, collateral, cash } = await deployMarket("aave", deployer, me);
    for (const asset of [collateral, cash])
      await write(asset, "approve", [pool.address, maxUint256]);
    const gas = { gas: plenty };
    await write(pool, "supply", [collateral.address, parseEther("10"), me, 0], gas);
    await write(pool, "supply", [cash.address, 10n ** 11n, me, 0], gas);
    const over = node.simulateContract({
      ...pool,
      functionName: "borrow",
      args: [cash.address, 15n * 10n ** 10n, 2n, 0, me],
      account: me,
    });
    assert.equal((await revert(over))[2], "36");
    await write(pool, "borrow", [cash.address, 10n ** 10n, 2n, 0, me], gas);
    const debt = async () => (await read(pool, "getUserAccountData", [me]))[1];
    assert.equal((await debt()) / 10n ** 8n, 10_000n);
    await write(pool, "repay", [cash.address, maxUint256, 2n, me], gas);
    assert.equal(await debt(), 0n);
  },
  { limitMs: 120_000 },
);

check("the lending market of bench/: deposit, borrow, refusal, repay", async () => {
  const { lending, collateral, cash } = await deployMarket("own", deployer, me);
  const gas = { gas: plenty };
  await write(lending, "deposit", [cash.address, 10n ** 11n], gas);
  await write(lending, "deposit", [collateral.address, parseEther("10")], gas);
  const over = {
    ...lending,
    functionName: "borrow",
    args: [cash.address, 10n ** 11n],
    account: me,
  };
  assert.equal((await revert(node.simulateContract(over)))[0], "Unhealthy");
  await write(lending, "borrow", [cash.address, 10n ** 10n], gas);
  await write(lending, "repay", [cash.address, maxUint256], gas);
  assert.equal(await read(lending, "debtOf", [cash.address, me]), 0n);
});

check("reverts decode", async () => {
  const faults = await deploy("Faults");
  const call = (name, args = []) => revert(faults.simulate[name](args));
  assert.deepEqual((await call("custom", [7n])).slice(0, 2), ["Refused", [me, 7n]]);
  assert.equal((await call("reason", ["no luck"]))[2], "no luck");
  assert.equal((await call("divide", [0n]))[1][0], 0x12n);
  assert.equal((await call("index", [5n]))[1][0], 0x32n);
  assert.deepEqual((await revert(faults.write.custom([3n]))).slice(0, 2), ["Refused", [me, 3n]]);
  const hash = await faults.write.custom([9n], { gas: 100_000n });
  assert.equal((await node.waitForTransactionReceipt({ hash })).status, "reverted");
});

check("refusals by name", async () => {
  const typed = (from, more) =>
    failure(from.sendTransaction({ to: me, value: 1n, gas: 21_000n, ...more }));
  const has = (error, kind) =>
    assert(error.walk((one) => one instanceof kind) instanceof kind, error.message);
  has(await typed(owner, { nonce: 0 }), NonceTooLowError);
  has(await typed(owner, { value: parseEther("1000000") }), InsufficientFundsError);
  assert.match((await typed(owner, { gas: 20_000n })).message, /intrinsic gas too low/);
});

check("events, logs, proofs, access lists", async () => {
  const receipt = await done(counter.write.bump([zeroHash]));
  const range = { fromBlock: receipt.blockNumber, toBlock: receipt.blockNumber };
  assert.equal((await counter.getEvents.Bumped({ by: me }, range)).length, 1);
  const proof = await provider.request({
    method: "eth_getProof",
    params: [counter.address, [zeroHash], `0x${receipt.blockNumber.toString(16)}`],
  });
  await checkProof(proof, (await node.getBlock({ blockNumber: receipt.blockNumber })).stateRoot);
  const data = encodeFunctionData({ abi: counter.abi, functionName: "bump", args: [zeroHash] });
  const { accessList } = await node.createAccessList({ account: me, to: counter.address, data });
  assert.equal(accessList[0].storageKeys.length, 2);
  const calls = [
    { ...token, functionName: "symbol" },
    { ...token, functionName: "transfer", args: [zeroAddress, 1n] },
  ];
  const answers = await node.multicall({ contracts: calls, multicallAddress: multicall3 });
  assert.deepEqual(
    answers.map(({ status }) => status),
    ["success", "failure"],
  );
  assert.deepEqual([...(await counter.simulate.opcodes([1n])).result], [42n, 42n, 255n]);
});

check("Ignition deploys a module", async () => {
  // Ignition keeps a journal for each deployment, and would take up an old one where it ended.
  const deploymentId = `run-${generatePrivateKey().slice(2, 18)}`;
  const { token: made, counter: counted, nft } = await ignition.deploy(shop, { deploymentId });
  assert.equal(await made.read.symbol(), "SHP");
  assert.equal(await counted.read.value(), 7n);
  assert.equal(await nft.read.tokenURI([1n]), "ipfs://ignition");
});

check("unlocked accounts", async () => {
  const { viem: remote } = await network.create("unlocked");
  const clients = await remote.getWalletClients(fast);
  assert(clients.length >= 10);
  const from = clients[7];
  const to = fresh();
  await done(from.sendTransaction({ to, value: 5n }));
  assert.equal(await node.getBalance({ address: to }), 5n);
  const signature = await from.signMessage({ message: "hello" });
  assert.equal(
    await recoverMessageAddress({ message: "hello", signature }),
    getAddress(from.account.address),
  );
  const typed = {
    domain: { chainId: 31337 },
    types: { Note: [{ name: "text", type: "string" }] },
    primaryType: "Note",
    message: { text: "x" },
  };
  const note = await from.signTypedData(typed);
  assert.equal(
    await recoverTypedDataAddress({ ...typed, signature: note }),
    getAddress(from.account.address),
  );
});

check("a fork inside Hardhat reads the node's state", async () => {
  // Without a height Hardhat goes back by some hundred blocks, in case they are undone.
  const blockNumber = Number(await node.getBlockNumber());
  const forking = { url: process.env.RPC_URL, blockNumber };
  const fork = await network.create({ network: "fork", override: { forking } });
  try {
    const at = await fork.viem.getContractAt("Counter", counter.address);
    const value = await counter.read.value();
    assert.equal(await at.read.value(), value);
    await at.write.bump([zeroHash]);
    assert.equal(await at.read.value(), value + 1n);
    assert.equal(await counter.read.value(), value);
  } finally {
    await fork.close();
  }
});

await run("hardhat", async () => {
  assert.equal(await ask("eth_chainId"), "0x7a69");
});
