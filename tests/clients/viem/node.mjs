// viem: what the node answers by itself: transactions, logs, proofs, the pool.
import assert from "node:assert/strict";
import {
  InsufficientFundsError,
  IntrinsicGasTooLowError,
  NonceTooLowError,
  concat,
  createPublicClient,
  createWalletClient,
  encodeFunctionData,
  hashTypedData,
  http,
  keccak256,
  pad,
  parseAbi,
  parseEther,
  parseEventLogs,
  parseGwei,
  recoverTypedDataAddress,
  serializeTransaction,
  stringToHex,
  verifyMessage,
  webSocket,
  zeroAddress,
  zeroHash,
} from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { awaited, check, deployer2, failure, multicall3, url, wsUrl } from "../lib/check.mjs";
import { encodedReceipt, headerHash, listRoot } from "../lib/proof.mjs";
import {
  owner,
  alice,
  bob,
  token,
  counter,
  me,
  node,
  dev,
  funded,
  done,
  deploy,
  write,
  read,
  cause,
  options,
  chain,
} from "./setup.mjs";

check("chain, accounts and node", async () => {
  assert.equal(await node.getChainId(), 31337);
  assert.equal(await node.request({ method: "net_version" }), "31337");
  assert.equal(await node.request({ method: "net_listening" }), true);
  assert.match(await node.request({ method: "web3_clientVersion" }), /\S+/);
  assert.equal(
    await node.request({ method: "web3_sha3", params: ["0x68656c6c6f"] }),
    keccak256("0x68656c6c6f"),
  );
  const height = await node.getBlockNumber();
  const block = await node.getBlock({ blockNumber: height });
  assert.equal(block.number, height);
  for (const blockTag of ["earliest", "safe", "finalized", "latest", "pending"])
    await node.getBlock({ blockTag });
  assert((await node.getBalance({ address: dev[0].address })) > parseEther("100"));
  assert.notEqual(await node.getCode({ address: deployer2 }), undefined);
  assert.notEqual(await node.getCode({ address: multicall3 }), undefined);
  assert.equal(await node.request({ method: "eth_syncing" }), false);
});

check("EIP-1559: balances move to the wei", async () => {
  const to = privateKeyToAccount(generatePrivateKey()).address;
  const before = await node.getBalance({ address: me() });
  const hash = await owner.sendTransaction({
    to,
    value: 12345n,
    maxPriorityFeePerGas: parseGwei("1"),
  });
  const receipt = await done(hash);
  const block = await node.getBlock({ blockHash: receipt.blockHash });
  const sent = await node.getTransaction({ hash });
  assert.equal(receipt.type, "eip1559");
  assert.equal(receipt.gasUsed, 21000n);
  const price = block.baseFeePerGas + parseGwei("1");
  assert.equal(receipt.effectiveGasPrice, price < sent.maxFeePerGas ? price : sent.maxFeePerGas);
  assert.equal(await node.getBalance({ address: to, blockNumber: receipt.blockNumber - 1n }), 0n);
  assert.equal(await node.getBalance({ address: to, blockNumber: receipt.blockNumber }), 12345n);
  assert.equal(
    await node.getBalance({ address: me() }),
    before - 12345n - 21000n * receipt.effectiveGasPrice,
  );
  assert.equal(sent.blockHash, receipt.blockHash);
  assert.equal(block.transactions[receipt.transactionIndex], hash);
  const byIndex = await node.getTransaction({
    blockHash: receipt.blockHash,
    index: receipt.transactionIndex,
  });
  assert.equal(byIndex.hash, hash);
  assert((await node.getTransactionConfirmations({ hash })) >= 1n);
});

check("legacy, EIP-2930 and EIP-7702 transactions", async () => {
  const data = encodeFunctionData({ ...counter, functionName: "bump", args: [zeroHash] });
  const gasPrice = (await node.getGasPrice()) * 2n;
  const legacy = await owner.sendTransaction({
    type: "legacy",
    to: counter.address,
    data,
    gasPrice,
  });
  assert.equal((await done(legacy)).type, "legacy");
  assert.equal((await node.getTransaction({ hash: legacy })).gasPrice, gasPrice);

  const accessList = [{ address: counter.address.toLowerCase(), storageKeys: [zeroHash] }];
  const listed = await owner.sendTransaction({
    type: "eip2930",
    to: counter.address,
    data,
    gasPrice,
    accessList,
  });
  assert.equal((await done(listed)).type, "eip2930");
  assert.deepEqual(
    (await node.getTransaction({ hash: listed })).accessList.map((item) => ({
      ...item,
      address: item.address.toLowerCase(),
    })),
    accessList,
  );

  const batch = await deploy(owner, "Batch");
  const authorization = await alice.signAuthorization({ contractAddress: batch.address });
  const calls = [1, 2].map(() => ({ to: counter.address, value: 0n, data }));
  const hash = await owner.sendTransaction({
    to: alice.account.address,
    data: encodeFunctionData({ ...batch, functionName: "execute", args: [calls] }),
    authorizationList: [authorization],
  });
  const receipt = await done(hash);
  assert.equal(receipt.type, "eip7702");
  const logs = parseEventLogs({ abi: [...counter.abi, ...batch.abi], logs: receipt.logs });
  assert.deepEqual(
    logs.map((log) => log.eventName),
    ["Bumped", "Bumped", "Executed"],
  );
  assert.equal(logs[0].args.by, alice.account.address);
  assert.equal(
    await node.getCode({ address: alice.account.address }),
    concat(["0xef0100", batch.address.toLowerCase()]),
  );
  assert.equal(
    (await node.getTransaction({ hash })).authorizationList[0].address.toLowerCase(),
    batch.address.toLowerCase(),
  );
  assert.equal(await node.getTransactionCount({ address: alice.account.address }), 1);
  // The delegation sends by itself, and is taken back by an authorization of the zero address.
  const self = await alice.signAuthorization({ contractAddress: zeroAddress, executor: "self" });
  await done(await alice.sendTransaction({ to: me(), authorizationList: [self] }));
  assert.equal(await node.getCode({ address: alice.account.address }), undefined);
  assert.equal(await read(counter, "value"), 14n);
  assert.equal(await read(counter, "bumps", [alice.account.address]), 2n);
});

check("gas estimates, access lists, fee history, overrides", async () => {
  const data = encodeFunctionData({ ...counter, functionName: "bumpMany", args: [20n] });
  const gas = await node.estimateGas({ account: owner.account, to: counter.address, data });
  const receipt = await done(await owner.sendTransaction({ to: counter.address, data, gas }));
  assert(
    receipt.gasUsed <= gas && gas < (receipt.gasUsed * 3n) / 2n,
    `${gas} for ${receipt.gasUsed}`,
  );
  assert.equal(await node.estimateGas({ account: owner.account, to: me(), value: 1n }), 21000n);

  const { accessList, gasUsed } = await node.createAccessList({
    account: me(),
    to: counter.address,
    data,
  });
  assert.equal(accessList[0].address.toLowerCase(), counter.address.toLowerCase());
  assert.equal(accessList[0].storageKeys.length, 2);
  assert(gasUsed > 21000n);
  await done(await owner.sendTransaction({ to: counter.address, data, accessList, gas: 2n * gas }));

  const history = await node.getFeeHistory({ blockCount: 2, rewardPercentiles: [10, 90] });
  assert.equal(history.baseFeePerGas.length, 3);
  assert.deepEqual(
    [history.gasUsedRatio.length, history.reward.length, history.reward[0].length],
    [2, 2, 2],
  );
  const oldest = await node.getBlock({ blockNumber: history.oldestBlock });
  assert.equal(history.baseFeePerGas[0], oldest.baseFeePerGas);
  const fees = await node.estimateFeesPerGas();
  assert(fees.maxFeePerGas >= (await node.getBlock()).baseFeePerGas);
  await node.estimateMaxPriorityFeePerGas();

  const value = (stateOverride) =>
    node.call({
      to: counter.address,
      data: encodeFunctionData({ ...counter, functionName: "value" }),
      stateOverride,
    });
  const stateDiff = [{ slot: zeroHash, value: pad("0x63") }];
  assert.equal(BigInt((await value([{ address: counter.address, stateDiff }])).data), 99n);
  assert.equal(BigInt((await value()).data), await read(counter, "value"));
  const balance = await node.readContract({
    address: multicall3,
    abi: parseAbi(["function getEthBalance(address) view returns (uint256)"]),
    functionName: "getEthBalance",
    args: [deployer2],
    stateOverride: [{ address: deployer2, balance: 77n }],
  });
  assert.equal(balance, 77n);
  // Call without a deployed contract: the code runs as a creation.
  assert.equal((await node.call({ data: "0x602a60005260206000f3" })).data, pad("0x2a"));
});

check("JSON-RPC batches", async () => {
  const batched = createPublicClient({
    chain,
    transport: http(url, { batch: { batchSize: 100, wait: 5 } }),
  });
  const answers = await Promise.all(
    Array.from({ length: 250 }, (_, at) =>
      at % 3 === 0
        ? batched.getChainId()
        : at % 3 === 1
          ? batched.getCode({ address: deployer2 })
          : batched.getBalance({ address: zeroAddress }),
    ),
  );
  assert.equal(answers.length, 250);
  const mixed = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify([
      { jsonrpc: "2.0", id: 1, method: "eth_chainId" },
      { jsonrpc: "2.0", id: "x", method: "no_such" },
    ]),
  }).then((answer) => answer.json());
  assert.equal(mixed.find((one) => one.id === 1).result, "0x7a69");
  assert.equal(mixed.find((one) => one.id === "x").error.code, -32601);
});

check("logs by query and by filter", async () => {
  const note = generatePrivateKey();
  const filter = await node.createContractEventFilter({
    ...counter,
    eventName: "Bumped",
    args: { by: me() },
  });
  const blocks = await node.createBlockFilter();
  const receipt = await write(owner, counter, "bump", [note]);
  const polled = [];
  const limit = Date.now() + 20_000;
  while (polled.length === 0 && Date.now() < limit)
    polled.push(...(await node.getFilterChanges({ filter })));
  assert.equal(polled.length, 1);
  assert.equal(polled[0].args.note, note);
  assert.equal(polled[0].transactionHash, receipt.transactionHash);
  assert((await node.getFilterChanges({ filter: blocks })).includes(receipt.blockHash));
  assert((await node.getFilterLogs({ filter })).length >= 1);
  assert.equal(await node.uninstallFilter({ filter }), true);
  await node.uninstallFilter({ filter: blocks });

  const { blockHash, blockNumber } = receipt;
  const value = await read(counter, "value");
  const byTopic = (args, range) =>
    node.getContractEvents({ ...counter, eventName: "Bumped", args, ...range });
  const range = { fromBlock: blockNumber, toBlock: blockNumber };
  assert.equal((await byTopic({ value }, range)).length, 1);
  assert.equal((await byTopic({ by: [me(), zeroAddress] }, range)).length, 1);
  assert.equal((await byTopic({ value: value + 1n }, range)).length, 0);
  assert.equal((await byTopic({ value }, { blockHash })).length, 1);
  assert.equal(
    (await node.getLogs({ address: [counter.address, token.address], ...range })).length,
    1,
  );
  assert.equal((await node.getLogs({ address: token.address, ...range })).length, 0);
  const [log] = await byTopic({ value }, range);
  assert.deepEqual(
    [log.blockHash, log.logIndex, log.transactionIndex, log.removed],
    [blockHash, receipt.logs[0].logIndex, receipt.transactionIndex, false],
  );
});

check("watching over HTTP", async () => {
  const seen = awaited("an event by polling");
  const stop = node.watchContractEvent({
    ...counter,
    eventName: "Bumped",
    args: { by: me() },
    onLogs: seen.give,
    onError: seen.fail,
  });
  const head = awaited("a block by polling");
  const stopHeads = node.watchBlocks({ onBlock: head.give, onError: head.fail, emitOnBegin: true });
  try {
    await head.come();
    // The watcher sets its filter up by itself, unseen: send until something has come.
    let come = false;
    const end = seen.come().finally(() => {
      come = true;
    });
    while (!come) await write(owner, counter, "bump", [pad("0x01")]);
    const logs = await end;
    assert.equal(logs[0].args.by, me());
  } finally {
    stop();
    stopHeads();
  }
});

check("subscriptions over WebSocket", async () => {
  const ws = createPublicClient({ ...options, transport: webSocket(wsUrl, { reconnect: false }) });
  const socket = await ws.transport.getRpcClient();
  try {
    const subscribe = async (params, accept) => {
      const event = awaited(`subscription ${params[0]}`);
      const { unsubscribe } = await ws.transport.subscribe({
        params,
        onData: ({ result }) => accept(result) && event.give(result),
        onError: event.fail,
      });
      return { come: event.come, unsubscribe };
    };
    assert.equal(await ws.getChainId(), 31337);
    let hash;
    const gas = 100_000n;
    const request = await owner.prepareTransactionRequest({
      to: counter.address,
      gas,
      data: encodeFunctionData({ ...counter, functionName: "bump", args: [pad("0x02")] }),
    });
    const raw = await owner.signTransaction(request);
    hash = keccak256(raw);
    const pending = await subscribe(["newPendingTransactions"], (result) => result === hash);
    const logs = await subscribe(
      ["logs", { address: counter.address }],
      (log) => log.transactionHash === hash,
    );
    const heads = await subscribe(["newHeads"], (head) => BigInt(head.number) > 0n);
    assert.equal(await ws.sendRawTransaction({ serializedTransaction: raw }), hash);
    assert.equal(await pending.come(), hash);
    const log = await logs.come();
    const head = await heads.come();
    // What an event tells of can be read.
    const receipt = await node.getTransactionReceipt({ hash });
    assert.equal(receipt.blockHash, log.blockHash);
    assert.equal((await node.getBlock({ blockHash: head.hash })).number, BigInt(head.number));
    assert.equal(headerHash(head), head.hash);
    for (const each of [pending, logs, heads]) await each.unsubscribe();

    // The same through viem's own watchers.
    const watched = awaited("watchContractEvent");
    const stop = ws.watchContractEvent({
      ...counter,
      eventName: "Bumped",
      onLogs: watched.give,
      onError: watched.fail,
    });
    let come = false;
    const end = watched.come().finally(() => {
      come = true;
    });
    while (!come) await write(owner, counter, "bump", [pad("0x03")]);
    assert.equal((await end)[0].args.note, pad("0x03"));
    stop();
  } finally {
    socket.close();
  }
});

check("block hash, transactions root and receipts root", async () => {
  const hashes = [];
  const nonce = await node.getTransactionCount({ address: me() });
  for (let at = 0; at < 3; at++) {
    hashes.push(
      await owner.writeContract({
        ...counter,
        functionName: "bump",
        args: [zeroHash],
        nonce: nonce + at,
        gas: 100_000n,
      }),
    );
  }
  const receipts = await Promise.all(hashes.map(done));
  for (const blockHash of new Set(receipts.map((receipt) => receipt.blockHash))) {
    const raw = await node.request({ method: "eth_getBlockByHash", params: [blockHash, true] });
    assert.equal(headerHash(raw), blockHash, "block hash");
    const block = await node.getBlock({ blockHash, includeTransactions: true });
    assert.equal(
      await listRoot(
        block.transactions.map((tx) => {
          const encoded = serializeTransaction(
            {
              ...tx,
              data: tx.input,
              chainId: tx.chainId,
              gasPrice: ["legacy", "eip2930"].includes(tx.type) ? tx.gasPrice : undefined,
            },
            { r: tx.r, s: tx.s, v: tx.v, yParity: tx.yParity },
          );
          assert.equal(keccak256(encoded), tx.hash, "transaction hash");
          return encoded;
        }),
      ),
      raw.transactionsRoot,
      "transactions root",
    );
    const inBlock = await node.request({ method: "eth_getBlockReceipts", params: [blockHash] });
    assert.equal(inBlock.length, raw.transactions.length);
    assert.equal(await listRoot(inBlock.map(encodedReceipt)), raw.receiptsRoot, "receipts root");
    for (const one of inBlock) {
      assert.deepEqual(
        await node.request({ method: "eth_getTransactionReceipt", params: [one.transactionHash] }),
        one,
      );
    }
    assert.equal(
      (await node.getBlockReceipts({ blockNumber: block.number })).length,
      inBlock.length,
    );
    assert.equal(await node.getBlockTransactionCount({ blockHash }), inBlock.length);
  }
});

check("pool: gaps, replacement, refusals by name", async () => {
  const from = await funded(1);
  const { address } = from.account;
  const fee = (await node.getBlock()).baseFeePerGas * 4n + parseGwei("10");
  const signed = (nonce, value, more = {}) =>
    from.signTransaction({
      type: "eip1559",
      to: me(),
      value,
      nonce,
      gas: 21_000n,
      maxFeePerGas: fee,
      maxPriorityFeePerGas: parseGwei("1"),
      ...more,
    });
  const send = async (serializedTransaction) => node.sendRawTransaction({ serializedTransaction });
  const refusal = async (transaction) => `${(await failure(send(await transaction))).details}`;
  // Nonces 2 and 1 wait for 0.
  await send(await signed(2, 3n));
  const replaced = await send(await signed(1, 2n));
  assert.equal(await node.getTransactionCount({ address }), 0);
  assert.match(await refusal(signed(1, 5n)), /replacement transaction underpriced/);
  assert.match(await refusal(signed(1, 2n)), /already known|already imported/);
  const double = { maxFeePerGas: fee * 2n, maxPriorityFeePerGas: parseGwei("2") };
  const better = await send(await signed(1, 4n, double));
  const last = await send(await signed(0, 1n));
  for (const hash of [last, better]) await done(hash);
  assert.equal(
    (await failure(node.getTransactionReceipt({ hash: replaced }))).name,
    "TransactionReceiptNotFoundError",
  );
  await done(keccak256(await signed(2, 3n)));
  assert.equal(await node.getTransactionCount({ address }), 3);

  assert.match(await refusal(signed(0, 9n)), /nonce too low/);
  assert.match(await refusal(signed(3, parseEther("2"))), /insufficient funds/i);
  assert.match(await refusal(signed(3, 1n, { gas: 20_000n })), /intrinsic gas too low/);
  const typed = (more) =>
    failure(from.sendTransaction({ to: me(), value: 1n, gas: 21_000n, ...more }));
  cause(await typed({ nonce: 0 }), NonceTooLowError);
  cause(await typed({ value: parseEther("2") }), InsufficientFundsError);
  cause(await typed({ gas: 20_000n }), IntrinsicGasTooLowError);
  assert.equal(await node.getTransactionCount({ address, blockTag: "pending" }), 3);
});

check("sendRawTransactionSync answers with the receipt", async () => {
  const request = await owner.prepareTransactionRequest({ to: bob.account.address, value: 1n });
  const serializedTransaction = await owner.signTransaction(request);
  const receipt = await node.sendRawTransactionSync({ serializedTransaction });
  assert.equal(receipt.status, "success");
  assert.equal(receipt.transactionHash, keccak256(serializedTransaction));
  assert.equal(
    (await node.getTransactionReceipt({ hash: receipt.transactionHash })).blockHash,
    receipt.blockHash,
  );
});

check(
  "sendRawTransactionSync takes a time limit, as a number and in hex",
  async () => {
    const again = await owner.sendTransactionSync({
      to: bob.account.address,
      value: 1n,
      timeout: 10_000,
    });
    assert.equal(again.status, "success");
    const raw = await owner.signTransaction(
      await owner.prepareTransactionRequest({ to: bob.account.address, value: 1n }),
    );
    const receipt = await node.request({
      method: "eth_sendRawTransactionSync",
      params: [raw, "0x2710"],
    });
    assert.equal(receipt.transactionHash, keccak256(raw));
  },
  { anvil: "wants bytes where the time limit stands" },
);

check("unlocked accounts", async () => {
  const unlocked = createWalletClient({ ...options, transport: http(url) });
  const accounts = await unlocked.getAddresses();
  assert.deepEqual(
    accounts.slice(0, 2),
    dev.map(({ address }) => address),
  );
  assert(accounts.length >= 10);
  const account = accounts[1];
  const to = privateKeyToAccount(generatePrivateKey()).address;
  await done(await unlocked.sendTransaction({ account, to, value: 5n }));
  assert.equal(await node.getBalance({ address: to }), 5n);
  const message = "hello sluice";
  const signature = await unlocked.signMessage({ account, message });
  assert(await verifyMessage({ address: account, message, signature }));
  const signed = await node.request({
    method: "eth_sign",
    params: [account, stringToHex(message)],
  });
  assert.equal(signed, signature);
  const typed = {
    domain: { name: "Test", chainId: 31337 },
    types: {
      Note: [
        { name: "text", type: "string" },
        { name: "count", type: "uint256" },
      ],
    },
    primaryType: "Note",
    message: { text: "x", count: 3n },
  };
  const note = await unlocked.signTypedData({ account, ...typed });
  assert.equal(await recoverTypedDataAddress({ ...typed, signature: note }), account);
  assert.match(hashTypedData(typed), /^0x/);
});
