// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.20;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// Pays from inside a call of its own, as wallets that are contracts and exchanges' batch payers do.
contract Payer {
    /// Pays an address in a token that this contract holds.
    function payToken(IERC20 token, address to, uint256 amount) external {
        require(token.transfer(to, amount), "the token refused");
    }

    /// Forwards the ether sent along: an internal transfer, which is in no log.
    function forward(address payable to) external payable {
        (bool paid, ) = to.call{value: msg.value}("");
        require(paid, "the receiver refused");
    }
}
