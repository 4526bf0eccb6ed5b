// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import {IERC20, IERC20Errors} from "./ERC20.sol";
import {Lock} from "./Lock.sol";
import {SafeTransfer} from "./SafeTransfer.sol";

/// @title IOrderBookErrors
/// @notice Why the book refuses.
interface IOrderBookErrors {
    error InvalidMarket();
    error TokenUnknown(address token);
    error AmountZero();
    error TickZero();
    error LotsZero();
    error InsufficientBalance(uint256 balance, uint256 needed);
    error OrderUnknown(uint64 id);
    error NotOrderOwner(uint64 id, address owner);
    error ValueTooLarge(uint256 value);
}

/// @title OrderBook
/// @notice A central limit order book of one market: orders match the best price first, and within a price
/// the oldest first, at the price of the order that waited.
///
/// @dev Quantities are lots of `lotSize` units of base; prices are ticks of `tickSize` units of quote a lot, so
/// that every trade is a whole number of units and nothing is rounded. A lot is also the least order, which is
/// what makes it costly to fill the book with dust: a call walks as many orders as its gas limit pays for.
///
/// Traders keep balances here, so a trade moves no token. These hold after every call:
///
///  - the contract holds of each token at least the balances of all accounts and what their orders lock: a
///    bid its worth in quote, an ask its lots in base;
///  - the best bid is below the best ask;
///  - a level is marked if and only if it has an order, and its lots are those of its orders.
///
/// Slot 0 is the balances and slot 1 the market; tools that compare states rely on it. Tokens that charge a fee
/// on transfer, change balances by themselves or have 2^128 units and more are not supported.
contract OrderBook is IOrderBookErrors, IERC20Errors, Lock {
    using SafeTransfer for IERC20;

    /// @notice Units that an account may trade or withdraw; one slot.
    struct Balance {
        uint128 base;
        uint128 quote;
    }

    /// @notice What every order reads and writes; one slot.
    struct Market {
        /// The id of the latest order; ids begin at one.
        uint64 lastId;
        /// Zero if there is no bid.
        uint24 bestBid;
        /// Zero if there is no ask.
        uint24 bestAsk;
    }

    /// @notice An order that waits; one slot.
    struct Order {
        address owner;
        uint64 lots;
        uint24 tick;
        bool bid;
    }

    /// @dev Neighbours in the queue of a level; the first order's `previous` has no meaning.
    struct Links {
        uint64 previous;
        uint64 next;
    }

    /// @notice The queue of one price, oldest order first; one slot, all zero if empty.
    struct Level {
        uint64 first;
        uint64 last;
        uint128 lots;
    }

    /// @dev One side of the book. Levels that have orders are marked in a tree of three words' depth, by rank:
    /// the better the price, the higher the rank.
    struct Side {
        uint256 root;
        mapping(uint256 prefix => uint256) branches;
        mapping(uint256 prefix => uint256) leaves;
        mapping(uint24 tick => Level) levels;
    }

    /// @notice What an account may trade or withdraw.
    mapping(address account => Balance) public balances;
    /// @notice The latest id and the best prices.
    Market public market;
    /// @notice Orders that wait, by id; all zero once filled or cancelled.
    mapping(uint64 id => Order) public orders;
    mapping(uint64 id => Links) private _links;
    Side private _bids;
    Side private _asks;

    /// @notice What is traded.
    IERC20 public immutable base;
    /// @notice What it is priced in.
    IERC20 public immutable quote;
    /// @notice Units of base in a lot.
    uint128 public immutable lotSize;
    /// @notice Units of quote that a tick adds to the price of a lot.
    uint128 public immutable tickSize;

    event Deposit(address indexed token, address indexed account, uint256 amount);
    event Withdraw(address indexed token, address indexed account, uint256 amount);
    event Placed(uint64 indexed id, address indexed owner, bool bid, uint24 tick, uint64 lots, uint64 rested);
    event Traded(uint64 indexed maker, uint64 indexed taker, uint24 tick, uint64 lots);
    event Cancelled(uint64 indexed id, address indexed owner, uint64 lots);

    /// @param base_ What is traded.
    /// @param quote_ What it is priced in; another token.
    /// @param lotSize_ Units of base in a lot; not zero.
    /// @param tickSize_ Units of quote that a tick adds to the price of a lot; not zero.
    constructor(IERC20 base_, IERC20 quote_, uint128 lotSize_, uint128 tickSize_) {
        require(address(base_) != address(quote_) && lotSize_ != 0 && tickSize_ != 0, InvalidMarket());
        base = base_;
        quote = quote_;
        lotSize = lotSize_;
        tickSize = tickSize_;
    }

    /// @notice Adds to the caller's balance.
    /// @param token Base or quote.
    /// @param amount Units taken from the caller by its allowance.
    function deposit(address token, uint256 amount) external locked {
        require(amount != 0, AmountZero());
        Balance storage balance = balances[msg.sender];
        if (_isBase(token)) balance.base = _u128(balance.base + amount);
        else balance.quote = _u128(balance.quote + amount);
        emit Deposit(token, msg.sender, amount);
        IERC20(token).pull(msg.sender, address(this), amount);
    }

    /// @notice Takes from the caller's balance.
    /// @param token Base or quote.
    /// @param amount Units sent to the caller.
    function withdraw(address token, uint256 amount) external locked {
        require(amount != 0, AmountZero());
        Balance storage balance = balances[msg.sender];
        if (_isBase(token)) balance.base = _less(balance.base, amount);
        else balance.quote = _less(balance.quote, amount);
        emit Withdraw(token, msg.sender, amount);
        IERC20(token).send(msg.sender, amount);
    }

    /// @notice Trades with what waits at `tick` or better, and lets the rest wait.
    /// @dev An account may trade with itself: its balance is read once its own orders have been paid.
    /// @param bid Whether base is bought.
    /// @param tick The worst price accepted.
    /// @param lots The quantity.
    /// @return id The order, also if nothing of it waits.
    /// @return left Lots that wait.
    function place(bool bid, uint24 tick, uint64 lots) external locked returns (uint64 id, uint64 left) {
        require(tick != 0, TickZero());
        require(lots != 0, LotsZero());
        Market memory state = market;
        id = ++state.lastId;
        uint256 moved;
        (left, moved) = _match(state, id, bid, tick, lots);
        if (bid) _exchange(true, moved + _worth(tick, left), _base(lots - left));
        else _exchange(false, _base(lots), moved);
        if (left != 0) _rest(state, id, bid, tick, left);
        market = state;
        emit Placed(id, msg.sender, bid, tick, lots, left);
    }

    /// @notice Takes an order of the caller out of the book and gives back what it locks.
    /// @param id The order.
    function cancel(uint64 id) external locked {
        Order memory order = orders[id];
        require(order.owner != address(0), OrderUnknown(id));
        require(order.owner == msg.sender, NotOrderOwner(id, order.owner));
        _unlink(id, order);
        delete orders[id];
        delete _links[id];
        Balance storage balance = balances[msg.sender];
        if (order.bid) balance.quote = _u128(balance.quote + _worth(order.tick, order.lots));
        else balance.base = _u128(balance.base + _base(order.lots));
        emit Cancelled(id, msg.sender, order.lots);
    }

    /// @notice The queue of a price.
    /// @param bid Which side.
    /// @param tick Which price.
    /// @return The first and the last order, and the lots of all; zeros if there is none.
    function levelOf(bool bid, uint24 tick) external view returns (Level memory) {
        return (bid ? _bids : _asks).levels[tick];
    }

    /// @dev Walks the opposite side from its best level on; returns lots left and units of quote moved.
    function _match(Market memory state, uint64 id, bool bid, uint24 tick, uint64 lots)
        private
        returns (uint64 left, uint256 moved)
    {
        left = lots;
        while (left != 0) {
            uint24 best = bid ? state.bestAsk : state.bestBid;
            if (best == 0 || (bid ? best > tick : best < tick)) break;
            uint64 wanted = left;
            left = _take(state, id, !bid, best, wanted);
            moved += _worth(best, wanted - left);
        }
    }

    /// @dev Fills orders of one level, oldest first; returns lots left.
    function _take(Market memory state, uint64 id, bool bid, uint24 tick, uint64 lots) private returns (uint64 left) {
        Side storage side = bid ? _bids : _asks;
        Level memory level = side.levels[tick];
        left = lots;
        while (left != 0 && level.first != 0) {
            uint64 filled;
            (filled, level.first) = _fill(level.first, id, left);
            level.lots -= filled;
            left -= filled;
        }
        _store(state, side, bid, tick, level);
    }

    /// @dev Fills the first order of a level; returns lots filled and the order that is first then.
    function _fill(uint64 maker, uint64 taker, uint64 lots) private returns (uint64 filled, uint64 first) {
        Order memory order = orders[maker];
        filled = lots < order.lots ? lots : order.lots;
        Balance storage balance = balances[order.owner];
        if (order.bid) balance.base = _u128(balance.base + _base(filled));
        else balance.quote = _u128(balance.quote + _worth(order.tick, filled));
        if (filled == order.lots) {
            first = _links[maker].next;
            delete orders[maker];
            delete _links[maker];
        } else {
            first = maker;
            orders[maker].lots = order.lots - filled;
        }
        emit Traded(maker, taker, order.tick, filled);
    }

    /// @dev Puts an order behind all others of its price.
    function _rest(Market memory state, uint64 id, bool bid, uint24 tick, uint64 lots) private {
        Side storage side = bid ? _bids : _asks;
        Level memory level = side.levels[tick];
        if (level.first == 0) {
            level.first = id;
            _mark(side, _rank(bid, tick));
            if (bid && tick > state.bestBid) state.bestBid = tick;
            if (!bid && (state.bestAsk == 0 || tick < state.bestAsk)) state.bestAsk = tick;
        } else {
            _links[level.last].next = id;
            _links[id].previous = level.last;
        }
        level.last = id;
        level.lots += lots;
        side.levels[tick] = level;
        orders[id] = Order(msg.sender, lots, tick, bid);
    }

    /// @dev Takes an order out of the queue of its price.
    function _unlink(uint64 id, Order memory order) private {
        Side storage side = order.bid ? _bids : _asks;
        Level memory level = side.levels[order.tick];
        Links memory links = _links[id];
        level.lots -= order.lots;
        if (id == level.first) {
            level.first = links.next;
        } else {
            _links[links.previous].next = links.next;
            if (id == level.last) level.last = links.previous;
            else _links[links.next].previous = links.previous;
        }
        Market memory state = market;
        _store(state, side, order.bid, order.tick, level);
        if (level.first == 0) market = state;
    }

    /// @dev Writes a level that lost orders; if it lost all, the next best price may become the best.
    function _store(Market memory state, Side storage side, bool bid, uint24 tick, Level memory level) private {
        if (level.first != 0) {
            side.levels[tick] = level;
            return;
        }
        delete side.levels[tick];
        _unmark(side, _rank(bid, tick));
        if (bid && tick == state.bestBid) state.bestBid = _best(side, true);
        if (!bid && tick == state.bestAsk) state.bestAsk = _best(side, false);
    }

    /// @dev The caller pays with one token and receives the other.
    function _exchange(bool bid, uint256 paid, uint256 received) private {
        Balance memory balance = balances[msg.sender];
        if (bid) {
            balance.quote = _less(balance.quote, paid);
            balance.base = _u128(balance.base + received);
        } else {
            balance.base = _less(balance.base, paid);
            balance.quote = _u128(balance.quote + received);
        }
        balances[msg.sender] = balance;
    }

    function _mark(Side storage side, uint256 rank) private {
        uint256 leaf = side.leaves[rank >> 8];
        side.leaves[rank >> 8] = leaf | (1 << (rank & 255));
        if (leaf != 0) return;
        uint256 branch = side.branches[rank >> 16];
        side.branches[rank >> 16] = branch | (1 << ((rank >> 8) & 255));
        if (branch == 0) side.root |= 1 << (rank >> 16);
    }

    function _unmark(Side storage side, uint256 rank) private {
        uint256 leaf = side.leaves[rank >> 8] & ~(1 << (rank & 255));
        side.leaves[rank >> 8] = leaf;
        if (leaf != 0) return;
        uint256 branch = side.branches[rank >> 16] & ~(1 << ((rank >> 8) & 255));
        side.branches[rank >> 16] = branch;
        if (branch == 0) side.root &= ~(1 << (rank >> 16));
    }

    /// @dev The best price that has an order; zero if none has.
    function _best(Side storage side, bool bid) private view returns (uint24) {
        if (side.root == 0) return 0;
        uint256 rank = _highest(side.root);
        rank = (rank << 8) | _highest(side.branches[rank]);
        rank = (rank << 8) | _highest(side.leaves[rank]);
        return uint24(_rank(bid, uint24(rank)));
    }

    /// @dev From tick to rank and back.
    function _rank(bool bid, uint24 tick) private pure returns (uint256) {
        return bid ? tick : type(uint24).max - tick;
    }

    /// @dev The highest bit that is set in a word that is not zero (EIP-7939).
    function _highest(uint256 word) private pure returns (uint256 bit) {
        assembly ("memory-safe") {
            bit := sub(255, clz(word))
        }
    }

    function _base(uint64 lots) private view returns (uint256) {
        return uint256(lots) * lotSize;
    }

    function _worth(uint24 tick, uint64 lots) private view returns (uint256) {
        return uint256(lots) * tick * tickSize;
    }

    function _isBase(address token) private view returns (bool) {
        if (token == address(base)) return true;
        require(token == address(quote), TokenUnknown(token));
        return false;
    }

    function _less(uint128 balance, uint256 amount) private pure returns (uint128) {
        require(amount <= balance, InsufficientBalance(balance, amount));
        return balance - uint128(amount);
    }

    function _u128(uint256 value) private pure returns (uint128) {
        require(value <= type(uint128).max, ValueTooLarge(value));
        return uint128(value);
    }
}
