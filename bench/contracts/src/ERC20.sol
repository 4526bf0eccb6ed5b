// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

/// @title IERC20
/// @notice What the exchange and the market need of a token (EIP-20).
interface IERC20 {
    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    /// @notice Units in existence.
    function totalSupply() external view returns (uint256);

    /// @notice Units that `account` holds.
    function balanceOf(address account) external view returns (uint256);

    /// @notice Units of `owner` that `spender` may still move.
    function allowance(address owner, address spender) external view returns (uint256);

    /// @notice Sets what `spender` may move for the caller; the largest uint256 never runs down.
    function approve(address spender, uint256 value) external returns (bool);

    /// @notice Moves `value` units from the caller to `to`.
    function transfer(address to, uint256 value) external returns (bool);

    /// @notice Moves `value` units from `from` to `to` within the caller's allowance.
    function transferFrom(address from, address to, uint256 value) external returns (bool);
}

/// @title IERC20Metadata
/// @notice The decimals of a token (EIP-20, optional part).
interface IERC20Metadata is IERC20 {
    /// @notice Digits after the point in one whole token.
    function decimals() external view returns (uint8);
}

/// @title IERC20Errors
/// @notice Why a token refuses (EIP-6093). Contracts that move tokens inherit it, so that a reason
/// passed up by a token decodes with their own ABI.
interface IERC20Errors {
    error ERC20InsufficientBalance(address sender, uint256 balance, uint256 needed);
    error ERC20InsufficientAllowance(address spender, uint256 allowance, uint256 needed);
    error ERC20InvalidReceiver(address receiver);
}

/// @title ERC20
/// @notice Balances and allowances of EIP-20.
/// @dev Slot 0 is the supply, slot 1 the balances, slot 2 the allowances; tools that write a genesis
/// state rely on it.
abstract contract ERC20 is IERC20, IERC20Errors {
    /// @inheritdoc IERC20
    uint256 public totalSupply;
    /// @inheritdoc IERC20
    mapping(address account => uint256) public balanceOf;
    /// @inheritdoc IERC20
    mapping(address owner => mapping(address spender => uint256)) public allowance;

    /// @inheritdoc IERC20
    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    /// @inheritdoc IERC20
    function transfer(address to, uint256 value) external returns (bool) {
        _transfer(msg.sender, to, value);
        return true;
    }

    /// @inheritdoc IERC20
    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        uint256 allowed = allowance[from][msg.sender];
        if (allowed != type(uint256).max) {
            require(allowed >= value, ERC20InsufficientAllowance(msg.sender, allowed, value));
            unchecked {
                allowance[from][msg.sender] = allowed - value;
            }
        }
        _transfer(from, to, value);
        return true;
    }

    function _transfer(address from, address to, uint256 value) internal {
        require(to != address(0), ERC20InvalidReceiver(to));
        uint256 balance = balanceOf[from];
        require(balance >= value, ERC20InsufficientBalance(from, balance, value));
        // No balance exceeds the supply, and the supply fits a word.
        unchecked {
            balanceOf[from] = balance - value;
            balanceOf[to] += value;
        }
        emit Transfer(from, to, value);
    }

    function _mint(address to, uint256 value) internal {
        require(to != address(0), ERC20InvalidReceiver(to));
        totalSupply += value;
        unchecked {
            balanceOf[to] += value;
        }
        emit Transfer(address(0), to, value);
    }

    function _burn(address from, uint256 value) internal {
        uint256 balance = balanceOf[from];
        require(balance >= value, ERC20InsufficientBalance(from, balance, value));
        unchecked {
            balanceOf[from] = balance - value;
            totalSupply -= value;
        }
        emit Transfer(from, address(0), value);
    }
}
