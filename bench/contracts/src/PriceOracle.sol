// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import {Owned} from "./Owned.sol";

/// @title IPriceOracleErrors
/// @notice Why an oracle has no price. The market inherits it, so that the reason decodes with its ABI.
interface IPriceOracleErrors {
    error PriceUnknown(address asset);
    error PriceStale(address asset, uint256 updatedAt);
}

/// @title IPriceOracle
/// @notice What the market needs of an oracle.
interface IPriceOracle is IPriceOracleErrors {
    /// @notice The price of one whole unit of `asset`, 8 decimals; reverts if unset or too old.
    function price(address asset) external view returns (uint256);
}

/// @title PriceOracle
/// @notice Prices set by the owner, each with the time it was set.
contract PriceOracle is IPriceOracle, Owned {
    /// @notice A price, 8 decimals, and the second it was set; one slot.
    struct Quote {
        uint192 price;
        uint64 updatedAt;
    }

    /// @notice Seconds after which a price is refused.
    uint256 public immutable maxAge;

    /// @notice The last price of an asset as it was set, whatever its age; zero if never.
    mapping(address asset => Quote) public quotes;

    event PriceSet(address indexed asset, uint256 price, uint256 updatedAt);

    error PriceZero(address asset);
    error PriceTooLarge(address asset, uint256 price);
    error LengthMismatch(uint256 assets, uint256 prices);

    /// @param maxAge_ Seconds after which a price is refused.
    constructor(uint256 maxAge_) {
        maxAge = maxAge_;
    }

    /// @notice Sets the price of `asset`, valid from this block.
    /// @param asset The token the price is of.
    /// @param price_ One whole token, 8 decimals; not zero.
    function setPrice(address asset, uint256 price_) external onlyOwner {
        _set(asset, price_);
    }

    /// @notice Sets the prices of many assets in one transaction.
    /// @param assets The tokens.
    /// @param prices One whole token each, 8 decimals; as many as `assets`.
    function setPrices(address[] calldata assets, uint256[] calldata prices) external onlyOwner {
        require(assets.length == prices.length, LengthMismatch(assets.length, prices.length));
        for (uint256 i = 0; i < assets.length; ++i) {
            _set(assets[i], prices[i]);
        }
    }

    /// @inheritdoc IPriceOracle
    function price(address asset) external view returns (uint256) {
        Quote memory quote = quotes[asset];
        require(quote.price != 0, PriceUnknown(asset));
        require(block.timestamp - quote.updatedAt <= maxAge, PriceStale(asset, quote.updatedAt));
        return quote.price;
    }

    function _set(address asset, uint256 price_) private {
        require(price_ != 0, PriceZero(asset));
        require(price_ <= type(uint192).max, PriceTooLarge(asset, price_));
        quotes[asset] = Quote(uint192(price_), uint64(block.timestamp));
        emit PriceSet(asset, price_, block.timestamp);
    }
}
