// Tests the examples with a browser: each example is started as it ships, its page is opened, and the page must show the
// function of the example.
//
//   node run.mjs PUSHD REPOSITORY [EXAMPLE…]      all examples, "live" (config/pushd.toml), and "event-streams"
//                                                 (event-streams.toml in this directory), unless some are named
//
// The ports of the examples must be free. CHROMIUM names the browser; the default is /usr/bin/chromium. Every wait is for a
// condition, with a deadline. The last line gives the totals; after a failure the exit status is 1.

import { spawn } from 'node:child_process';
import { appendFile, cp, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const DEADLINE_MS = 40_000;
// How many times a measurement that depends on the speed of the machine is repeated before it counts as failed.
const MEASUREMENTS_MAX = 5;
const POLL_MS = 25;
const CHECK_MAX_MS = 240_000;     // for a whole check, in case the browser itself hangs
const BROWSER_FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
  '--host-resolver-rules=MAP attacker.example 127.0.0.1',     // a foreign name that points at this machine (DNS rebinding)
];

const [pushd, repository, ...wanted] = process.argv.slice(2);
if (!pushd || !repository) {
  console.error('usage: node run.mjs PUSHD REPOSITORY [EXAMPLE…]');
  process.exit(64);
}

// Counting

let passed = 0;
let failed = 0;

async function check(name, body) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(reject, CHECK_MAX_MS, new Error(`not done within ${CHECK_MAX_MS} ms`));
  });
  try {
    await Promise.race([body(), late]);
    passed += 1;
    console.log(`ok    ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${name}: ${String(error.message ?? error).split('\n')[0]}`);
  } finally {
    clearTimeout(timer);
  }
}

function equal(found, expected, what) {
  if (found !== expected) throw new Error(`${what}: expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`);
}

function holds(condition, what) {
  if (!condition) throw new Error(what);
}

/** Calls `ask` until it returns a truthy value, and returns that value. */
async function until(what, ask, deadline_ms = DEADLINE_MS) {
  const end = Date.now() + deadline_ms;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`not within ${deadline_ms} ms: ${what}`);
    await new Promise(resolve => setTimeout(resolve, POLL_MS));
  }
}

// The server

function accepts(port) {
  return new Promise(resolve => {
    const socket = net.connect(port, '127.0.0.1');
    socket.once('connect', () => { socket.destroy(); resolve(true); });
    socket.once('error', () => resolve(false));
  });
}

class Server {
  constructor(config, rundir, ports) {
    Object.assign(this, { config, rundir, ports, errors: '' });
  }

  async start() {
    for (const port of this.ports) holds(!await accepts(port), `port ${port} is taken by something else`);
    this.startedAt = Date.now();
    this.ended = undefined;
    this.process = spawn(path.resolve(pushd), ['-n', '-c', this.config, '--rundir', this.rundir], { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream.setEncoding('utf8').on('data', text => { this.errors += text; });
    }
    this.process.once('error', error => { this.ended = { code: null, signal: error.message }; });
    this.process.once('exit', (code, signal) => { this.ended = { code, signal }; });
    for (const port of this.ports) {
      await until(`port ${port} accepts`, async () => {
        if (this.ended) throw new Error(`ended at once with ${this.ended.code ?? this.ended.signal}: ${this.errors.trim()}`);
        return accepts(port);
      });
    }
  }

  /** The whole log, wherever the configuration sends it. */
  async log() {
    return this.errors + await readFile(path.join(this.rundir, 'pushd.log'), 'utf8').catch(() => '');
  }

  async says(text) {
    await until(`the log contains ${JSON.stringify(text)}`, async () => (await this.log()).includes(text));
  }

  async stop() {
    if (!this.process?.pid || this.ended) throw new Error(`was not running any more (${JSON.stringify(this.ended)})`);
    process.kill(this.process.pid, 'SIGINT');
    await until('an end after SIGINT', () => this.ended, 20_000);
    equal(this.ended.code, 0, 'exit code after SIGINT');
  }

  /** Makes sure that a failed test leaves no process behind. */
  async kill() {
    if (!this.process?.pid || this.ended) return;
    process.kill(this.process.pid, 'SIGKILL');
    await until('an end after SIGKILL', () => this.ended);
  }
}

/** The status of a WebSocket handshake, made with plain HTTP. */
function handshakeStatus(port, target) {
  return new Promise((resolve, reject) => {
    const request = http.get({
      host: '127.0.0.1', port, path: target, timeout: DEADLINE_MS,
      headers: { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==' },
    });
    const settle = (answer, socket) => { socket.destroy(); resolve(answer.statusCode); };
    request.once('upgrade', settle);
    request.once('response', answer => settle(answer, answer.socket));
    request.once('timeout', () => request.destroy(new Error('no answer to the handshake')));
    request.once('error', reject);
  });
}

// The pages

/** The test of one example: its server, the browser, and the open pages. */
class Trial {
  constructor(name, server, browser, pagePort, title) {
    Object.assign(this, { name, server, browser, pagePort, title, pages: [], complaints: [], watching: true });
  }

  /** The URL of the example's page: the root, or a directory with its name if several examples share a root. */
  async address() {
    for (const place of ['/', `/${this.name}/`]) {
      const reply = await fetch(`http://127.0.0.1:${this.pagePort}${place}`, { signal: AbortSignal.timeout(DEADLINE_MS) });
      const text = await reply.text();
      if (reply.ok && text.includes(`<title>${this.title}</title>`)) return `http://127.0.0.1:${this.pagePort}${place}`;
    }
    throw new Error(`port ${this.pagePort} serves no page titled ${this.title}`);
  }

  async open(suffix = '') {
    const page = await this.browser.newPage();
    page.setDefaultTimeout(DEADLINE_MS);
    const complain = text => { if (this.watching) this.complaints.push(text); };
    page.on('pageerror', error => complain(error.message));
    page.on('console', message => { if (message.type() === 'error') complain(message.text()); });
    this.pages.push(page);
    await page.goto(await this.address() + suffix);
    return page;
  }

  async openLive(suffix = '') {
    const page = await this.open(suffix);
    await live(page);
    return page;
  }
}

const live = page => page.waitForSelector('body[data-state=live]');
const linesOf = page => page.locator('[role=log] > div').allInnerTexts();
const shows = (page, line) => until(`the page shows ${JSON.stringify(line)}`, async () => (await linesOf(page)).some(l => l.endsWith(line)));
const lacks = async (page, line) => holds(!(await linesOf(page)).some(l => l.includes(line)), `a page shows ${JSON.stringify(line)}, which was for another client`);
const textOf = (page, selector, test) => until(`${selector} passes ${test}`, async () => {
  const text = (await page.textContent(selector)) ?? '';
  return test.test(text) && text;
});

/** Fills a field and sends its form with the Enter key, like a user. */
async function say(page, field, text) {
  await page.fill(field, text);
  await page.press(field, 'Enter');
}

/** The JSON response to a publication, as the page shows it. */
async function answerIn(page, selector) {
  const text = await textOf(page, selector, /\{.*\}/);
  return JSON.parse(text.slice(text.indexOf('{'), text.lastIndexOf('}') + 1));
}

// Event streams

/** Opens an `EventSource` in a page, and records its events there. */
function openStream(page, url, options = {}) {
  return page.evaluateHandle(([url, { types = ['message'], withCredentials = false }]) => {
    const source = new EventSource(url, { withCredentials });
    const stream = { source, opened: 0, errors: 0, events: [] };
    source.onopen = () => { stream.opened += 1; };
    source.onerror = () => { stream.errors += 1; };
    for (const type of types) {
      source.addEventListener(type, event => stream.events.push({ type: event.type, data: event.data, origin: event.origin, id: event.lastEventId }));
    }
    return stream;
  }, [url, options]);
}

const stateOf = stream => stream.evaluate(({ source, opened, errors, events }) => ({ readyState: source.readyState, opened, errors, events }));
const closeStream = stream => stream.evaluate(({ source }) => source.close());
const opens = stream => until('the stream is open', async () => (await stateOf(stream)).readyState === 1);
const CLOSED = 2;     // EventSource.CLOSED: the browser does not try again

/** Waits for an event with this data, and returns it. */
function receives(stream, data) {
  return until(`the stream receives ${JSON.stringify(data)}`, async () => (await stateOf(stream)).events.find(event => event.data === data));
}

/** Waits until the browser has closed a stream for good, and checks that the page received nothing. */
async function isRefused(stream, what) {
  await until(`${what} is refused`, async () => (await stateOf(stream)).readyState === CLOSED);
  const { opened, events } = await stateOf(stream);
  equal(`${opened} ${events.length}`, '0 0', `${what}: how often it opened, and events`);
}

/** Takes the only place with an event stream of another program. Returns a function that releases it. */
async function occupy(url) {
  const request = http.get(url, { headers: { Accept: 'text/event-stream' } });
  const answer = await new Promise((resolve, reject) => request.once('response', resolve).once('error', reject));
  equal(answer.statusCode, 200, `the status of ${url}`);
  answer.on('error', () => {}).resume();      // `destroy` makes an error of it
  return () => request.destroy();
}

async function post(url, body) {
  const reply = await fetch(url, { method: 'POST', body, signal: AbortSignal.timeout(DEADLINE_MS) });
  const text = await reply.text();
  holds(reply.ok, `${url} answered ${reply.status}: ${text}`);
  return JSON.parse(text);
}

// The examples

async function serverPush(t) {
  const desk = await t.openLive('?userid=anna&compid=desk');
  const desk2 = await t.openLive('?userid=anna&compid=desk');
  const phone = await t.openLive('?userid=anna&compid=phone');
  const bob = await t.openLive('?userid=bob&compid=desk');
  const everyone = [desk, desk2, phone, bob];

  await check('server-push: a push reaches every socket of its pair', async () => {
    await bob.fill('#push-userid', 'anna');
    await bob.fill('#push-compid', 'desk');
    await say(bob, '#push-message', 'for anna at her desk & nobody + else');
    equal((await answerIn(bob, '#push-answer')).subscribers, 2, 'subscribers');
    for (const page of [desk, desk2]) await shows(page, 'for anna at her desk & nobody + else');
  });
  await check('server-push: a push to all reaches all', async () => {
    await say(desk, '#all-message', 'for everyone: ünïcødé');
    equal((await answerIn(desk, '#all-answer')).subscribers, 4, 'subscribers');
    for (const page of everyone) await shows(page, 'for everyone: ünïcødé');
  });
  await check('server-push: a push reaches only its pair', async () => {
    for (const page of [phone, bob]) await lacks(page, 'for anna at her desk');
  });
  await check('server-push: a push to a pair without sockets reaches 0', async () => {
    const reply = await fetch('http://127.0.0.1:8888/push?userid=nobody&compid=none&message=x');
    equal(reply.ok, true, 'success');
    equal((await reply.json()).subscribers, 0, 'subscribers');
  });
  await check('server-push: a message from a client is logged, and sent to no client', async () => {
    await say(phone, '#text', 'only the log hears this');
    await t.server.says('only the log hears this');
    await post('http://127.0.0.1:8888/pushtoall?message=afterwards', '');
    for (const page of everyone) await shows(page, 'afterwards');
    for (const page of [desk, desk2, bob]) await lacks(page, 'only the log hears this');
  });
  await check('server-push: a missing argument is refused with 400', async () => {
    equal(await handshakeStatus(8888, '/ws?userid=anna'), 400, 'handshake without compid');
    equal(await handshakeStatus(8888, '/ws?userid=anna&compid=desk'), 101, 'handshake with both');
    equal((await fetch('http://127.0.0.1:8888/push?userid=anna&message=x')).status, 400, 'push without compid');
  });
  await check('server-push: a closed socket is no longer counted', async () => {
    await desk2.close();
    await until('a push to one subscriber', async () => {
      const reply = await fetch('http://127.0.0.1:8888/push?userid=anna&compid=desk&message=still');
      return (await reply.json()).subscribers === 1;
    });
  });
}

async function helloWorld(t) {
  const page = await t.open();
  const colours = () => Promise.all(['host', 'port', 'uri'].map(async id => {
    const [r, g] = (await page.$eval(`#${id}`, e => getComputedStyle(e).backgroundColor)).match(/\d+/g).map(Number);
    return r > g ? 'red' : 'green';
  }));

  await check('hello-world: the fields are red at first', async () => equal((await colours()).join(), 'red,red,red', 'fields'));
  await check('hello-world: the fields are green once open', async () => {
    await page.click('#open');
    await live(page);
    equal((await colours()).join(), 'green,green,green', 'fields');
  });
  await check('hello-world: the greeting is shown', () => textOf(page, '#greeting', /^Hello World$/));
  await check('hello-world: a message is logged', async () => {
    await say(page, '#message', 'good morning server');
    await t.server.says('good morning server');
  });
}

async function echo(t) {
  const page = await t.openLive();
  await check('echo: Hello Chetan is sent back', () => textOf(page, '#answer', /^Hello Chetan$/));
  await check('echo: a binary message is sent back as binary', async () => {
    await page.check('#binary');
    await say(page, '#message', 'åtta');
    await until('the bytes are back', async () => (await linesOf(page)).some(l => l.startsWith('Came back: åtta (binary, 5 bytes')));
  });
  await check('echo: an echo is sent to its sender only', async () => {
    const other = await t.openLive();
    await textOf(other, '#answer', /^Hello Chetan$/);
    await say(page, '#message', 'mine');
    await textOf(page, '#answer', /^mine$/);
    await say(other, '#message', 'fence');
    await textOf(other, '#answer', /^fence$/);
    await lacks(other, 'mine');
  });
  await check('echo: 16 MiB are sent back unchanged', async () => {
    const same = await page.evaluate(deadline_ms => new Promise((resolve, reject) => {
      const sent = new Uint8Array(16 * 1024 * 1024).map((_, i) => i * 31 + (i >> 8));
      const socket = new WebSocket('ws://127.0.0.1:8888/ws');
      setTimeout(reject, deadline_ms, new Error('no answer'));
      socket.binaryType = 'arraybuffer';
      socket.onopen = () => socket.send(sent);
      socket.onclose = e => reject(new Error(`closed with ${e.code} ${e.reason}`));
      socket.onmessage = e => {
        const back = new Uint8Array(e.data);
        resolve(back.length === sent.length && back.every((byte, i) => byte === sent[i]));
        socket.onclose = null;
        socket.close();
      };
    }), 30_000);
    equal(same, true, 'the same bytes');
  });
}

async function techops(t) {
  const [one, two] = [await t.openLive(), await t.openLive()];
  await check('techops: a broadcast reaches every page, including the sender', async () => {
    await one.click('#broadcast');
    for (const page of [one, two]) await shows(page, 'Received: Hello from Browser!');
    await say(two, '#message', '<b>back</b>: again');
    for (const page of [one, two]) await shows(page, 'Received: <b>back</b>: again');
  });
  await check('techops: binary is ignored', async () => {
    await one.evaluate('ws.send(new Uint8Array([1, 2, 3]))');
    await say(one, '#message', 'after the bytes');
    for (const page of [one, two]) {
      await shows(page, 'Received: after the bytes');
      await lacks(page, 'binary');
    }
  });
}

// Checks the ticks of two pages, each with its time. Throws if the numbers are not in order; returns what is wrong with the times.
function tickTrouble(ones, twos) {
  for (const seen of [ones, twos]) {
    for (let i = 1; i < seen.length; i++) {
      equal(seen[i][0], seen[i - 1][0] + 1, 'the next tick');
      const apart_ms = seen[i][1] - seen[i - 1][1];
      if (apart_ms <= 500 || apart_ms >= 2000) return `ticks are ${apart_ms} ms apart`;
    }
  }
  const common = ones.filter(([n]) => twos.some(([m]) => m === n));
  if (common.length < 2) return 'the pages received different numbers';
  for (const [n, at] of common) {
    const apart_ms = Math.abs(at - twos.find(([m]) => m === n)[1]);
    if (apart_ms >= 500) return `tick ${n} came ${apart_ms} ms apart`;
  }
  return undefined;
}

async function tick(t) {
  const [one, two] = [await t.openLive(), await t.openLive()];
  const watch = page => page.evaluate(deadline_ms => new Promise((resolve, reject) => {
    const seen = [];
    setTimeout(reject, deadline_ms, new Error('too few ticks'));
    new MutationObserver(() => {
      seen.push([Number(document.getElementById('tic').textContent), Date.now()]);
      if (seen.length === 4) resolve(seen);
    }).observe(document.getElementById('tic'), { childList: true });
  }), DEADLINE_MS);

  await check('tick: the number counts up once a second, the same for all', async () => {
    // If the machine pauses for a moment, one measurement is wrong although the clock is right. So measure again.
    let ones, trouble;
    for (let measurement = 0; measurement < MEASUREMENTS_MAX; measurement++) {
      let twos;
      [ones, twos] = await Promise.all([watch(one), watch(two)]);
      trouble = tickTrouble(ones, twos);
      if (!trouble) break;
    }
    holds(!trouble, trouble);
    holds(ones[0][0] <= (Date.now() - t.server.startedAt) / 1000 + 1, `tick ${ones[0][0]} does not count from 0`);
  });
  await check('tick: every page shows a message unchanged', async () => {
    for (const text of ['tea at 12:30: <b>bring</b> cups & spoons', 'tick:99']) {
      await say(one, '#message', text);
      for (const page of [one, two]) await shows(page, text);
    }
  });
}

async function streaming(t) {
  const [one, two] = [await t.openLive(), await t.openLive()];
  await check('streaming: numbers arrive', async () => {
    for (const page of [one, two]) {
      await textOf(page, '#now', /^-?\d+(\.\d+)?$/);
      await page.waitForFunction('points.length >= 3', undefined, { polling: POLL_MS });
    }
  });
  await check('streaming: the numbers are drawn', async () => {
    const drawn = await one.$eval('#chart', canvas => {
      const accent = getComputedStyle(document.getElementById('now')).color.match(/\d+/g).map(Number);
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      for (let at = 0; at < data.length; at += 4) {
        if (data[at + 3] === 255 && accent.every((part, i) => data[at + i] === part)) return true;
      }
      return false;
    });
    equal(drawn, true, 'a line of the accent colour on the canvas');
  });
  await check('streaming: a line appended to the file appears', async () => {
    for (const line of ['the kettle: <i>boils</i>', 'and again']) {
      await appendFile(path.join(path.dirname(t.server.config), 'streaming.log'), `${line}\n`);
      for (const page of [one, two]) await shows(page, line);
    }
  });
}

async function livePage(t) {
  const [one, two] = [await t.openLive(), await t.openLive()];
  const publish = channel => `http://127.0.0.1:8888/publish/${channel}`;

  await check('live: a message typed in one page appears in another', async () => {
    await say(one, '#text', 'from one to all: <b>plain</b>');
    for (const page of [one, two]) await shows(page, 'from one to all: <b>plain</b>');
    const answer = await answerIn(one, '#answer');
    equal(answer.channel, 'all', 'channel');
    equal(answer.subscribers, 2, 'subscribers');
  });
  await check('live: a POST from another program appears', async () => {
    const answer = await post(publish('all'), 'from outside');
    equal(answer.channel, 'all', 'channel');
    equal(answer.subscribers, 2, 'subscribers');
    for (const page of [one, two]) await shows(page, 'from outside');
  });
  await check('live: the page shows a curl command that publishes', async () => {
    equal(await one.textContent('#curl'), `curl -d 'hello' ${publish('all')}`, 'command');
  });
  await check('live: a foreign name that resolves to this machine is refused', async () => {
    const page = await one.context().newPage();
    for (const target of ['', 'metrics', 'healthz', 'publish/all']) {
      const answer = await page.goto(`http://attacker.example:8888/${target}`);
      equal(answer.status(), 421, `/${target}`);
    }
    await page.close();
  });
  await check('live: a page of this server can use any loopback name', async () => {
    const page = await one.context().newPage();
    await page.goto('http://localhost:8888/');
    await live(page);
    const opened = await page.evaluate(() => new Promise(resolve => {
      const socket = new WebSocket('ws://127.0.0.1:8888/ws?channel=news');
      socket.onopen = () => resolve(true);
      socket.onclose = () => resolve(false);
    }));
    equal(opened, true, 'the socket of the README');
    await page.close();
    await until('one subscriber less', async () => (await post(publish('all'), 'two are left')).subscribers === 2);
  });
  await check('live: a message reaches only the subscribers of its channel', async () => {
    await say(two, '#channel', 'tea');
    await two.waitForSelector('body[data-state=live]');
    await until('one subscriber on tea', async () => (await post(publish('tea'), 'for tea')).subscribers === 1);
    await shows(two, 'for tea');
    await until('one subscriber on all', async () => (await post(publish('all'), 'for the rest')).subscribers === 1);
    await shows(one, 'for the rest');
    await lacks(two, 'for the rest');
    await lacks(one, 'for tea');
  });
  await check('live: the fragment of the URL names a channel', async () => {
    const page = await t.openLive('#tea');
    await post(publish('tea'), 'more tea');
    for (const reader of [page, two]) await shows(reader, 'more tea');
  });
  await check('live: an error message of the server is shown', async () => {
    const before = t.complaints.length;
    await one.fill('#text', 'x'.repeat(2 * 1024 * 1024));
    await one.click('button.main');
    const words = await textOf(one, '#answer.bad', /\S/);
    equal(words, 'a message may have at most 65536 bytes', 'the answer');
    t.complaints.length = before;      // the browser also reports the status; this is expected
    await one.fill('#text', '');
  });
  const stream = await openStream(one, '/events?channel=stream');
  await check('live: an EventSource receives the messages of its channel, whatever their text', async () => {
    await opens(stream);
    const texts = ['from outside', 'two\nlines', '\n: not a comment\n\nid: 5\n', ' a space first', 'ünïcødé \u{1F680}', 'x'.repeat(60_000)];
    await post(publish('all'), 'for another channel');
    for (const text of texts) equal((await post(publish('stream'), text)).subscribers, 1, 'subscribers');
    for (const text of texts) await receives(stream, text);
    const { opened, errors, events } = await stateOf(stream);
    equal(events.map(({ data }) => data).join('|'), texts.join('|'), 'all events, in order');
    for (const event of events) equal(`${event.type} ${event.origin}`, 'message http://127.0.0.1:8888', 'type and origin');
    equal(`${opened} ${errors}`, '1 0', 'how often it opened, and errors');
  });
  await check('live: a page of this server can open an EventSource at any loopback name', async () => {
    const page = await one.context().newPage();
    await page.goto('http://localhost:8888/');
    const other = await openStream(page, 'http://127.0.0.1:8888/events?channel=stream');
    await opens(other);
    equal((await post(publish('stream'), 'for two')).subscribers, 2, 'subscribers');
    for (const reader of [stream, other]) await receives(reader, 'for two');
    await page.close();
    await until('one subscriber less', async () => (await post(publish('stream'), 'one is left')).subscribers === 1);
  });
  await check('live: the page and an EventSource reconnect after a restart', async () => {
    t.watching = false;
    await t.server.stop();
    await one.waitForSelector('body:not([data-state=live])');
    await until('the EventSource notices the end', async () => (await stateOf(stream)).errors > 0);
    equal((await stateOf(stream)).readyState, 0, 'readyState while the server is stopped');
    await t.server.start();
    await one.waitForSelector('body[data-state=live]', { timeout: 30_000 });
    await post(publish('all'), 'after the restart');
    await shows(one, 'after the restart');
    await opens(stream);
    equal((await post(publish('stream'), 'after the restart')).subscribers, 1, 'subscribers');
    await receives(stream, 'after the restart');
    await closeStream(stream);
    await until('no subscriber', async () => (await post(publish('stream'), 'to no client')).subscribers === 0);
    t.watching = true;
  });
  await check('live: both kinds of connection side by side have every message once, in order, over restarts', async () => {
    const page = await t.openLive('#restarts');
    await page.check('#by [value=both]');
    await until('two subscribers', async () => (await post(publish('restarts'), 'probe')).subscribers === 2);
    const columns = ['#socket', '#events'];
    const numbersIn = async column => {
      const lines = await page.locator(`${column} [role=log] > div:not(.note) span`).allInnerTexts();
      return lines.filter(line => line !== 'probe').map(Number);
    };
    const sent = [];
    const say = async () => { sent.push(sent.length); await post(publish('restarts'), String(sent.at(-1))); };
    const haveAll = async () => {
      for (const column of columns) {
        await until(`${column} has all`, async () => (await numbersIn(column)).length >= sent.length);
        equal((await numbersIn(column)).join(), sent.join(), column);
      }
    };
    for (let n = 0; n < 3; n++) await say();
    await haveAll();
    t.watching = false;
    for (let restart = 0; restart < 2; restart++) {
      await t.server.stop();
      await page.waitForSelector('body[data-state=waiting]');
      await t.server.start();
      // Published before the page is connected again: it receives them later.
      for (let n = 0; n < 3; n++) await say();
      await page.waitForSelector('body[data-state=live]', { timeout: 60_000 });
      await say();
      await haveAll();
    }
    // The server has kept nothing over the restart, and says so first.
    for (const column of columns) {
      const notes = await page.locator(`${column} .note`).allInnerTexts();
      equal(notes.filter(note => note.includes('may be missing')).length, 2, `gaps in ${column}`);
    }
    t.watching = true;
    await page.close();
  });
  await check('live: what is published while the page has no WebSocket follows when it has one again', async () => {
    const page = await t.openLive('#away');
    await until('a subscriber', async () => (await post(publish('away'), 'before')).subscribers === 1);
    await shows(page, 'before');
    // The page listens by an EventSource meanwhile, and then by the WebSocket again.
    await page.check('#by [value=events]');
    await until('the WebSocket is gone', async () => (await post(publish('away'), 'meanwhile')).subscribers === 1);
    await page.check('#by [value=socket]');
    await live(page);
    await post(publish('away'), 'after');
    await until('the last message', async () => (await page.locator('#socket [role=log] > div').allInnerTexts()).some(line => line.endsWith('after')));
    const lines = await page.locator('#socket [role=log] > div span').allInnerTexts();
    equal(lines.filter(line => line !== 'before').filter((line, n, all) => line !== all[n - 1]).join(), 'meanwhile,after', 'messages of the WebSocket');
    await page.close();
  });
  await check('live: an EventSource of the page itself continues from its last id', async () => {
    const own = await openStream(one, '/events?channel=ids');
    await opens(own);
    const before = await post(publish('ids'), 'first');
    await receives(own, 'first');
    equal(await own.evaluate(({ events }) => events.at(-1).id), before.id, 'the id of the event');
    await closeStream(own);
    for (const text of ['second', 'third']) await post(publish('ids'), text);
    const again = await openStream(one, `/events?channel=ids&since=${before.id}`);
    await receives(again, 'third');
    equal((await stateOf(again)).events.map(({ data }) => data).join(), 'second,third', 'what was missed');
    await closeStream(again);
  });
}

async function eventStreams(t) {
  const page = await t.openLive();
  const elsewhere = await page.context().newPage();
  await elsewhere.goto('http://127.0.0.1:8889/');
  const at = target => `http://127.0.0.1:8888${target}`;

  await check('event-streams: an event has the type that its route configures', async () => {
    const stream = await openStream(page, '/typed?channel=tea', { types: ['message', 'tea', 'news'] });
    await opens(stream);
    for (const channel of ['tea', 'news']) {
      await post(at(`/publish/${channel}`), `for ${channel}`);
      equal((await receives(stream, `for ${channel}`)).type, channel, 'type');
    }
    equal((await stateOf(stream)).events.length, 2, 'events');
    await closeStream(stream);
  });
  await check('event-streams: a page of another origin reads a stream where `origins` allows it', async () => {
    const streams = await Promise.all([
      openStream(elsewhere, at('/any')),
      openStream(elsewhere, at('/listed')),
      openStream(elsewhere, at('/listed'), { withCredentials: true }),
    ]);
    for (const stream of streams) await opens(stream);
    equal((await post(at('/publish/all'), 'for other origins')).subscribers, 1 + streams.length, 'subscribers');
    for (const stream of streams) {
      equal((await receives(stream, 'for other origins')).origin, 'http://127.0.0.1:8888', 'origin');
      await closeStream(stream);
    }
  });
  await check('event-streams: it is refused where `origins` does not allow it, and with credentials where `origins` is "any"', async () => {
    await isRefused(await openStream(elsewhere, at('/same')), 'a stream for the same origin');
    await isRefused(await openStream(elsewhere, at('/same'), { withCredentials: true }), 'the same with credentials');
    await isRefused(await openStream(elsewhere, at('/any'), { withCredentials: true }), 'credentials for any origin');
    await until('only the page is left', async () => (await post(at('/publish/all'), 'x')).subscribers === 1);
  });

  // Both streams are opened again only after the time in `retry`, at least 2 s. So these checks run at the same time.
  const connectsOnceThereIsRoom = async (url, publish) => {
    const leave = await occupy(url);
    equal((await post(publish, 'to the only client')).subscribers, 1, 'subscribers');
    const stream = await openStream(page, url);
    await until('two refusals', async () => (await stateOf(stream)).errors >= 2);
    holds((await stateOf(stream)).readyState !== CLOSED, 'the browser has closed the stream for good');
    leave();
    await until('one subscriber', async () => {
      const { readyState } = await stateOf(stream);
      return readyState === 1 && (await post(publish, 'there is room')).subscribers === 1;
    });
    await receives(stream, 'there is room');
    await closeStream(stream);
  };
  await Promise.all([
    check('event-streams: the browser connects again until a full hub has room', () =>
      connectsOnceThereIsRoom(at('/few'), at('/publish-few'))),
    check('event-streams: the browser connects again until a server at connections_max has room', () =>
      connectsOnceThereIsRoom('http://127.0.0.1:8890/events', at('/publish/small'))),
  ]);
  await elsewhere.close();
}

const EXAMPLES = [
  { name: 'server-push', title: 'Server push', ports: [8888], page: 8888, run: serverPush },
  { name: 'hello-world', title: 'WebSocket hello world', ports: [8888], page: 8888, run: helloWorld },
  { name: 'echo', title: 'Echo', ports: [8888], page: 8888, run: echo },
  { name: 'techops', title: 'WebSocket Broadcast Demo', ports: [5000, 8000], page: 8000, run: techops },
  { name: 'tick', title: 'Tick', ports: [9876, 8888], page: 8888, run: tick },
  { name: 'streaming', title: 'Streaming', ports: [8888], page: 8888, run: streaming },
  { name: 'live', title: 'pushd live', ports: [8888], page: 8888, run: livePage, config: 'pushd.toml' },
  {
    name: 'event-streams', title: 'pushd live', ports: [8888, 8889, 8890], page: 8888, run: eventStreams,
    config: fileURLToPath(new URL('event-streams.toml', import.meta.url)),
  },
];

// The run

async function tryExample(example, browser, scratch) {
  const home = path.join(scratch, example.name), rundir = path.join(home, 'run');
  await cp(path.join(repository, 'config'), path.join(home, 'config'), { recursive: true });
  await mkdir(rundir);
  const config = path.resolve(home, 'config', example.config ?? path.join('examples', `${example.name}.toml`));
  const server = new Server(config, rundir, example.ports);
  const trial = new Trial(example.name, server, browser, example.page, example.title);
  const failedBefore = failed;
  try {
    await check(`${example.name}: starts`, () => server.start());
    if (failed === failedBefore) {
      await example.run(trial);
      await check(`${example.name}: the pages have no errors`, async () => {
        equal(trial.complaints.join(' | '), '', 'errors in the console');
      });
      await check(`${example.name}: SIGINT stops it with 0, and the pages get a close`, async () => {
        trial.watching = false;
        await server.stop();
        await until('a close with 1001', async () => (await linesOf(trial.pages[0])).some(l => l.includes('1001')));
      });
    }
  } catch (error) {
    await check(`${example.name}: no error in the test itself`, async () => { throw error; });
  } finally {
    await Promise.all(trial.pages.map(page => page.close()));
    await server.kill();
    if (failed > failedBefore) console.log((await server.log()).trimEnd().replace(/^/gm, '      | '));
  }
}

const unknown = wanted.filter(name => !EXAMPLES.some(example => example.name === name));
if (unknown.length) {
  console.error(`no such example: ${unknown.join(', ')}`);
  process.exit(64);
}
const scratch = await mkdtemp(path.join(os.tmpdir(), 'pushd-browser-'));
let browser;
try {
  browser = await chromium.launchPersistentContext(path.join(scratch, 'browser'), {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: BROWSER_FLAGS,
  });
  for (const example of EXAMPLES) {
    if (!wanted.length || wanted.includes(example.name)) await tryExample(example, browser, scratch);
  }
} catch (error) {
  failed += 1;
  console.log(`FAIL  the run: ${error.stack}`);
} finally {
  await browser?.close();
  await rm(scratch, { recursive: true, force: true, maxRetries: 5 });
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
