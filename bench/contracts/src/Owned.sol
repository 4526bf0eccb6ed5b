// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

/// @title Owned
/// @notice One account that may call what is marked `onlyOwner`.
abstract contract Owned {
    /// @notice The account that administers this contract.
    address public owner;

    event OwnershipTransferred(address indexed from, address indexed to);

    error NotOwner(address caller);
    error ZeroOwner();

    modifier onlyOwner() {
        require(msg.sender == owner, NotOwner(msg.sender));
        _;
    }

    constructor() {
        owner = msg.sender;
        emit OwnershipTransferred(address(0), msg.sender);
    }

    /// @notice Hands the contract to `to`, at once and for good.
    /// @param to The next owner; not the zero address.
    function transferOwnership(address to) external onlyOwner {
        require(to != address(0), ZeroOwner());
        emit OwnershipTransferred(owner, to);
        owner = to;
    }
}
