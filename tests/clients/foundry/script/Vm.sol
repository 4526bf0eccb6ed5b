// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.27;

/// The cheatcodes used here; declared, so that no library is needed.
interface Vm {
    function startBroadcast() external;
    function stopBroadcast() external;
    function envBytes32(string calldata name) external view returns (bytes32);
    function envAddress(string calldata name) external view returns (address);
    function envUint(string calldata name) external view returns (uint256);
    function readFile(string calldata path) external view returns (string memory);
    function parseJsonString(string calldata json, string calldata key)
        external
        pure
        returns (string memory);
    function parseBytes(string calldata text) external pure returns (bytes memory);
    function expectRevert(bytes calldata data) external;
    function prank(address sender) external;
}

Vm constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
