// A client with the package `eventsource`, controlled as described in README.md: node client_eventsource.mjs URL

import { createInterface } from 'node:readline';
import { EventSource } from 'eventsource';

const tell = event => process.stdout.write(`${JSON.stringify(event)}\n`);
const source = new EventSource(process.argv[2]);

source.onopen = () => tell({ event: 'open' });
source.onmessage = ({ data }) => tell({ event: 'text', text: data });
// It connects again by itself, unless the answer was an error.
source.onerror = ({ code, message }) => {
  if (message) process.stderr.write(`${message}\n`);
  if (source.readyState !== EventSource.CLOSED) return tell({ event: 'lost' });
  tell({ event: 'refused', status: code });
  process.exit();
};
createInterface({ input: process.stdin }).on('close', () => process.exit()).on('line', line => {
  if (JSON.parse(line).do !== 'close') return;
  source.close();
  tell({ event: 'closed' });
  process.exit();
});
