// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import {ERC20} from "./ERC20.sol";
import {Owned} from "./Owned.sol";

/// @title Token
/// @notice An EIP-20 token whose owner may create units.
contract Token is ERC20, Owned {
    /// @notice The name people read.
    string public name;
    /// @notice The short name people trade.
    string public symbol;
    /// @notice Digits after the point in one whole token.
    uint8 public immutable decimals;

    /// @param name_ The name people read.
    /// @param symbol_ The short name people trade.
    /// @param decimals_ Digits after the point in one whole token.
    constructor(string memory name_, string memory symbol_, uint8 decimals_) {
        name = name_;
        symbol = symbol_;
        decimals = decimals_;
    }

    /// @notice Creates `value` units for `to`.
    /// @param to Who receives them; not the zero address.
    /// @param value Smallest units.
    function mint(address to, uint256 value) external onlyOwner {
        _mint(to, value);
    }

    /// @notice Creates `value` units for each account of `to`.
    /// @dev A new holder costs about 25,000 gas: 600 of them fit the transaction limit of EIP-7825.
    /// @param to Who receives them; none of them the zero address.
    /// @param value Smallest units, for each.
    function mintBatch(address[] calldata to, uint256 value) external onlyOwner {
        for (uint256 i = 0; i < to.length; ++i) {
            _mint(to[i], value);
        }
    }
}
