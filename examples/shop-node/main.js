import { Eligibility, optionsOf } from './eligibility.js';
import { createShop } from './server.js';

const eligibility = new Eligibility(optionsOf(process.env));
const shop = createShop({
  eligibility,
  // A shop calls Partner Center, or its order system, with the ID as idempotency key.
  place: async (order) => console.log(JSON.stringify({ msg: 'order placed', ...order })),
});
const [host, port] = (process.env.SHOP_ADDRESS || 'localhost:8000').split(/:(?=\d+$)/);
shop.listen(Number(port), host, () => {
  const { address, family, port: chosen } = shop.address();
  console.log(`the shop is at http://${family === 'IPv6' ? `[${address}]` : address}:${chosen}/`);
});

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    shop.close(() => eligibility.close());
    shop.closeIdleConnections();
  });
}
