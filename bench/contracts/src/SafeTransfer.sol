// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import {IERC20} from "./ERC20.sol";

/// @title SafeTransfer
/// @notice Moves tokens of either habit: those that return true and those that return nothing.
/// @dev A token's own reason is passed up unchanged; a false or an address without code is `TransferFailed`.
library SafeTransfer {
    error TransferFailed(address token);

    function send(IERC20 token, address to, uint256 value) internal {
        _call(token, abi.encodeCall(IERC20.transfer, (to, value)));
    }

    function pull(IERC20 token, address from, address to, uint256 value) internal {
        _call(token, abi.encodeCall(IERC20.transferFrom, (from, to, value)));
    }

    function _call(IERC20 token, bytes memory input) private {
        (bool ok, bytes memory output) = address(token).call(input);
        if (!ok && output.length != 0) {
            assembly ("memory-safe") {
                revert(add(output, 32), mload(output))
            }
        }
        bool agreed = output.length == 0
            ? address(token).code.length != 0
            : output.length >= 32 && abi.decode(output, (uint256)) == 1;
        require(ok && agreed, TransferFailed(address(token)));
    }
}
