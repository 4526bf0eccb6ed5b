// Foundry against a node: forge create, forge script, forge test on a fork, and cast. The compiler
// is npm's solc.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { encodeAbiParameters, encodeDeployData, hexToNumber } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { artifact, deployMarket } from "./lib/artifacts.mjs";
import {
  ask,
  awaited,
  check,
  deployer2,
  mnemonic,
  run,
  swapOut,
  url,
  wsUrl,
} from "./lib/check.mjs";
import { checkProof } from "./lib/proof.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const home = join(here, ".build", "home");
mkdirSync(home, { recursive: true });
const require = createRequire(import.meta.url);
const native = (tool) => {
  const arch = process.arch === "x64" ? "amd64" : process.arch;
  const found = require.resolve(`@foundry-rs/${tool}-${process.platform}-${arch}/package.json`);
  return join(dirname(found), "bin", tool);
};
// The tools look for no signature, compiler or update outside, and keep their caches here.
const path = `${join(here, "node_modules", ".bin")}:${process.env.PATH}`;
const quiet = { FOUNDRY_OFFLINE: "true", NO_COLOR: "1", FOUNDRY_DISABLE_NIGHTLY_WARNING: "1" };
const base = {
  ...process.env,
  ...quiet,
  PATH: path,
  HOME: home,
  XDG_CACHE_HOME: home,
  ETH_RPC_URL: url,
};

const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));
/** Runs a tool: { code, out, err }. */
const tool = (name, args, env = {}, limitMs = 120_000) =>
  new Promise((yes) => {
    const options = {
      cwd: here,
      env: { ...base, ...env },
      timeout: limitMs,
      killSignal: "SIGKILL",
      maxBuffer: 1 << 28,
    };
    const child = execFile(native(name), args.map(String), options, (error, out, err) => {
      running.delete(child);
      yes({ code: error ? (error.code ?? 1) : 0, out: out.trim(), err: err.trim() });
    });
    running.add(child);
  });
const good = async (...given) => {
  const { code, out, err } = await tool(...given);
  assert.equal(
    code,
    0,
    `${given[0]} ${given[1].slice(0, 6).join(" ")}\n${out.slice(-2000)}\n${err.slice(-2000)}`,
  );
  return out;
};
const cast = (...args) => good("cast", args);
const refused = async (...args) => {
  const { code, out, err } = await tool("cast", args);
  assert.notEqual(code, 0, `not refused: cast ${args.slice(0, 5).join(" ")}: ${out}`);
  return err;
};
const forge = (args, env) => good("forge", args, env);
const compiler = ["--use", "./solc-wrapper"];
const json = (text) => JSON.parse(text.slice(text.search(/[{[]/)));
const send = async (key, ...args) => {
  const receipt = json(await cast("send", "--json", "--private-key", key, ...args));
  assert.equal(receipt.status, "0x1", JSON.stringify(receipt).slice(0, 500));
  return receipt;
};
const call = async (to, signature, ...args) =>
  (await cast("call", to, signature, ...args)).split(" ")[0];
const account = () => {
  const key = generatePrivateKey();
  return { key, address: privateKeyToAccount(key).address };
};
const funded = async (ether = 5) => {
  const made = account();
  const from = ["--mnemonic", mnemonic, "--mnemonic-index", "3"];
  await cast("send", "--json", ...from, made.address, "--value", `${ether}ether`);
  return made;
};
/** The type of an array's items. */
const item = (type) => ({ ...type, type: type.type.replace(/\[\d*\]$/, "") });
/** An ABI value as cast wants it written. */
const written = (value, type) =>
  Array.isArray(value)
    ? type.type.endsWith("]")
      ? `[${value.map((one) => written(one, item(type))).join(",")}]`
      : `(${value.map((one, at) => written(one, type.components[at])).join(",")})`
    : `${value}`;
const typed = (type) =>
  type.type.startsWith("tuple")
    ? `(${type.components.map(typed).join(",")})${type.type.slice(5)}`
    : type.type;
const signature = (abi, name) => {
  const entry = abi.find((one) => one.type === "function" && one.name === name);
  const results = entry.outputs.length ? `(${entry.outputs.map(typed).join(",")})` : "";
  return { text: `${name}(${entry.inputs.map(typed).join(",")})${results}`, inputs: entry.inputs };
};

/** Deploys and calls with `cast send`. */
const deployer = (owner) => ({
  deploy: async ({ abi, bytecode }, args) => {
    const inputs = abi.find(({ type }) => type === "constructor")?.inputs ?? [];
    const code = bytecode + encodeAbiParameters(inputs, args).slice(2);
    const receipt = await send(owner.key, "--gas-limit", "12000000", "--create", code);
    return cast("to-check-sum-address", receipt.contractAddress);
  },
  call: async ({ address, abi }, name, args) => {
    const { text, inputs } = signature(abi, name);
    await send(
      owner.key,
      "--gas-limit",
      "12000000",
      address,
      text,
      ...args.map((arg, at) => written(arg, inputs[at])),
    );
  },
  read: async ({ address, abi }, name, args = []) =>
    call(address, signature(abi, name).text, ...args),
});
const acting =
  (owner) =>
  (contract, name, ...args) =>
    send(
      owner.key,
      "--gas-limit",
      "3000000",
      contract.address,
      signature(contract.abi, name).text,
      ...args,
    );

let me;
let counter;
let token;

check("cast reads", async () => {
  assert.equal(await cast("chain-id"), "31337");
  assert.match(await cast("client"), /\S/);
  const height = await cast("block-number");
  const block = json(await cast("block", height, "--json"));
  assert.equal(hexToNumber(block.number), Number(height));
  assert.equal(await cast("block", height, "--field", "hash"), block.hash);
  for (const tag of ["latest", "safe", "finalized", "earliest", "pending"])
    await cast("block", tag, "--json");
  assert(BigInt(await cast("balance", me.address)) > 0n);
  assert.equal(await cast("nonce", me.address), "0");
  assert(BigInt(await cast("gas-price")) > 0n);
  assert.equal(BigInt(await cast("base-fee", height)), BigInt(block.baseFeePerGas));
  assert.notEqual(await cast("code", deployer2), "0x");
  assert.equal(await cast("codesize", deployer2), "69");
  await cast("age", height);
  assert.match(await cast("find-block", BigInt(block.timestamp)), /^\d+$/);
  assert.equal(await cast("rpc", "eth_chainId"), '"0x7a69"');
});

check(
  "forge create: OpenZeppelin ERC-20 and ERC-721",
  async () => {
    const create = async (name, ...args) => {
      const more = args.length ? ["--constructor-args", ...args] : [];
      const from = ["--private-key", me.key, "--broadcast", "--json"];
      const out = await forge([
        "create",
        `contracts/${name}.sol:${name}`,
        ...compiler,
        ...from,
        ...more,
      ]);
      return json(out.slice(out.lastIndexOf("{"))).deployedTo;
    };
    token = await create("Token", "Gold", "GLD", 18, 10n ** 21n);
    counter = await create("Counter", 10);
    const nft = await create("Collectible");
    assert.equal(await cast("call", token, "symbol()(string)"), '"GLD"');
    const other = account().address;
    const { logs } = await send(me.key, token, "transfer(address,uint256)", other, 7);
    assert.equal(logs.length, 1);
    assert.equal(await call(token, "balanceOf(address)(uint256)", other), "7");
    assert.equal(await cast("erc20", "balance", token, other), "7");
    await send(me.key, nft, "mint(address,string)", other, "ipfs://cast");
    assert.equal(await call(nft, "ownerOf(uint256)(address)", 1), other);
    assert.equal(await cast("call", nft, "tokenURI(uint256)(string)", 1), '"ipfs://cast"');
  },
  { limitMs: 180_000 },
);

check("cast send: EIP-1559, legacy, EIP-2930, EIP-7702, sync", async () => {
  const bump = [counter, "bump(bytes32)", `0x${"00".repeat(32)}`];
  assert.equal((await send(me.key, ...bump)).type, "0x2");
  assert.equal((await send(me.key, "--legacy", ...bump)).type, "0x0");
  // A list that is given is used as it is; without one, the node makes it.
  const list = JSON.stringify([{ address: counter, storageKeys: [`0x${"00".repeat(32)}`] }]);
  const listed = await send(me.key, "--access-list", list, ...bump);
  const sent = json(await cast("tx", listed.transactionHash, "--json"));
  assert.equal(sent.accessList.length, 1);
  const made = await send(me.key, ...bump, "--access-list");
  assert.equal(
    json(await cast("tx", made.transactionHash, "--json")).accessList[0].storageKeys.length,
    2,
  );

  const batch = json(
    await cast("send", "--json", "--private-key", me.key, "--create", artifact("Batch").bytecode),
  ).contractAddress;
  const other = await funded();
  const auth = await cast("wallet", "sign-auth", batch, "--private-key", other.key);
  const data = await cast("calldata", ...bump.slice(1));
  const receipt = await send(
    me.key,
    other.address,
    "execute((address,uint256,bytes)[])",
    `[(${counter},0,${data})]`,
    "--auth",
    auth,
  );
  assert.equal(receipt.type, "0x4");
  assert.equal(receipt.logs.length, 2);
  assert.equal(await cast("code", other.address), `0xef0100${batch.slice(2).toLowerCase()}`);
  assert.equal(await call(counter, "bumps(address)(uint256)", other.address), "1");
  const sync = json(await cast("send", "--json", "--sync", "--private-key", me.key, ...bump));
  assert.equal(sync.status, "0x1");
  assert.equal(await cast("receipt", sync.transactionHash, "blockHash"), sync.blockHash);
  const raw = await cast("mktx", "--private-key", me.key, ...bump);
  assert.equal(json(await cast("publish", raw)).transactionHash, await cast("keccak", raw));
});

check(
  "forge script: forty transactions at once",
  async () => {
    const salt = generatePrivateKey();
    const out = await forge(
      [
        "script",
        "foundry/script/Deploy.s.sol:Deploy",
        ...compiler,
        "--rpc-url",
        url,
        "--private-key",
        me.key,
        "--sender",
        me.address,
        "--broadcast",
        "-g",
        "200",
        "--non-interactive",
        "--json",
      ],
      { SALT: salt, SENDER: me.address },
    );
    assert.match(out, /"status":/);
    const { receipts, transactions, returns } = JSON.parse(
      readFileSync(
        join(here, ".build", "foundry", "broadcast", "Deploy.s.sol", "31337", "run-latest.json"),
      ),
    );
    assert(transactions.length >= 40, `${transactions.length} transactions`);
    assert.equal(receipts.length, transactions.length);
    assert(receipts.every(({ status }) => status === "0x1"));
    const {
      gold,
      counter: salted,
      pair,
      pool,
    } = Object.fromEntries(Object.entries(returns).map(([name, { value }]) => [name, value]));
    assert.equal(await call(salted, "value()(uint256)"), "20");
    const code = encodeDeployData({ ...creation(transactions, salted), args: [5n] });
    assert.equal(
      await cast("create2", "--deployer", deployer2, "--salt", salt, "--init-code", code),
      salted,
    );
    // The swaps, by Uniswap's own arithmetic.
    let [from, to] = [100n * 10n ** 18n, 200n * 10n ** 18n];
    for (let at = 0; at < 3; at++) {
      to -= swapOut(10n ** 18n, from, to);
      from += 10n ** 18n;
    }
    const reserves = (await cast("call", pair, "getReserves()(uint112,uint112,uint32)"))
      .split("\n")
      .map((line) => line.split(" ")[0]);
    const first = (await call(pair, "token0()(address)")) === gold;
    assert.deepEqual(reserves.slice(0, 2).map(BigInt), first ? [from, to] : [to, from]);
    assert.equal(await call(pool, "liquidity()(uint128)"), `${10n ** 19n}`);
  },
  { limitMs: 240_000 },
);

/** A salted contract's code as forge compiled it: what was sent, without salt and arguments. */
const creation = (transactions, address) => {
  const { transaction } = transactions.find(
    ({ contractAddress, transactionType }) =>
      transactionType === "CREATE2" && contractAddress.toLowerCase() === address.toLowerCase(),
  );
  return { abi: artifact("Counter").abi, bytecode: `0x${transaction.input.slice(66, -64)}` };
};

check(
  "forge test on a fork, cast run",
  async () => {
    const value = await call(counter, "value()(uint256)");
    const out = await forge(["test", ...compiler, "--fork-url", url, "--json"], {
      COUNTER: counter,
      VALUE: value,
    });
    const [suite] = Object.values(json(out));
    assert.deepEqual(
      Object.values(suite.test_results).map(({ status }) => status),
      ["Success", "Success"],
    );
    const { transactionHash } = await send(
      me.key,
      counter,
      "bump(bytes32)",
      `0x${"07".repeat(32)}`,
    );
    const trace = await cast("run", transactionHash, "--quick");
    assert.match(trace, /Transaction successfully executed/);
    const { gasUsed } = json(await cast("receipt", transactionHash, "--json"));
    assert.match(trace, new RegExp(`Gas used: ${BigInt(gasUsed)}`));
  },
  { limitMs: 180_000 },
);

check(
  "Aave V3 through cast: supply, borrow, refusal, repay",
  async () => {
    const owner = await funded(20);
    const market = await deployMarket("aave", deployer(owner), owner.address);
    const { pool, collateral, cash } = market;
    const act = acting(owner);
    const most = 2n ** 256n - 1n;
    for (const asset of [collateral, cash]) await act(asset, "approve", pool.address, most);
    await act(pool, "supply", collateral.address, 10n ** 19n, owner.address, 0);
    await act(pool, "supply", cash.address, 10n ** 11n, owner.address, 0);
    const borrow = ["borrow(address,uint256,uint256,uint16,address)", cash.address];
    const over = await refused(
      "estimate",
      pool.address,
      ...borrow,
      15n * 10n ** 10n,
      2,
      0,
      owner.address,
      "--from",
      owner.address,
    );
    assert.match(over, /execution reverted: 36/);
    await act(pool, "borrow", cash.address, 10n ** 10n, 2, 0, owner.address);
    const [, debt] = (
      await cast(
        "call",
        pool.address,
        signature(pool.abi, "getUserAccountData").text,
        owner.address,
      )
    ).split("\n");
    assert.equal(BigInt(debt.split(" ")[0]) / 10n ** 8n, 10_000n);
    await act(pool, "repay", cash.address, most, 2, owner.address);
    const after = (
      await cast(
        "call",
        pool.address,
        signature(pool.abi, "getUserAccountData").text,
        owner.address,
      )
    ).split("\n");
    assert.equal(after[1].split(" ")[0], "0");
  },
  { limitMs: 240_000 },
);

check("the lending market of bench/ through cast: deposit, borrow, refusal, repay", async () => {
  const owner = await funded();
  const { lending, collateral, cash } = await deployMarket("own", deployer(owner), owner.address);
  const act = acting(owner);
  await act(lending, "deposit", cash.address, 10n ** 11n);
  await act(lending, "deposit", collateral.address, 10n ** 19n);
  const over = await refused(
    "call",
    lending.address,
    "borrow(address,uint256)",
    cash.address,
    10n ** 11n,
    "--from",
    owner.address,
  );
  assert.match(over, new RegExp(await cast("sig", "Unhealthy(uint256)")));
  await act(lending, "borrow", cash.address, 10n ** 10n);
  await act(lending, "repay", cash.address, 10n ** 11n);
  assert.equal(
    await call(lending.address, "debtOf(address,address)(uint256)", cash.address, owner.address),
    "0",
  );
});

check("reverts decode", async () => {
  const { contractAddress: faults } = await send(me.key, "--create", artifact("Faults").bytecode);
  const custom = await refused("call", faults, "custom(uint256)", 7, "--from", me.address);
  const [data] = custom.match(/0x[0-9a-f]{136}/) ?? [];
  assert(data, custom);
  const decoded = await cast("decode-error", data, "--sig", "Refused(address,uint256)");
  assert.deepEqual(
    decoded.split("\n").map((line) => line.trim()),
    [me.address, "7"],
  );
  assert.match(
    await refused("call", faults, "reason(string)", "no luck"),
    /execution reverted: no luck/,
  );
  assert.match(
    await refused("send", "--private-key", me.key, faults, "reason(string)", "no luck"),
    /execution reverted: no luck/,
  );
  assert.match(
    await refused("call", faults, "divide(uint256)", 0),
    /division or modulo by zero|0x4e487b71/,
  );
  assert.match(
    await refused("estimate", faults, "index(uint256)", 9),
    /array|out-of-bounds|0x4e487b71/,
  );
  assert.match(await refused("call", faults, "silent()"), /execution reverted/);
  const script = [
    "script",
    "foundry/script/Deploy.s.sol:Deploy",
    ...compiler,
    "--rpc-url",
    url,
    "--private-key",
    me.key,
    "--non-interactive",
  ];
  const { code, out, err } = await tool("forge", [...script, "--sig", "refused(address)", faults]);
  assert.notEqual(code, 0);
  assert.match(out + err, new RegExp(`Refused\\(${me.address}, 7\\)`));
  const failed = json(
    await cast(
      "send",
      "--json",
      "--private-key",
      me.key,
      "--gas-limit",
      "100000",
      faults,
      "custom(uint256)",
      9,
    ),
  );
  assert.equal(failed.status, "0x0");
});

check("estimates, access lists, storage, overrides", async () => {
  const gas = BigInt(
    await cast("estimate", counter, "bumpMany(uint256)", 20, "--from", me.address),
  );
  const receipt = await send(me.key, counter, "bumpMany(uint256)", 20);
  assert(BigInt(receipt.gasUsed) <= gas);
  const list = json(
    await cast("access-list", counter, "bumpMany(uint256)", 2, "--from", me.address, "--json"),
  );
  assert.equal(list.accessList[0].storageKeys.length, 2);
  const value = await call(counter, "value()(uint256)");
  assert.equal(BigInt(await cast("storage", counter, 0)), BigInt(value));
  const slot = await cast("index", "address", me.address, 1);
  assert(BigInt(await cast("storage", counter, slot)) > 0n);
  const changed = await cast(
    "call",
    counter,
    "value()(uint256)",
    "--override-state-diff",
    `${counter}:0x0:0x63`,
  );
  assert.equal(changed.split(" ")[0], "99");
  const history = json(await cast("rpc", "eth_feeHistory", "0x2", "latest", "[50]"));
  assert.equal(history.baseFeePerGas.length, 3);
});

check("cast logs, by query and by subscription", async () => {
  const note = generatePrivateKey();
  const receipt = await send(me.key, counter, "bump(bytes32)", note);
  const at = BigInt(receipt.blockNumber);
  const event = "Bumped(address indexed,uint256 indexed,bytes32)";
  const query = async (...topics) =>
    json(
      await cast(
        "logs",
        "--json",
        "--from-block",
        at,
        "--to-block",
        at,
        "--address",
        counter,
        event,
        ...topics,
      ),
    );
  const found = (logs) =>
    logs.some(
      ({ data, transactionHash }) => data === note && transactionHash === receipt.transactionHash,
    );
  assert(found(await query()));
  assert(found(await query(me.address)));
  assert(!found(await query(account().address)));

  const line = awaited("a log by subscription");
  const child = spawn(
    native("cast"),
    ["logs", "--subscribe", "--json", "--rpc-url", wsUrl, "--address", counter, event],
    { cwd: here, env: base, stdio: ["ignore", "pipe", "pipe"] },
  );
  running.add(child);
  try {
    child.stdout.on("data", (chunk) => `${chunk}`.includes("0x") && line.give(`${chunk}`));
    child.on("exit", (code) => line.fail(new Error(`cast logs ended with ${code}`)));
    // cast does not say when it listens: send until something has come.
    let come = false;
    const end = line.come().finally(() => {
      come = true;
    });
    while (!come) await send(me.key, counter, "bump(bytes32)", note);
    assert.match(await end, new RegExp(counter.slice(2), "i"));
  } finally {
    child.kill("SIGKILL");
  }
});

check("cast proof against the block's state root", async () => {
  const height = await cast("block-number");
  const root = await cast("block", height, "--field", "stateRoot");
  const slot = await cast("index", "address", me.address, 1);
  const proof = json(await cast("proof", counter, `0x${"00".repeat(32)}`, slot, "--block", height));
  await checkProof(proof, root);
  assert.equal(proof.storageProof.length, 2);
  await checkProof(json(await cast("proof", account().address, "--block", height)), root);
  assert.equal(await cast("storage-root", counter, "--block", height), proof.storageHash);
});

check("pool: gaps, replacement, refusals by name", async () => {
  const from = await funded(1);
  const fee = BigInt(await cast("gas-price")) * 4n + 10n ** 10n;
  const signed = (nonce, value, more = [], price = fee) =>
    cast(
      "mktx",
      "--private-key",
      from.key,
      me.address,
      "--value",
      value,
      "--nonce",
      nonce,
      "--gas-limit",
      21000,
      "--gas-price",
      price,
      "--priority-gas-price",
      price / 10n,
      ...more,
    );
  const publish = async (raw) => (await cast("publish", "--async", await raw)).replaceAll('"', "");
  const refusal = async (raw) => refused("publish", "--async", await raw);
  await publish(signed(2, 3));
  await publish(signed(1, 2));
  assert.match(await refusal(signed(1, 5)), /replacement transaction underpriced/);
  assert.match(await refusal(signed(1, 2)), /already known|already imported/);
  const status = json(await cast("tx-pool", "status"));
  assert(BigInt(status.queued) >= 2n, JSON.stringify(status));
  json(await cast("tx-pool", "content"));
  const better = await publish(signed(1, 4, [], fee * 2n));
  const last = await publish(signed(0, 1));
  for (const hash of [last, better]) assert.match(await cast("receipt", hash, "status"), /1|true/);
  assert.match(await refusal(signed(0, 9)), /nonce too low/);
  assert.match(await refusal(signed(3, 2n * 10n ** 18n)), /insufficient funds/i);
  const little = [
    "--private-key",
    from.key,
    me.address,
    "--value",
    "1",
    "--nonce",
    "3",
    "--gas-limit",
    "20000",
  ];
  assert.match(await refused("send", ...little), /intrinsic gas too low/);
});

check("unlocked accounts", async () => {
  const accounts = json(await cast("rpc", "eth_accounts"));
  assert(accounts.length >= 10);
  const to = account().address;
  const receipt = json(
    await cast("send", "--json", "--unlocked", "--from", accounts[3], to, "--value", "5"),
  );
  assert.equal(receipt.status, "0x1");
  assert.equal(await cast("balance", to), "5");
});

await run("foundry", async () => {
  assert(existsSync(native("forge")) && existsSync(native("cast")));
  assert.equal(await ask("eth_chainId"), "0x7a69");
  me = await funded(20);
});
