// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.27;

import {vm} from "../script/Vm.sol";
import {Counter} from "contracts/Counter.sol";
import {Faults} from "contracts/Faults.sol";

/// Runs on a fork of the node: reads its state, changes a copy.
contract Fork {
    bool public constant IS_TEST = true;

    function test_state_of_the_node_is_read() external {
        Counter counter = Counter(vm.envAddress("COUNTER"));
        uint256 value = counter.value();
        require(value == vm.envUint("VALUE"), "another value");
        require(block.chainid == 31337, "another chain");
        require(counter.bump(0) == value + 1, "not counted");
    }

    function test_reverts_decode() external {
        Faults faults = new Faults();
        vm.expectRevert(abi.encodeWithSelector(Faults.Refused.selector, address(this), 7));
        faults.custom(7);
    }
}
