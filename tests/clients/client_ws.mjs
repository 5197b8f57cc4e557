// A client with the package `ws`, controlled as described in README.md: node client_ws.mjs URL [ORIGIN]

import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';
import WebSocket from 'ws';

const tell = event => process.stdout.write(`${JSON.stringify(event)}\n`);
const [url, origin] = process.argv.slice(2);
const socket = new WebSocket(url, { origin });

socket.on('open', () => {
  tell({ event: 'open' });
  createInterface({ input: process.stdin }).on('line', line => {
    const order = JSON.parse(line);
    if (order.do === 'text') socket.send(order.text);
    else if (order.do === 'binary') {
      const whole = order.bytes - order.bytes % 256;
      socket.send(Buffer.from(Array.from({ length: order.bytes }, (_, at) => at < whole ? at % 256 : 0)));
    } else if (order.do === 'ping') socket.ping();
    else if (order.do === 'close') socket.close();
  });
});
socket.on('pong', () => tell({ event: 'pong' }));
socket.on('message', (data, isBinary) => tell(isBinary
  ? { event: 'binary', bytes: data.length, sha256: createHash('sha256').update(data).digest('hex') }
  : { event: 'text', text: data.toString() }));
socket.on('unexpected-response', (_, answer) => {
  tell({ event: 'refused', status: answer.statusCode });
  process.exit();
});
socket.on('error', error => process.stderr.write(`${error.message}\n`));
socket.on('close', code => {
  tell({ event: 'closed', code });
  process.exit();
});
