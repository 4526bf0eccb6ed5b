// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.27;

import {vm} from "./Vm.sol";
import {Token} from "contracts/Token.sol";
import {Collectible} from "contracts/Collectible.sol";
import {Counter} from "contracts/Counter.sol";
import {Faults} from "contracts/Faults.sol";
import {IPool, Trader} from "contracts/Trader.sol";

interface IRouter {
    function addLiquidity(
        address a,
        address b,
        uint256 amountA,
        uint256 amountB,
        uint256,
        uint256,
        address to,
        uint256
    ) external returns (uint256, uint256, uint256);
    function swapExactTokensForTokens(
        uint256 amount,
        uint256 least,
        address[] calldata path,
        address to,
        uint256
    ) external returns (uint256[] memory);
}

interface IFactory {
    function getPair(address a, address b) external view returns (address);
    function createPool(address a, address b, uint24 fee) external returns (address);
}

interface IPair {
    function getReserves() external view returns (uint112, uint112, uint32);
}

interface IInitializable {
    function initialize(uint160 price) external;
}

/// Forty transactions sent at once: OpenZeppelin, CREATE2, Uniswap V2 and V3.
contract Deploy {
    bool public constant IS_SCRIPT = true;
    string constant MODULES = "node_modules/@uniswap/";

    event Reserves(uint256 a, uint256 b);

    function run() external returns (address gold, address counter, address pair, address pool) {
        bytes32 salt = vm.envBytes32("SALT");
        address me = vm.envAddress("SENDER");
        vm.startBroadcast();
        Token a = new Token("Gold", "GLD", 18, 1000 ether);
        Token b = new Token("Silver", "SLV", 18, 1000 ether);
        Collectible nft = new Collectible();
        new Faults();
        Counter salted = new Counter{salt: salt}(5);
        new Token{salt: salt}("Salted", "SLT", 6, 1e12);
        require(salted.value() == 5, "the salted counter");
        for (uint256 i; i < 15; i++) {
            salted.bump(bytes32(i));
        }
        for (uint256 i; i < 4; i++) {
            nft.mint(me, "ipfs://forge");
        }
        pair = v2(a, b, me);
        pool = v3(a, b);
        vm.stopBroadcast();
        return (address(a), address(salted), pair, pool);
    }

    /// Fails on a contract of the node, for forge to decode.
    function refused(Faults faults) external {
        vm.startBroadcast();
        faults.custom(7);
    }

    function v2(Token a, Token b, address me) private returns (address pair) {
        address weth = create("v2-periphery/build/WETH9.json", "");
        address factory = create("v2-core/build/UniswapV2Factory.json", abi.encode(me));
        IRouter router =
            IRouter(create("v2-periphery/build/UniswapV2Router02.json", abi.encode(factory, weth)));
        a.approve(address(router), type(uint256).max);
        b.approve(address(router), type(uint256).max);
        router.addLiquidity(
            address(a), address(b), 100 ether, 200 ether, 0, 0, me, type(uint256).max
        );
        address[] memory path = new address[](2);
        (path[0], path[1]) = (address(a), address(b));
        for (uint256 i; i < 3; i++) {
            router.swapExactTokensForTokens(1 ether, 1, path, me, type(uint256).max);
        }
        pair = IFactory(factory).getPair(address(a), address(b));
        (uint256 low, uint256 high,) = IPair(pair).getReserves();
        require((address(a) < address(b) ? low : high) == 103 ether, "the reserves");
    }

    function v3(Token a, Token b) private returns (address pool) {
        address factory =
            create("v3-core/artifacts/contracts/UniswapV3Factory.sol/UniswapV3Factory.json", "");
        pool = IFactory(factory).createPool(address(a), address(b), 3000);
        IInitializable(pool).initialize(2 ** 96);
        Trader trader = new Trader();
        a.approve(address(trader), type(uint256).max);
        b.approve(address(trader), type(uint256).max);
        trader.mint(IPool(pool), -887220, 887220, 10 ether);
        (int256 paid, int256 got) = trader.swap(IPool(pool), true, 1 ether, 4295128740);
        require(paid == 1 ether && got < -0.9 ether, "the swap");
    }

    /// Deploys the code of an npm artefact.
    function create(string memory path, bytes memory args) private returns (address at) {
        string memory text =
            vm.parseJsonString(vm.readFile(string.concat(MODULES, path)), ".bytecode");
        bool prefixed = bytes(text)[1] == "x";
        bytes memory code =
            abi.encodePacked(vm.parseBytes(prefixed ? text : string.concat("0x", text)), args);
        assembly {
            at := create(0, add(code, 32), mload(code))
        }
        require(at != address(0), path);
    }
}
