// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

/// @title Lock
/// @notice Refuses to enter a locked function again before it has returned.
/// @dev The flag is transient (EIP-1153): a flag in storage would be one slot that every call writes,
/// and calls that share nothing else would conflict on it under parallel execution.
abstract contract Lock {
    bool private transient _entered;

    error Reentered();

    modifier locked() {
        require(!_entered, Reentered());
        _entered = true;
        _;
        _entered = false;
    }
}
