// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import {ERC20, IERC20, IERC20Errors} from "./ERC20.sol";
import {Lock} from "./Lock.sol";
import {SafeTransfer} from "./SafeTransfer.sol";

/// @title IPairErrors
/// @notice Why a pair refuses. The router inherits it, so that the reason decodes with the router's ABI.
interface IPairErrors {
    error NotFactory(address caller);
    error InsufficientInput();
    error InsufficientLiquidity();
    error InsufficientLiquidityMinted();
    error InsufficientLiquidityBurned();
    error InvalidRecipient(address to);
    error ProductDecreased();
    error ReserveOverflow(uint256 balance0, uint256 balance1);
}

/// @title Pair
/// @notice A constant-product pool of two tokens that takes 0.3 % of what is sold to it, and the token
/// that stands for shares in it.
/// @dev Low-level, as in Uniswap V2: send tokens first, call second, in one transaction; the router does so.
/// Tokens that charge a fee on transfer or change balances by themselves are not supported.
contract Pair is ERC20, IPairErrors, Lock {
    using SafeTransfer for IERC20;

    string public constant name = "Sluice Pair Share";
    string public constant symbol = "SLP";
    uint8 public constant decimals = 18;

    /// @notice Shares locked for ever by the first deposit, so that one share can never be worth a fortune.
    uint256 public constant SHARES_MIN = 1000;
    address private constant SHARES_MIN_HOLDER = address(0xdEaD);

    /// @notice The factory that created this pair.
    address public immutable factory;
    /// @notice The token with the lower address.
    IERC20 public token0;
    /// @notice The token with the higher address.
    IERC20 public token1;

    // One slot.
    uint112 private _reserve0;
    uint112 private _reserve1;
    uint32 private _updatedAt;

    /// @notice Sum over time of the price of token0 in token1, UQ112x112 times seconds; wraps around.
    uint256 public price0Cumulative;
    /// @notice Sum over time of the price of token1 in token0, UQ112x112 times seconds; wraps around.
    uint256 public price1Cumulative;

    event Mint(address indexed sender, uint256 amount0, uint256 amount1);
    event Burn(address indexed sender, uint256 amount0, uint256 amount1, address indexed to);
    event Swap(
        address indexed sender,
        uint256 amount0In,
        uint256 amount1In,
        uint256 amount0Out,
        uint256 amount1Out,
        address indexed to
    );
    event Sync(uint112 reserve0, uint112 reserve1);

    constructor() {
        factory = msg.sender;
    }

    /// @notice Names the two tokens; the factory calls it once, on creation.
    /// @param token0_ The token with the lower address.
    /// @param token1_ The token with the higher address.
    function initialize(IERC20 token0_, IERC20 token1_) external {
        require(msg.sender == factory, NotFactory(msg.sender));
        token0 = token0_;
        token1 = token1_;
    }

    /// @notice The reserves the next trade is priced on, and the second they were last changed.
    /// @return reserve0 Units of token0.
    /// @return reserve1 Units of token1.
    /// @return updatedAt Seconds since 1970, modulo 2^32.
    function reserves() public view returns (uint112 reserve0, uint112 reserve1, uint32 updatedAt) {
        return (_reserve0, _reserve1, _updatedAt);
    }

    /// @notice Issues shares for the tokens sent here since the last call.
    /// @param to Who receives the shares.
    /// @return shares What was issued; rounded down.
    function mint(address to) external locked returns (uint256 shares) {
        (uint112 reserve0, uint112 reserve1,) = reserves();
        uint256 balance0 = token0.balanceOf(address(this));
        uint256 balance1 = token1.balanceOf(address(this));
        uint256 amount0 = balance0 - reserve0;
        uint256 amount1 = balance1 - reserve1;
        uint256 supply = totalSupply;
        if (supply == 0) {
            uint256 root = _sqrt(amount0 * amount1);
            require(root > SHARES_MIN, InsufficientLiquidityMinted());
            shares = root - SHARES_MIN;
            _mint(SHARES_MIN_HOLDER, SHARES_MIN);
        } else {
            uint256 shares0 = amount0 * supply / reserve0;
            uint256 shares1 = amount1 * supply / reserve1;
            shares = shares0 < shares1 ? shares0 : shares1;
            require(shares != 0, InsufficientLiquidityMinted());
        }
        _mint(to, shares);
        _update(balance0, balance1, reserve0, reserve1);
        emit Mint(msg.sender, amount0, amount1);
    }

    /// @notice Redeems the shares sent here since the last call.
    /// @param to Who receives the tokens.
    /// @return amount0 Units of token0; rounded down.
    /// @return amount1 Units of token1; rounded down.
    function burn(address to) external locked returns (uint256 amount0, uint256 amount1) {
        (uint112 reserve0, uint112 reserve1,) = reserves();
        (IERC20 token0_, IERC20 token1_) = (token0, token1);
        uint256 shares = balanceOf[address(this)];
        uint256 supply = totalSupply;
        require(shares != 0, InsufficientLiquidityBurned());
        amount0 = shares * token0_.balanceOf(address(this)) / supply;
        amount1 = shares * token1_.balanceOf(address(this)) / supply;
        require(amount0 != 0 && amount1 != 0, InsufficientLiquidityBurned());
        _burn(address(this), shares);
        token0_.send(to, amount0);
        token1_.send(to, amount1);
        _update(token0_.balanceOf(address(this)), token1_.balanceOf(address(this)), reserve0, reserve1);
        emit Burn(msg.sender, amount0, amount1, to);
    }

    /// @notice Pays out against the tokens sent here since the last call.
    /// @dev Reverts if, after 0.3 % of the input is set aside, the product of the reserves would fall.
    /// @param amount0Out Units of token0 to pay.
    /// @param amount1Out Units of token1 to pay.
    /// @param to Who receives them; neither of the two tokens.
    function swap(uint256 amount0Out, uint256 amount1Out, address to) external locked {
        require(amount0Out != 0 || amount1Out != 0, InsufficientLiquidity());
        (uint112 reserve0, uint112 reserve1,) = reserves();
        require(amount0Out < reserve0 && amount1Out < reserve1, InsufficientLiquidity());

        (uint256 balance0, uint256 balance1) = _pay(amount0Out, amount1Out, to);
        uint256 left0 = reserve0 - amount0Out;
        uint256 left1 = reserve1 - amount1Out;
        uint256 amount0In = balance0 > left0 ? balance0 - left0 : 0;
        uint256 amount1In = balance1 > left1 ? balance1 - left1 : 0;
        require(amount0In != 0 || amount1In != 0, InsufficientInput());
        require(
            (balance0 * 1000 - amount0In * 3) * (balance1 * 1000 - amount1In * 3)
                >= uint256(reserve0) * reserve1 * 1000 ** 2,
            ProductDecreased()
        );

        _update(balance0, balance1, reserve0, reserve1);
        emit Swap(msg.sender, amount0In, amount1In, amount0Out, amount1Out, to);
    }

    /// @notice Sends what was given to the pair beyond its reserves to `to`.
    /// @param to Who receives it.
    function skim(address to) external locked {
        (IERC20 token0_, IERC20 token1_) = (token0, token1);
        token0_.send(to, token0_.balanceOf(address(this)) - _reserve0);
        token1_.send(to, token1_.balanceOf(address(this)) - _reserve1);
    }

    /// @notice Makes the balances the reserves.
    function sync() external locked {
        _update(token0.balanceOf(address(this)), token1.balanceOf(address(this)), _reserve0, _reserve1);
    }

    function _pay(uint256 amount0Out, uint256 amount1Out, address to)
        private
        returns (uint256 balance0, uint256 balance1)
    {
        (IERC20 token0_, IERC20 token1_) = (token0, token1);
        require(to != address(token0_) && to != address(token1_), InvalidRecipient(to));
        if (amount0Out != 0) token0_.send(to, amount0Out);
        if (amount1Out != 0) token1_.send(to, amount1Out);
        balance0 = token0_.balanceOf(address(this));
        balance1 = token1_.balanceOf(address(this));
    }

    /// @dev Several blocks may share a second: then no time has passed, the sums of prices stay as they
    /// are, and nothing is divided by the elapsed time, here or in any reader that checks it is not zero.
    function _update(uint256 balance0, uint256 balance1, uint112 reserve0, uint112 reserve1) private {
        require(
            balance0 <= type(uint112).max && balance1 <= type(uint112).max, ReserveOverflow(balance0, balance1)
        );
        uint32 timestamp = uint32(block.timestamp);
        // Times and sums are modulo their width: readers subtract two of them.
        unchecked {
            uint32 elapsed = timestamp - _updatedAt;
            if (elapsed != 0 && reserve0 != 0 && reserve1 != 0) {
                price0Cumulative += (uint256(reserve1) << 112) / reserve0 * elapsed;
                price1Cumulative += (uint256(reserve0) << 112) / reserve1 * elapsed;
            }
        }
        _reserve0 = uint112(balance0);
        _reserve1 = uint112(balance1);
        _updatedAt = timestamp;
        emit Sync(uint112(balance0), uint112(balance1));
    }

    /// @dev Newton's iteration from above; returns the floor of the root.
    function _sqrt(uint256 x) private pure returns (uint256 root) {
        if (x == 0) return 0;
        root = x;
        uint256 next = x / 2 + 1;
        while (next < root) {
            root = next;
            next = (x / next + next) / 2;
        }
    }
}

/// @title PairFactory
/// @notice Creates one pair for two tokens, at an address that follows from them (EIP-1014).
contract PairFactory {
    /// @notice The hash of the creation code of a pair.
    bytes32 public immutable pairCodeHash = keccak256(type(Pair).creationCode);

    /// @notice The pair of two tokens in either order; zero if there is none.
    mapping(address tokenA => mapping(address tokenB => Pair)) public pairOf;
    /// @notice All pairs in order of creation.
    Pair[] public pairs;

    event PairCreated(address indexed token0, address indexed token1, address pair, uint256 count);

    error IdenticalTokens(address token);
    error TokenWithoutCode(address token);
    error PairExists(address pair);

    /// @notice Creates the pair of `tokenA` and `tokenB`.
    /// @param tokenA One token.
    /// @param tokenB The other.
    /// @return pair The new pair, empty.
    function createPair(address tokenA, address tokenB) external returns (Pair pair) {
        require(tokenA != tokenB, IdenticalTokens(tokenA));
        require(tokenA.code.length != 0, TokenWithoutCode(tokenA));
        require(tokenB.code.length != 0, TokenWithoutCode(tokenB));
        pair = pairOf[tokenA][tokenB];
        require(address(pair) == address(0), PairExists(address(pair)));
        (address token0, address token1) = tokenA < tokenB ? (tokenA, tokenB) : (tokenB, tokenA);
        pair = new Pair{salt: keccak256(abi.encodePacked(token0, token1))}();
        pair.initialize(IERC20(token0), IERC20(token1));
        pairOf[tokenA][tokenB] = pair;
        pairOf[tokenB][tokenA] = pair;
        pairs.push(pair);
        emit PairCreated(token0, token1, address(pair), pairs.length);
    }

    /// @notice How many pairs there are.
    function pairCount() external view returns (uint256) {
        return pairs.length;
    }
}

/// @title Router
/// @notice What traders call: moves their tokens into pairs and guards them by limits and a deadline.
contract Router is IERC20Errors, IPairErrors {
    using SafeTransfer for IERC20;

    /// @notice Where the pairs come from.
    PairFactory public immutable factory;
    bytes32 private immutable _pairCodeHash;

    error Expired(uint256 deadline, uint256 timestamp);
    error InvalidPath();
    error PairMissing(address tokenA, address tokenB);
    error AmountTooLow(address token, uint256 amount, uint256 amountMin);
    error InsufficientOutput(uint256 amountOut, uint256 amountOutMin);

    modifier before(uint256 deadline) {
        require(block.timestamp <= deadline, Expired(deadline, block.timestamp));
        _;
    }

    /// @param factory_ Where the pairs come from.
    constructor(PairFactory factory_) {
        factory = factory_;
        _pairCodeHash = factory_.pairCodeHash();
    }

    /// @notice Sells exactly `amountIn` of the first token of `path` for the last one.
    /// @param path The tokens passed through, two or more; a pair must exist for each step.
    /// @param amountIn Units of the first token, taken from the caller by its allowance.
    /// @param amountOutMin Units of the last token below which the trade reverts.
    /// @param to Who receives the last token.
    /// @param deadline The last second, since 1970, at which the trade may happen.
    /// @return amountOut Units of the last token paid.
    function swapExactIn(
        address[] calldata path,
        uint256 amountIn,
        uint256 amountOutMin,
        address to,
        uint256 deadline
    ) external before(deadline) returns (uint256 amountOut) {
        (uint256[] memory amounts, Pair[] memory hops) = _route(path, amountIn);
        amountOut = amounts[hops.length];
        require(amountOut >= amountOutMin, InsufficientOutput(amountOut, amountOutMin));
        IERC20(path[0]).pull(msg.sender, address(hops[0]), amountIn);
        for (uint256 i = 0; i < hops.length; ++i) {
            address next = i + 1 < hops.length ? address(hops[i + 1]) : to;
            if (path[i] < path[i + 1]) hops[i].swap(0, amounts[i + 1], next);
            else hops[i].swap(amounts[i + 1], 0, next);
        }
    }

    /// @notice Deposits two tokens at the pair's present price, and creates the pair if there is none.
    /// @param tokenA One token.
    /// @param tokenB The other.
    /// @param amountADesired At most this much of `tokenA` is taken.
    /// @param amountBDesired At most this much of `tokenB` is taken.
    /// @param amountAMin Reverts if less of `tokenA` would be taken.
    /// @param amountBMin Reverts if less of `tokenB` would be taken.
    /// @param to Who receives the shares.
    /// @param deadline The last second, since 1970, at which the deposit may happen.
    /// @return amountA Units of `tokenA` taken.
    /// @return amountB Units of `tokenB` taken.
    /// @return shares Shares of the pair issued.
    function addLiquidity(
        address tokenA,
        address tokenB,
        uint256 amountADesired,
        uint256 amountBDesired,
        uint256 amountAMin,
        uint256 amountBMin,
        address to,
        uint256 deadline
    ) external before(deadline) returns (uint256 amountA, uint256 amountB, uint256 shares) {
        Pair pair = _pairAddress(tokenA, tokenB);
        if (address(pair).code.length == 0) factory.createPair(tokenA, tokenB);
        (amountA, amountB) = _fit(pair, tokenA < tokenB, amountADesired, amountBDesired);
        _fund(tokenA, amountA, amountAMin, pair);
        _fund(tokenB, amountB, amountBMin, pair);
        shares = pair.mint(to);
    }

    /// @notice Redeems shares of a pair for its two tokens.
    /// @param tokenA One token.
    /// @param tokenB The other.
    /// @param shares Shares taken from the caller by its allowance on the pair.
    /// @param amountAMin Reverts if less of `tokenA` would be paid.
    /// @param amountBMin Reverts if less of `tokenB` would be paid.
    /// @param to Who receives the tokens.
    /// @param deadline The last second, since 1970, at which the redemption may happen.
    /// @return amountA Units of `tokenA` paid.
    /// @return amountB Units of `tokenB` paid.
    function removeLiquidity(
        address tokenA,
        address tokenB,
        uint256 shares,
        uint256 amountAMin,
        uint256 amountBMin,
        address to,
        uint256 deadline
    ) external before(deadline) returns (uint256 amountA, uint256 amountB) {
        Pair pair = pairFor(tokenA, tokenB);
        IERC20(address(pair)).pull(msg.sender, address(pair), shares);
        (uint256 amount0, uint256 amount1) = pair.burn(to);
        (amountA, amountB) = tokenA < tokenB ? (amount0, amount1) : (amount1, amount0);
        require(amountA >= amountAMin, AmountTooLow(tokenA, amountA, amountAMin));
        require(amountB >= amountBMin, AmountTooLow(tokenB, amountB, amountBMin));
    }

    /// @notice What `swapExactIn` would pay now.
    /// @param path The tokens passed through.
    /// @param amountIn Units of the first token.
    /// @return amounts The input, then what each step pays.
    function quote(address[] calldata path, uint256 amountIn) external view returns (uint256[] memory amounts) {
        (amounts,) = _route(path, amountIn);
    }

    /// @notice The pair of two tokens; reverts if there is none.
    /// @param tokenA One token.
    /// @param tokenB The other.
    /// @return pair Its address follows from the factory and the tokens (EIP-1014).
    function pairFor(address tokenA, address tokenB) public view returns (Pair pair) {
        pair = _pairAddress(tokenA, tokenB);
        require(address(pair).code.length != 0, PairMissing(tokenA, tokenB));
    }

    /// @notice What a pool pays for `amountIn` after its fee of 0.3 %; rounded down.
    /// @param amountIn Units sold.
    /// @param reserveIn Units of the sold token in the pool.
    /// @param reserveOut Units of the bought token in the pool.
    /// @return Units paid.
    function amountOutFor(uint256 amountIn, uint256 reserveIn, uint256 reserveOut) public pure returns (uint256) {
        require(amountIn != 0, InsufficientInput());
        require(reserveIn != 0 && reserveOut != 0, InsufficientLiquidity());
        uint256 amountInLessFee = amountIn * 997;
        return amountInLessFee * reserveOut / (reserveIn * 1000 + amountInLessFee);
    }

    function _route(address[] calldata path, uint256 amountIn)
        private
        view
        returns (uint256[] memory amounts, Pair[] memory hops)
    {
        require(path.length >= 2, InvalidPath());
        amounts = new uint256[](path.length);
        hops = new Pair[](path.length - 1);
        amounts[0] = amountIn;
        for (uint256 i = 0; i < hops.length; ++i) {
            hops[i] = pairFor(path[i], path[i + 1]);
            (uint256 reserveIn, uint256 reserveOut) = _reservesOf(hops[i], path[i] < path[i + 1]);
            amounts[i + 1] = amountOutFor(amounts[i], reserveIn, reserveOut);
        }
    }

    /// @dev The largest deposit within both wishes that keeps the price.
    function _fit(Pair pair, bool inOrder, uint256 amountADesired, uint256 amountBDesired)
        private
        view
        returns (uint256 amountA, uint256 amountB)
    {
        (uint256 reserveA, uint256 reserveB) = _reservesOf(pair, inOrder);
        if (reserveA == 0 && reserveB == 0) return (amountADesired, amountBDesired);
        require(reserveA != 0 && reserveB != 0, InsufficientLiquidity());
        uint256 amountBFit = amountADesired * reserveB / reserveA;
        if (amountBFit <= amountBDesired) return (amountADesired, amountBFit);
        return (amountBDesired * reserveA / reserveB, amountBDesired);
    }

    function _fund(address token, uint256 amount, uint256 amountMin, Pair pair) private {
        require(amount >= amountMin, AmountTooLow(token, amount, amountMin));
        IERC20(token).pull(msg.sender, address(pair), amount);
    }

    function _reservesOf(Pair pair, bool inOrder) private view returns (uint256, uint256) {
        (uint256 reserve0, uint256 reserve1,) = pair.reserves();
        return inOrder ? (reserve0, reserve1) : (reserve1, reserve0);
    }

    function _pairAddress(address tokenA, address tokenB) private view returns (Pair) {
        (address token0, address token1) = tokenA < tokenB ? (tokenA, tokenB) : (tokenB, tokenA);
        bytes32 salt = keccak256(abi.encodePacked(token0, token1));
        bytes32 hash = keccak256(abi.encodePacked(bytes1(0xff), address(factory), salt, _pairCodeHash));
        return Pair(address(uint160(uint256(hash))));
    }
}
