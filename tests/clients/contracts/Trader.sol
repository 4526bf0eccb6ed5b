// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.27;

interface IToken {
    function transferFrom(address from, address to, uint256 amount) external returns (bool);
}

interface IPool {
    function token0() external view returns (address);
    function token1() external view returns (address);
    function mint(address owner, int24 lower, int24 upper, uint128 amount, bytes calldata data)
        external
        returns (uint256, uint256);
    function swap(address to, bool zeroForOne, int256 amount, uint160 limit, bytes calldata data)
        external
        returns (int256, int256);
}

/// The least a Uniswap V3 pool asks of its caller: pay in the callback, by the sender's allowance.
contract Trader {
    event Traded(int256 amount0, int256 amount1);

    function mint(IPool pool, int24 lower, int24 upper, uint128 amount)
        external
        returns (uint256 amount0, uint256 amount1)
    {
        return pool.mint(msg.sender, lower, upper, amount, abi.encode(msg.sender));
    }

    function swap(IPool pool, bool zeroForOne, int256 amount, uint160 limit)
        external
        returns (int256 amount0, int256 amount1)
    {
        (amount0, amount1) =
            pool.swap(msg.sender, zeroForOne, amount, limit, abi.encode(msg.sender));
        emit Traded(amount0, amount1);
    }

    function uniswapV3MintCallback(uint256 owed0, uint256 owed1, bytes calldata data) external {
        pay(abi.decode(data, (address)), owed0, owed1);
    }

    function uniswapV3SwapCallback(int256 owed0, int256 owed1, bytes calldata data) external {
        pay(
            abi.decode(data, (address)),
            owed0 > 0 ? uint256(owed0) : 0,
            owed1 > 0 ? uint256(owed1) : 0
        );
    }

    function pay(address from, uint256 owed0, uint256 owed1) private {
        IPool pool = IPool(msg.sender);
        if (owed0 > 0) IToken(pool.token0()).transferFrom(from, msg.sender, owed0);
        if (owed1 > 0) IToken(pool.token1()).transferFrom(from, msg.sender, owed1);
    }
}
