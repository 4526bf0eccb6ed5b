// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.27;

import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";
import {
    ERC721URIStorage
} from "@openzeppelin/contracts/token/ERC721/extensions/ERC721URIStorage.sol";

/// An OpenZeppelin ERC-721 with one address per token.
contract Collectible is ERC721URIStorage {
    uint256 public minted;

    constructor() ERC721("Collectible", "COL") {}

    function mint(address to, string calldata uri) external returns (uint256 id) {
        id = ++minted;
        _safeMint(to, id);
        _setTokenURI(id, uri);
    }
}
