// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.27;

/// Storage, events with every kind of topic, and the opcodes of Cancun and Osaka.
contract Counter {
    event Bumped(address indexed by, uint256 indexed value, bytes32 note);

    uint256 public value;
    mapping(address => uint256) public bumps;

    constructor(uint256 start) {
        value = start;
    }

    function bump(bytes32 note) public returns (uint256) {
        value++;
        bumps[msg.sender]++;
        emit Bumped(msg.sender, value, note);
        return value;
    }

    function bumpMany(uint256 times) external {
        for (uint256 i; i < times; i++) {
            bump(bytes32(i));
        }
    }

    /// PUSH0, MCOPY, TSTORE, TLOAD and CLZ: gives (42, 42, 255 for input 1).
    function opcodes(uint256 x) external returns (uint256 copied, uint256 kept, uint256 zeros) {
        assembly {
            let at := mload(0x40)
            mstore(at, 42)
            mcopy(add(at, 32), at, 32)
            copied := mload(add(at, 32))
            tstore(7, 42)
            kept := tload(7)
            zeros := clz(x)
        }
    }
}
