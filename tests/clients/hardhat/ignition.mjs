// What Ignition deploys: contracts in an order of their own, and calls after them.
import { buildModule } from "@nomicfoundation/hardhat-ignition/modules";

export default buildModule("Shop", (m) => {
  const token = m.contract("Token", ["Shop", "SHP", 18, 1000n]);
  const counter = m.contract("Counter", [3n]);
  const bumped = m.call(counter, "bumpMany", [4n]);
  const nft = m.contract("Collectible", [], { after: [bumped] });
  m.call(nft, "mint", [m.getAccount(0), "ipfs://ignition"]);
  return { token, counter, nft };
});
