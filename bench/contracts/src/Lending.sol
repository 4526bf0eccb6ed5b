// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.30;

import {IERC20, IERC20Errors, IERC20Metadata} from "./ERC20.sol";
import {Lock} from "./Lock.sol";
import {Owned} from "./Owned.sol";
import {IPriceOracle, IPriceOracleErrors} from "./PriceOracle.sol";
import {SafeTransfer} from "./SafeTransfer.sol";

/// @title ILendingErrors
/// @notice Why the market refuses.
interface ILendingErrors {
    error AmountZero();
    error AmountTooSmall(uint256 amount);
    error ReserveUnknown(address asset);
    error ReserveExists(address asset);
    error TooManyReserves();
    error InvalidConfig();
    error InsufficientSupply(uint256 supply, uint256 needed);
    error InsufficientLiquidity(uint256 available, uint256 needed);
    error NoDebt(address account);
    error Unhealthy(uint256 health);
    error Healthy(uint256 health);
    error SelfLiquidation();
    error ValueTooLarge(uint256 value);
}

/// @title Lending
/// @notice A money market of many assets: deposits earn what borrowers pay, and back what is borrowed.
///
/// @dev Balances are kept scaled: an amount divided by the index of its side at that time, so that
/// interest for all accounts is one multiplication of an index. Indices are rays (27 decimals).
/// Every rounding is in favour of the market. These hold after every call:
///
///  - the scaled supply of a reserve is the sum of the scaled supplies of all accounts; so for debt;
///  - cash + debt >= supply + fees, and the market's token balance >= cash;
///  - no call leaves its caller with debt and a health below one, except `deposit` and `repay`, which
///    only raise health, and `liquidate`, which only adds to what the caller supplies.
///
/// Interest is simple between two calls that touch a reserve, and compounds at each of them. Blocks may
/// share a second: then no time has passed and an index stays as it is; nothing divides by elapsed time.
///
/// Tokens that charge a fee on transfer or change balances by themselves are not supported. Debt that no
/// collateral is left to cover stays on the books.
contract Lending is ILendingErrors, IERC20Errors, IPriceOracleErrors, Owned, Lock {
    using SafeTransfer for IERC20;

    /// @notice How a reserve behaves; all in basis points (10,000 is one), rates per year.
    struct Config {
        /// Part of a deposit's value that may be borrowed against it.
        uint16 collateralFactor;
        /// What a liquidator gets on top of the value it repays.
        uint16 liquidationBonus;
        /// Part of the interest kept as fees.
        uint16 reserveFactor;
        /// Utilisation above which the steep slope begins; neither zero nor one.
        uint16 kink;
        /// Rate at utilisation zero.
        uint16 rateBase;
        /// What the rate gains from zero to the kink.
        uint16 rateSlope;
        /// What the rate gains from the kink to full utilisation.
        uint16 rateSlopeSteep;
    }

    /// @notice One asset; four slots.
    struct Reserve {
        /// Ray: what one scaled unit of supply is worth.
        uint128 supplyIndex;
        /// Ray: what one scaled unit of debt owes.
        uint128 borrowIndex;
        uint128 scaledSupply;
        uint128 scaledDebt;
        /// Units of the token held for the reserve; gifts do not count.
        uint128 cash;
        /// Second of the last accrual.
        uint64 updatedAt;
        /// Units of the token that belong to the owner of the market.
        uint128 fees;
        uint8 id;
        uint8 decimals;
        /// The fields of `Config`, flat: a struct inside a struct would begin a slot of its own.
        uint16 collateralFactor;
        uint16 liquidationBonus;
        uint16 reserveFactor;
        uint16 kink;
        uint16 rateBase;
        uint16 rateSlope;
        uint16 rateSlopeSteep;
    }

    /// @notice What one account has in one reserve; one slot.
    struct Position {
        uint128 scaledSupply;
        uint128 scaledDebt;
    }

    uint256 private constant RAY = 1e27;
    uint256 private constant WAD = 1e18;
    uint256 private constant BPS = 10_000;
    uint256 private constant YEAR = 365 days;

    /// @notice Two bits for each reserve in one word.
    uint256 public constant RESERVES_MAX = 128;
    /// @notice Part of a debt that one liquidation may repay, basis points.
    uint256 public constant CLOSE_FACTOR = 5000;
    /// @notice Health, 18 decimals, below which a liquidation may repay the whole debt.
    uint256 public constant FULL_CLOSE_HEALTH = 0.95e18;

    /// @notice Where prices come from.
    IPriceOracle public immutable oracle;

    /// @notice Listed assets; the index is the id of the reserve.
    address[] public assets;
    mapping(address asset => Reserve) private _reserves;
    /// @notice Scaled supply and scaled debt of an account in a reserve.
    mapping(address asset => mapping(address account => Position)) public positions;
    /// @notice Bit 2i: the account supplies reserve i; bit 2i + 1: it owes to reserve i.
    mapping(address account => uint256) public memberships;

    event ReserveListed(address indexed asset, uint256 id, Config config);
    event Deposit(address indexed asset, address indexed account, uint256 amount);
    event Withdraw(address indexed asset, address indexed account, uint256 amount);
    event Borrow(address indexed asset, address indexed account, uint256 amount);
    event Repay(address indexed asset, address indexed account, uint256 amount);
    event Liquidate(
        address indexed account,
        address indexed liquidator,
        address debtAsset,
        address collateralAsset,
        uint256 repaid,
        uint256 seized
    );
    event FeesCollected(address indexed asset, address indexed to, uint256 amount);

    /// @param oracle_ Where prices come from.
    constructor(IPriceOracle oracle_) {
        oracle = oracle_;
    }

    /// @notice Opens a reserve for `asset`; its configuration is final.
    /// @param asset The token; at most 18 decimals.
    /// @param config How the reserve behaves; a liquidation must be able to raise health, so collateral
    /// factor times one plus bonus is at most one.
    function listReserve(address asset, Config calldata config) external onlyOwner {
        Reserve storage stored = _reserves[asset];
        uint256 id = assets.length;
        uint8 decimals = IERC20Metadata(asset).decimals();
        require(stored.supplyIndex == 0, ReserveExists(asset));
        require(id < RESERVES_MAX, TooManyReserves());
        require(
            uint256(config.collateralFactor) * (BPS + config.liquidationBonus) <= BPS * BPS
                && config.reserveFactor <= BPS && config.kink != 0 && config.kink < BPS && decimals <= 18,
            InvalidConfig()
        );
        stored.supplyIndex = uint128(RAY);
        stored.borrowIndex = uint128(RAY);
        stored.updatedAt = uint64(block.timestamp);
        stored.id = uint8(id);
        stored.decimals = decimals;
        stored.collateralFactor = config.collateralFactor;
        stored.liquidationBonus = config.liquidationBonus;
        stored.reserveFactor = config.reserveFactor;
        stored.kink = config.kink;
        stored.rateBase = config.rateBase;
        stored.rateSlope = config.rateSlope;
        stored.rateSlopeSteep = config.rateSlopeSteep;
        assets.push(asset);
        emit ReserveListed(asset, id, config);
    }

    /// @notice Supplies `amount` of `asset`, which earns interest and counts as collateral.
    /// @param asset A listed token.
    /// @param amount Units taken from the caller by its allowance.
    function deposit(address asset, uint256 amount) external locked {
        require(amount != 0, AmountZero());
        Reserve memory reserve = _accrued(asset);
        uint256 scaled = amount * RAY / reserve.supplyIndex;
        require(scaled != 0, AmountTooSmall(amount));
        reserve.scaledSupply = _u128(reserve.scaledSupply + scaled);
        reserve.cash = _u128(reserve.cash + amount);
        _store(asset, reserve);
        _addSupply(asset, reserve.id, msg.sender, scaled);
        emit Deposit(asset, msg.sender, amount);
        IERC20(asset).pull(msg.sender, address(this), amount);
    }

    /// @notice Takes back supply of the caller; its health must not end below one.
    /// @param asset A listed token.
    /// @param amount Units to take; the largest uint256 takes all.
    function withdraw(address asset, uint256 amount) external locked {
        require(amount != 0, AmountZero());
        Reserve memory reserve = _accrued(asset);
        uint256 supply = _down(positions[asset][msg.sender].scaledSupply, reserve.supplyIndex);
        if (amount == type(uint256).max) amount = supply;
        require(amount != 0 && amount <= supply, InsufficientSupply(supply, amount));
        _takeCash(reserve, amount);
        uint256 scaled = amount == supply
            ? positions[asset][msg.sender].scaledSupply
            : _divideUp(amount * RAY, reserve.supplyIndex);
        reserve.scaledSupply -= uint128(scaled);
        _store(asset, reserve);
        _removeSupply(asset, reserve.id, msg.sender, scaled);
        _requireHealthy(msg.sender);
        emit Withdraw(asset, msg.sender, amount);
        IERC20(asset).send(msg.sender, amount);
    }

    /// @notice Lends `amount` of `asset` to the caller; its health must not end below one.
    /// @param asset A listed token.
    /// @param amount Units to lend.
    function borrow(address asset, uint256 amount) external locked {
        require(amount != 0, AmountZero());
        Reserve memory reserve = _accrued(asset);
        _takeCash(reserve, amount);
        uint256 scaled = _divideUp(amount * RAY, reserve.borrowIndex);
        reserve.scaledDebt = _u128(reserve.scaledDebt + scaled);
        _store(asset, reserve);
        Position storage position = positions[asset][msg.sender];
        if (position.scaledDebt == 0) memberships[msg.sender] |= 2 << (2 * reserve.id);
        position.scaledDebt = _u128(position.scaledDebt + scaled);
        _requireHealthy(msg.sender);
        emit Borrow(asset, msg.sender, amount);
        IERC20(asset).send(msg.sender, amount);
    }

    /// @notice Pays debt of the caller.
    /// @param asset A listed token.
    /// @param amount Units to pay; more than the debt pays the debt, so the largest uint256 clears it.
    /// @return paid Units taken from the caller by its allowance.
    function repay(address asset, uint256 amount) external locked returns (uint256 paid) {
        require(amount != 0, AmountZero());
        Reserve memory reserve = _accrued(asset);
        paid = _settle(asset, reserve, msg.sender, amount);
        _store(asset, reserve);
        emit Repay(asset, msg.sender, paid);
        IERC20(asset).pull(msg.sender, address(this), paid);
    }

    /// @notice Pays debt of an account whose health is below one, for its collateral and a bonus.
    /// @dev The collateral becomes supply of the caller, so a lack of cash cannot stop a liquidation.
    /// @param debtAsset What is owed.
    /// @param collateralAsset What is taken.
    /// @param account Who owes; not the caller.
    /// @param amount At most this much is paid; also at most half the debt (all of it below a health of
    /// 0.95) and at most what the collateral covers.
    /// @return repaid Units of `debtAsset` taken from the caller by its allowance.
    /// @return seized Units of `collateralAsset` credited to the caller.
    function liquidate(address debtAsset, address collateralAsset, address account, uint256 amount)
        external
        locked
        returns (uint256 repaid, uint256 seized)
    {
        require(amount != 0, AmountZero());
        require(account != msg.sender, SelfLiquidation());
        // Stored at once: the two assets may be one.
        _store(debtAsset, _accrued(debtAsset));
        _store(collateralAsset, _accrued(collateralAsset));
        (repaid, seized) = _terms(debtAsset, collateralAsset, account, amount);
        repaid = _liquidateDebt(debtAsset, account, repaid);
        _liquidateCollateral(collateralAsset, account, seized);
        emit Liquidate(account, msg.sender, debtAsset, collateralAsset, repaid, seized);
        IERC20(debtAsset).pull(msg.sender, address(this), repaid);
    }

    /// @notice Pays out fees of a reserve, as far as its cash allows.
    /// @param asset A listed token.
    /// @param to Who receives them.
    /// @return amount Units paid.
    function collectFees(address asset, address to) external onlyOwner locked returns (uint256 amount) {
        Reserve memory reserve = _accrued(asset);
        amount = reserve.fees < reserve.cash ? reserve.fees : reserve.cash;
        reserve.fees -= uint128(amount);
        reserve.cash -= uint128(amount);
        _store(asset, reserve);
        emit FeesCollected(asset, to, amount);
        IERC20(asset).send(to, amount);
    }

    /// @notice How many reserves are listed.
    function reserveCount() external view returns (uint256) {
        return assets.length;
    }

    /// @notice A reserve with interest up to this block.
    /// @param asset A listed token.
    function reserveOf(address asset) external view returns (Reserve memory) {
        return _accrued(asset);
    }

    /// @notice Units of `asset` that `account` supplies, with interest up to this block; rounded down.
    /// @param asset A listed token.
    /// @param account Whose.
    function supplyOf(address asset, address account) external view returns (uint256) {
        return _down(positions[asset][account].scaledSupply, _accrued(asset).supplyIndex);
    }

    /// @notice Units of `asset` that `account` owes, with interest up to this block; rounded up.
    /// @param asset A listed token.
    /// @param account Whose.
    function debtOf(address asset, address account) external view returns (uint256) {
        return _up(positions[asset][account].scaledDebt, _accrued(asset).borrowIndex);
    }

    /// @notice What borrowers of `asset` pay now.
    /// @param asset A listed token.
    /// @return Rate per year, 18 decimals.
    function borrowRate(address asset) external view returns (uint256) {
        return _rate(_accrued(asset));
    }

    /// @notice What an account may borrow against, what it owes, and the ratio of the two.
    /// @param account Whose.
    /// @return collateral Value of its supply, each asset times its collateral factor; 18 decimals.
    /// @return debt Value of what it owes; 18 decimals.
    /// @return health Collateral over debt, 18 decimals; the largest uint256 without debt.
    function health(address account) public view returns (uint256 collateral, uint256 debt, uint256) {
        uint256 bits = memberships[account];
        for (uint256 id = 0; bits != 0; ++id) {
            if (bits & 3 != 0) {
                (uint256 moreCollateral, uint256 moreDebt) = _valueIn(assets[id], account);
                collateral += moreCollateral;
                debt += moreDebt;
            }
            bits >>= 2;
        }
        return (collateral, debt, debt == 0 ? type(uint256).max : collateral * WAD / debt);
    }

    /// @dev Reads the reserve and brings it to this block; writes nothing.
    function _accrued(address asset) private view returns (Reserve memory reserve) {
        reserve = _reserves[asset];
        require(reserve.supplyIndex != 0, ReserveUnknown(asset));
        uint256 elapsed = block.timestamp - reserve.updatedAt;
        if (elapsed == 0) return reserve;
        reserve.updatedAt = uint64(block.timestamp);
        if (reserve.scaledDebt == 0) return reserve;

        uint256 growth = _rate(reserve) * (RAY / WAD) * elapsed / YEAR;
        uint256 rise = reserve.borrowIndex * growth / RAY;
        reserve.borrowIndex = _u128(reserve.borrowIndex + rise);
        uint256 interest = reserve.scaledDebt * rise / RAY;
        uint256 fee = reserve.scaledSupply == 0 ? interest : interest * reserve.reserveFactor / BPS;
        reserve.fees = _u128(reserve.fees + fee);
        if (reserve.scaledSupply != 0) {
            reserve.supplyIndex =
                _u128(reserve.supplyIndex + (interest - fee) * RAY / reserve.scaledSupply);
        }
    }

    /// @dev Writes back what calls change; the configuration stays.
    function _store(address asset, Reserve memory reserve) private {
        Reserve storage stored = _reserves[asset];
        stored.supplyIndex = reserve.supplyIndex;
        stored.borrowIndex = reserve.borrowIndex;
        stored.scaledSupply = reserve.scaledSupply;
        stored.scaledDebt = reserve.scaledDebt;
        stored.cash = reserve.cash;
        stored.updatedAt = reserve.updatedAt;
        stored.fees = reserve.fees;
    }

    /// @dev Per year, 18 decimals: a line up to the kink and a steeper one beyond it.
    function _rate(Reserve memory reserve) private pure returns (uint256) {
        uint256 debt = _up(reserve.scaledDebt, reserve.borrowIndex);
        if (debt == 0) return uint256(reserve.rateBase) * WAD / BPS;
        uint256 utilisation = debt * WAD / (reserve.cash + debt);
        uint256 kink = uint256(reserve.kink) * WAD / BPS;
        uint256 base = uint256(reserve.rateBase) * WAD / BPS;
        uint256 slope = uint256(reserve.rateSlope) * WAD / BPS;
        if (utilisation <= kink) return base + slope * utilisation / kink;
        uint256 steep = uint256(reserve.rateSlopeSteep) * WAD / BPS;
        return base + slope + steep * (utilisation - kink) / (WAD - kink);
    }

    /// @dev Fees are not lent and not paid to suppliers: debt could otherwise outgrow supply without bound,
    /// and its interest would inflate the index of the little that is left.
    function _takeCash(Reserve memory reserve, uint256 amount) private pure {
        uint256 available = reserve.cash > reserve.fees ? reserve.cash - reserve.fees : 0;
        require(amount <= available, InsufficientLiquidity(available, amount));
        reserve.cash -= uint128(amount);
    }

    function _addSupply(address asset, uint256 id, address account, uint256 scaled) private {
        Position storage position = positions[asset][account];
        if (position.scaledSupply == 0) memberships[account] |= 1 << (2 * id);
        position.scaledSupply = _u128(position.scaledSupply + scaled);
    }

    function _removeSupply(address asset, uint256 id, address account, uint256 scaled) private {
        Position storage position = positions[asset][account];
        position.scaledSupply -= uint128(scaled);
        if (position.scaledSupply == 0) memberships[account] &= ~(1 << (2 * id));
    }

    /// @dev Takes up to `amount` off the debt, in the position and in the reserve in memory.
    function _settle(address asset, Reserve memory reserve, address account, uint256 amount)
        private
        returns (uint256 paid)
    {
        Position storage position = positions[asset][account];
        uint256 scaledDebt = position.scaledDebt;
        require(scaledDebt != 0, NoDebt(account));
        uint256 debt = _up(scaledDebt, reserve.borrowIndex);
        paid = amount < debt ? amount : debt;
        uint256 scaled = paid == debt ? scaledDebt : paid * RAY / reserve.borrowIndex;
        require(scaled != 0, AmountTooSmall(amount));
        position.scaledDebt = uint128(scaledDebt - scaled);
        if (scaled == scaledDebt) memberships[account] &= ~(2 << (2 * uint256(reserve.id)));
        reserve.scaledDebt -= uint128(scaled);
        reserve.cash = _u128(reserve.cash + paid);
    }

    function _liquidateDebt(address asset, address account, uint256 amount) private returns (uint256 repaid) {
        Reserve memory reserve = _reserves[asset];
        repaid = _settle(asset, reserve, account, amount);
        _store(asset, reserve);
    }

    function _liquidateCollateral(address asset, address account, uint256 amount) private {
        Reserve memory reserve = _reserves[asset];
        uint256 held = positions[asset][account].scaledSupply;
        uint256 scaled = amount == _down(held, reserve.supplyIndex) ? held : amount * RAY / reserve.supplyIndex;
        _removeSupply(asset, reserve.id, account, scaled);
        _addSupply(asset, reserve.id, msg.sender, scaled);
    }

    /// @dev How much is repaid and seized; both reserves are stored as of this block.
    function _terms(address debtAsset, address collateralAsset, address account, uint256 amount)
        private
        view
        returns (uint256 repaid, uint256 seized)
    {
        (,, uint256 healthNow) = health(account);
        require(healthNow < WAD, Healthy(healthNow));
        uint256 debt = _up(positions[debtAsset][account].scaledDebt, _reserves[debtAsset].borrowIndex);
        require(debt != 0, NoDebt(account));
        uint256 most = healthNow < FULL_CLOSE_HEALTH ? debt : _divideUp(debt * CLOSE_FACTOR, BPS);
        repaid = amount < most ? amount : most;

        uint256 supply =
            _down(positions[collateralAsset][account].scaledSupply, _reserves[collateralAsset].supplyIndex);
        require(supply != 0, InsufficientSupply(supply, 1));
        // What one unit of debt is worth in units of collateral, bonus included: the ratio of the two.
        uint256 debtSide = oracle.price(debtAsset) * (BPS + _reserves[collateralAsset].liquidationBonus)
            * 10 ** _reserves[collateralAsset].decimals;
        uint256 collateralSide = oracle.price(collateralAsset) * BPS * 10 ** _reserves[debtAsset].decimals;
        seized = repaid * debtSide / collateralSide;
        if (seized > supply) {
            seized = supply;
            repaid = _divideUp(supply * collateralSide, debtSide);
        }
        require(seized != 0, AmountTooSmall(amount));
    }

    /// @dev An account without debt needs no prices, so an oracle that stopped cannot hold its deposits.
    function _requireHealthy(address account) private view {
        uint256 debtBits = 0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa;
        if (memberships[account] & debtBits == 0) return;
        (,, uint256 healthNow) = health(account);
        require(healthNow >= WAD, Unhealthy(healthNow));
    }

    /// @dev Collateral rounds down and debt rounds up; 18 decimals each.
    function _valueIn(address asset, address account) private view returns (uint256 collateral, uint256 debt) {
        Reserve memory reserve = _accrued(asset);
        Position memory position = positions[asset][account];
        // Prices have 8 decimals, amounts those of the token.
        uint256 price = oracle.price(asset) * 1e10;
        uint256 unit = 10 ** reserve.decimals;
        collateral = _down(position.scaledSupply, reserve.supplyIndex) * price / unit
            * reserve.collateralFactor / BPS;
        debt = _divideUp(_up(position.scaledDebt, reserve.borrowIndex) * price, unit);
    }

    function _down(uint256 scaled, uint256 index) private pure returns (uint256) {
        return scaled * index / RAY;
    }

    function _up(uint256 scaled, uint256 index) private pure returns (uint256) {
        return _divideUp(scaled * index, RAY);
    }

    function _divideUp(uint256 x, uint256 y) private pure returns (uint256) {
        return x == 0 ? 0 : (x - 1) / y + 1;
    }

    function _u128(uint256 value) private pure returns (uint128) {
        require(value <= type(uint128).max, ValueTooLarge(value));
        return uint128(value);
    }
}
