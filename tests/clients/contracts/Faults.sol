// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.27;

/// Every way a call can fail, for clients to decode.
contract Faults {
    error Refused(address who, uint256 code);

    uint256 public count;

    function custom(uint256 code) external returns (uint256) {
        count++;
        if (code > 0) revert Refused(msg.sender, code);
        return count;
    }

    function reason(string calldata words) external returns (uint256) {
        count++;
        require(bytes(words).length == 0, words);
        return count;
    }

    /// Panic 0x12, division by zero.
    function divide(uint256 by) external returns (uint256) {
        count++;
        return 1000 / by;
    }

    /// Panic 0x32, index out of bounds.
    function index(uint256 position) external view returns (uint256) {
        uint256[] memory list = new uint256[](2);
        return list[position] + count;
    }

    function silent() external pure {
        assembly {
            revert(0, 0)
        }
    }

    /// Uses up whatever gas it is given.
    function spin() external {
        while (true) count++;
    }
}
