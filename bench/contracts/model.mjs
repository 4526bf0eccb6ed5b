// Plain integer models of the exchange, the market and the order book: what the contracts must do, unit for unit.

const RAY = 10n ** 27n;
const WAD = 10n ** 18n;
const BPS = 10_000n;
const YEAR = 365n * 86_400n;
const U256_MAX = 2n ** 256n - 1n;

const min = (a, b) => (a < b ? a : b);
const divideUp = (x, y) => (x + y - 1n) / y;

export function sqrt(x) {
  if (x < 2n) return x;
  let root = x;
  let next = x / 2n + 1n;
  while (next < root) [root, next] = [next, (x / next + next) / 2n];
  return root;
}

/// One constant-product pool; side 0 is the token with the lower address.
export class PairModel {
  reserves = [0n, 0n];
  cumulative = [0n, 0n];
  updatedAt = 0n;
  supply = 0n;

  amountOut(side, amountIn) {
    const sold = amountIn * 997n;
    return (sold * this.reserves[1 - side]) / (this.reserves[side] * 1000n + sold);
  }

  swap(side, amountIn, now) {
    const amountOut = this.amountOut(side, amountIn);
    const next = [...this.reserves];
    next[side] += amountIn;
    next[1 - side] -= amountOut;
    this.#update(next, now);
    return amountOut;
  }

  /// Returns the shares issued to the depositor.
  add(amount0, amount1, now) {
    const [reserve0, reserve1] = this.reserves;
    let shares;
    if (this.supply === 0n) {
      shares = sqrt(amount0 * amount1) - 1000n;
      this.supply = 1000n;
    } else {
      shares = min((amount0 * this.supply) / reserve0, (amount1 * this.supply) / reserve1);
    }
    this.supply += shares;
    this.#update([reserve0 + amount0, reserve1 + amount1], now);
    return shares;
  }

  remove(shares, now) {
    const paid = this.reserves.map((reserve) => (shares * reserve) / this.supply);
    this.supply -= shares;
    this.#update(this.reserves.map((reserve, side) => reserve - paid[side]), now);
    return paid;
  }

  #update(next, now) {
    const elapsed = now - this.updatedAt;
    const [reserve0, reserve1] = this.reserves;
    if (elapsed > 0n && reserve0 > 0n && reserve1 > 0n) {
      this.cumulative[0] += ((reserve1 << 112n) / reserve0) * elapsed;
      this.cumulative[1] += ((reserve0 << 112n) / reserve1) * elapsed;
    }
    this.reserves = next;
    this.updatedAt = now;
  }
}

class Refusal extends Error {}

function refuseUnless(condition, reason) {
  if (!condition) throw new Refusal(reason);
}

/// The market. A method returns null, or the name of the error with which the call must revert, and
/// then has changed nothing.
export class LendingModel {
  reserves = new Map();
  positions = new Map();
  prices = new Map();

  list(asset, decimals, config, now) {
    this.reserves.set(asset, {
      supplyIndex: RAY, borrowIndex: RAY, scaledSupply: 0n, scaledDebt: 0n,
      cash: 0n, fees: 0n, updatedAt: now, decimals, config,
    });
  }

  position(asset, account) {
    return this.positions.get(`${asset} ${account}`) ?? { scaledSupply: 0n, scaledDebt: 0n };
  }

  supplyOf(asset, account, now) {
    return (this.position(asset, account).scaledSupply * this.accrued(asset, now).supplyIndex) / RAY;
  }

  debtOf(asset, account, now) {
    return divideUp(this.position(asset, account).scaledDebt * this.accrued(asset, now).borrowIndex, RAY);
  }

  deposit(asset, account, amount, now) {
    return this.#attempt(() => {
      const reserve = this.#accrue(asset, now);
      const scaled = (amount * RAY) / reserve.supplyIndex;
      refuseUnless(scaled > 0n, "AmountTooSmall");
      reserve.scaledSupply += scaled;
      reserve.cash += amount;
      this.#move(asset, account, scaled, 0n);
    });
  }

  withdraw(asset, account, amount, now) {
    return this.#attempt(() => {
      const reserve = this.#accrue(asset, now);
      const supply = this.supplyOf(asset, account, now);
      if (amount === U256_MAX) amount = supply;
      refuseUnless(amount > 0n && amount <= supply, "InsufficientSupply");
      this.#takeCash(reserve, amount);
      const all = this.position(asset, account).scaledSupply;
      const scaled = amount === supply ? all : divideUp(amount * RAY, reserve.supplyIndex);
      reserve.scaledSupply -= scaled;
      this.#move(asset, account, -scaled, 0n);
      this.#refuseUnhealthy(account, now);
    });
  }

  borrow(asset, account, amount, now) {
    return this.#attempt(() => {
      const reserve = this.#accrue(asset, now);
      this.#takeCash(reserve, amount);
      const scaled = divideUp(amount * RAY, reserve.borrowIndex);
      reserve.scaledDebt += scaled;
      this.#move(asset, account, 0n, scaled);
      this.#refuseUnhealthy(account, now);
    });
  }

  repay(asset, account, amount, now) {
    return this.#attempt(() => {
      this.#accrue(asset, now);
      this.#settle(asset, account, amount, now);
    });
  }

  liquidate(debtAsset, collateralAsset, account, liquidator, amount, now) {
    return this.#attempt(() => {
      refuseUnless(account !== liquidator, "SelfLiquidation");
      this.#accrue(debtAsset, now);
      const collateral = this.#accrue(collateralAsset, now);
      const { health } = this.health(account, now);
      refuseUnless(health < WAD, "Healthy");
      const debt = this.debtOf(debtAsset, account, now);
      refuseUnless(debt > 0n, "NoDebt");
      let repaid = min(amount, health < (WAD * 95n) / 100n ? debt : divideUp(debt, 2n));
      const supply = this.supplyOf(collateralAsset, account, now);
      refuseUnless(supply > 0n, "InsufficientSupply");
      const bonus = BPS + collateral.config.liquidationBonus;
      const debtSide = this.prices.get(debtAsset) * bonus * 10n ** collateral.decimals;
      const collateralSide = this.prices.get(collateralAsset) * BPS * 10n ** this.reserves.get(debtAsset).decimals;
      let seized = (repaid * debtSide) / collateralSide;
      if (seized > supply) [seized, repaid] = [supply, divideUp(supply * collateralSide, debtSide)];
      refuseUnless(seized > 0n, "AmountTooSmall");
      this.#settle(debtAsset, account, repaid, now);
      const held = this.position(collateralAsset, account).scaledSupply;
      const scaled = seized === supply ? held : (seized * RAY) / collateral.supplyIndex;
      this.#move(collateralAsset, account, -scaled, 0n);
      this.#move(collateralAsset, liquidator, scaled, 0n);
    });
  }

  /// A copy of the reserve with interest up to `now`.
  accrued(asset, now) {
    const reserve = { ...this.reserves.get(asset) };
    const elapsed = now - reserve.updatedAt;
    reserve.updatedAt = now;
    if (elapsed === 0n || reserve.scaledDebt === 0n) return reserve;
    const growth = (this.rate(reserve) * 10n ** 9n * elapsed) / YEAR;
    const rise = (reserve.borrowIndex * growth) / RAY;
    const interest = (reserve.scaledDebt * rise) / RAY;
    const hasSupply = reserve.scaledSupply > 0n;
    const fee = hasSupply ? (interest * reserve.config.reserveFactor) / BPS : interest;
    reserve.borrowIndex += rise;
    reserve.fees += fee;
    if (hasSupply) reserve.supplyIndex += ((interest - fee) * RAY) / reserve.scaledSupply;
    return reserve;
  }

  /// Per year, 18 decimals.
  rate({ scaledDebt, borrowIndex, cash, config }) {
    const debt = divideUp(scaledDebt * borrowIndex, RAY);
    const wad = (bps) => (bps * WAD) / BPS;
    if (debt === 0n) return wad(config.rateBase);
    const utilisation = (debt * WAD) / (cash + debt);
    const kink = wad(config.kink);
    if (utilisation <= kink) return wad(config.rateBase) + (wad(config.rateSlope) * utilisation) / kink;
    const steep = (wad(config.rateSlopeSteep) * (utilisation - kink)) / (WAD - kink);
    return wad(config.rateBase) + wad(config.rateSlope) + steep;
  }

  health(account, now) {
    let [collateral, debt] = [0n, 0n];
    for (const [asset, { decimals, config }] of this.reserves) {
      const price = this.prices.get(asset) * 10n ** 10n;
      const unit = 10n ** decimals;
      const supplied = (this.supplyOf(asset, account, now) * price) / unit;
      collateral += (supplied * config.collateralFactor) / BPS;
      debt += divideUp(this.debtOf(asset, account, now) * price, unit);
    }
    return { collateral, debt, health: debt === 0n ? U256_MAX : (collateral * WAD) / debt };
  }

  #attempt(change) {
    const before = [structuredClone(this.reserves), structuredClone(this.positions)];
    try {
      change();
      return null;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      [this.reserves, this.positions] = before;
      return error.message;
    }
  }

  #accrue(asset, now) {
    const reserve = this.accrued(asset, now);
    this.reserves.set(asset, reserve);
    return reserve;
  }

  #takeCash(reserve, amount) {
    const available = reserve.cash > reserve.fees ? reserve.cash - reserve.fees : 0n;
    refuseUnless(amount <= available, "InsufficientLiquidity");
    reserve.cash -= amount;
  }

  #move(asset, account, supply, debt) {
    const { scaledSupply, scaledDebt } = this.position(asset, account);
    const next = { scaledSupply: scaledSupply + supply, scaledDebt: scaledDebt + debt };
    this.positions.set(`${asset} ${account}`, next);
  }

  #settle(asset, account, amount, now) {
    const reserve = this.reserves.get(asset);
    const { scaledDebt } = this.position(asset, account);
    refuseUnless(scaledDebt > 0n, "NoDebt");
    const debt = this.debtOf(asset, account, now);
    const paid = min(amount, debt);
    const scaled = paid === debt ? scaledDebt : (paid * RAY) / reserve.borrowIndex;
    refuseUnless(scaled > 0n, "AmountTooSmall");
    reserve.scaledDebt -= scaled;
    reserve.cash += paid;
    this.#move(asset, account, 0n, -scaled);
  }

  #refuseUnhealthy(account, now) {
    const { debt, health } = this.health(account, now);
    refuseUnless(debt === 0n || health >= WAD, "Unhealthy");
  }
}

/// The order book, as a list of the orders that wait in order of their age. A method returns null, or the name
/// of the error with which the call must revert, and then has changed nothing.
export class BookModel {
  balances = new Map();
  orders = [];
  lastId = 0n;

  constructor(lotSize, tickSize) {
    [this.lotSize, this.tickSize] = [lotSize, tickSize];
  }

  balance(account) {
    if (!this.balances.has(account)) this.balances.set(account, { base: 0n, quote: 0n });
    return this.balances.get(account);
  }

  /// The best price of a side, zero if there is none.
  best(bid) {
    const ticks = this.orders.filter((order) => order.bid === bid).map((order) => order.tick);
    return ticks.reduce((best, tick) => (best === 0n || (bid ? tick > best : tick < best) ? tick : best), 0n);
  }

  level(bid, tick) {
    return this.orders.filter((order) => order.bid === bid && order.tick === tick);
  }

  place(owner, bid, tick, lots) {
    const worth = (price, count) => price * count * this.tickSize;
    // What is traded at which price, found before anything is changed: the oldest order of the best price first.
    const reachable = this.orders
      .filter((order) => order.bid !== bid && (bid ? order.tick <= tick : order.tick >= tick))
      .sort((a, b) => Number(bid ? a.tick - b.tick : b.tick - a.tick));
    const trades = [];
    let left = lots;
    for (const maker of reachable) {
      if (left === 0n) break;
      trades.push([maker, min(maker.lots, left)]);
      left -= min(maker.lots, left);
    }
    const moved = trades.reduce((sum, [maker, count]) => sum + worth(maker.tick, count), 0n);
    const pay = ([maker, count]) => (bid ? worth(maker.tick, count) : count * this.lotSize);
    // An account that trades with itself may pay with what its waiting order earns.
    const own = trades.filter(([maker]) => maker.owner === owner);
    const earned = own.reduce((sum, trade) => sum + pay(trade), 0n);
    const paid = bid ? moved + worth(tick, left) : lots * this.lotSize;
    if (this.balance(owner)[bid ? "quote" : "base"] + earned < paid) return "InsufficientBalance";

    this.lastId += 1n;
    for (const trade of trades) {
      this.balance(trade[0].owner)[bid ? "quote" : "base"] += pay(trade);
      trade[0].lots -= trade[1];
    }
    this.orders = this.orders.filter((order) => order.lots > 0n);
    const balance = this.balance(owner);
    balance[bid ? "quote" : "base"] -= paid;
    balance[bid ? "base" : "quote"] += bid ? (lots - left) * this.lotSize : moved;
    if (left > 0n) this.orders.push({ id: this.lastId, owner, bid, tick, lots: left });
    return null;
  }

  cancel(owner, id) {
    const order = this.orders.find((other) => other.id === id);
    if (order === undefined) return "OrderUnknown";
    if (order.owner !== owner) return "NotOrderOwner";
    this.orders = this.orders.filter((other) => other !== order);
    if (order.bid) this.balance(owner).quote += order.tick * order.lots * this.tickSize;
    else this.balance(owner).base += order.lots * this.lotSize;
    return null;
  }
}
