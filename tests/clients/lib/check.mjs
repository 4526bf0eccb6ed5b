// The little that a suite needs: where the node is, cases with a time limit, a count at the end.
import assert from "node:assert/strict";

export const url = process.env.RPC_URL ?? "http://127.0.0.1:8545";
export const wsUrl = process.env.WS_URL ?? "ws://127.0.0.1:8546";
export const mnemonic = "test test test test test test test test test test test junk";
export const deployer2 = "0x4e59b44847b379578588920cA78FbF26c0B4956C";
export const multicall3 = "0xcA11bde05977b3631167028862bE2a173976CA11";
/** Gas for calls whose cost may change from one second to the next. */
export const plenty = 3_000_000n;

const only = process.env.ONLY;
const cases = [];

/**
 * One case; later cases may use what earlier ones left, so the first failure is the one to read.
 * `anvil` says why anvil cannot pass it: there, and only there, the case is left out.
 */
export function check(name, run, { limitMs = 60_000, anvil } = {}) {
  cases.push({ name, run, limitMs, anvil });
}

/** The promise, or an error that names what did not come in time. */
export async function within(limitMs, what, promise) {
  let timer;
  const late = new Promise((_, no) => {
    timer = setTimeout(() => no(new Error(`${what}: nothing after ${limitMs} ms`)), limitMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The error of a promise that must fail. */
export async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new assert.AssertionError({ message: "was not refused" });
}

/** An event that a callback waits for: `give` once, `come` with a limit. */
export function awaited(what, limitMs = 30_000) {
  let give;
  let fail;
  const promise = new Promise((yes, no) => {
    give = yes;
    fail = no;
  });
  promise.catch(() => {});
  return { give, fail, come: () => within(limitMs, what, promise) };
}

/** One plain JSON-RPC call. */
export async function ask(method, params = []) {
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
  const answer = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
  });
  const { result, error } = await answer.json();
  if (error) throw new Error(`${method}: ${error.message}`);
  return result;
}

/** Runs all cases in order, then leaves: 0 when all passed. */
export async function run(suite, setup) {
  let passed = 0;
  let failed = 0;
  const chosen = cases.filter(
    ({ name }) => !only || only.split("|").some((part) => name.includes(part)),
  );
  try {
    const onAnvil = /^anvil/.test(await ask("web3_clientVersion"));
    await within(60_000, "setup", setup());
    for (const { name, run: body, limitMs, anvil } of chosen) {
      if (onAnvil && anvil) {
        console.log(`left out on anvil: ${name}: ${anvil}`);
        continue;
      }
      const from = performance.now();
      try {
        await within(limitMs, name, body());
        passed++;
        console.log(`ok ${name} (${Math.round(performance.now() - from)} ms)`);
      } catch (error) {
        failed++;
        console.log(`FAILED ${name}\n${error.stack ?? error}`);
        if (process.env.VERBOSE) console.log(error);
      }
    }
  } catch (error) {
    failed++;
    console.log(`FAILED setup\n${error.stack ?? error}`);
  }
  console.log(`${suite}: ${passed} passed, ${failed} failed`);
  process.exit(failed === 0 && passed > 0 ? 0 : 1);
}

/** Uniswap V2's own arithmetic. */
export const swapOut = (input, from, to) => (input * 997n * to) / (from * 1000n + input * 997n);
export const root = (n) => {
  if (n < 2n) return n;
  let x = 1n << BigInt(Math.ceil(n.toString(2).length / 2));
  for (;;) {
    const y = (x + n / x) >> 1n;
    if (y >= x) return x;
    x = y;
  }
};
