// The server in memory behind HTTP and WebSockets: `npm run mock` serves the built chat with people in it, without a
// gateway. Its headers are the gateway's, so that what the page's policy forbids shows here, too.

import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { WebSocketServer, type WebSocket } from 'ws';
import { ConversationKind } from '../src/generated/conversations';
import { Backend, type MockUser } from './backend';

const DIST = join(import.meta.dirname ?? '.', '..', 'dist');
const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml',
  '.webmanifest': 'application/manifest+json',
};
const HEADERS = {
  'content-security-policy': "default-src 'self'; img-src 'self' data: blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
};
const BODY_BYTES_MAX = 64 * 1024;

/** Lifetime of access tokens; short ones show that they are refreshed. */
export interface MockOptions { port: number; tokenLifeS: number; dist: string }

export interface MockServer { backend: Backend; port: number; close(): Promise<void> }

export async function startMockServer(options: Partial<MockOptions> = {}): Promise<MockServer> {
  const { port = 0, tokenLifeS = 900, dist = DIST } = options;
  const backend = new Backend();
  const refreshTokens = new Map<string, { user: string; device: string }>();
  const server = createServer((request, response) => {
    handle(backend, refreshTokens, tokenLifeS, dist, request, response).catch((error: unknown) => {
      reply(response, 500, { code: 'ERROR_INTERNAL', detail: String(error), retry_after_ms: 0 });
    });
  });
  const sockets = new WebSocketServer({ server, path: '/v1/socket', handleProtocols: (offered) => (offered.has('ringline.v1') ? 'ringline.v1' : false) });
  sockets.on('connection', (socket) => attach(backend, socket));
  await new Promise<void>((resolve) => { server.listen(port, '127.0.0.1', resolve); });
  const address = server.address();
  return {
    backend,
    port: typeof address === 'object' && address !== null ? address.port : port,
    close: async () => {
      for (const socket of sockets.clients) socket.terminate();
      await new Promise<void>((resolve) => { server.close(() => resolve()); });
    },
  };
}

function attach(backend: Backend, socket: WebSocket): void {
  const session = backend.connect((payload) => socket.send(payload), () => socket.close());
  socket.on('message', (data, binary) => {
    if (binary && data instanceof Buffer) session.receive(new Uint8Array(data));
    else socket.close(1003);
  });
  socket.on('close', () => session.cut());
}

type RefreshTokens = Map<string, { user: string; device: string }>;

async function handle(
  backend: Backend, refreshTokens: RefreshTokens, tokenLifeS: number, dist: string, request: IncomingMessage, response: ServerResponse,
): Promise<void> {
  const path = new URL(request.url ?? '/', 'http://mock').pathname;
  if (request.method !== 'POST' && request.method !== 'DELETE') return serveFile(dist, path, response);
  const body = await jsonBody(request);
  const admit = (status: number, user: MockUser, device: string) => {
    const refreshToken = `${backend.newDevice()}${backend.newDevice()}`;
    refreshTokens.set(refreshToken, { user: user.id, device });
    response.setHeader('set-cookie', `ringline-refresh-${user.id}=${refreshToken}; Path=/v1/refresh; HttpOnly; SameSite=Strict`);
    reply(response, status, {
      user_id: user.id, device_id: device, username: user.username, display_name: user.displayName,
      access_token: backend.issue(user.id, device), expires_in_s: tokenLifeS,
    });
  };
  const refuse = (status: number, code: string, detail: string) => reply(response, status, { code, detail, retry_after_ms: 0 });
  const text = (name: string) => (typeof body[name] === 'string' ? body[name] : '');
  if (path === '/v1/register') {
    if (backend.named(text('username')) !== undefined) return refuse(409, 'ERROR_ALREADY_EXISTS', 'username: taken');
    return admit(201, backend.register(text('username'), text('display_name'), text('password')), backend.newDevice());
  }
  if (path === '/v1/login') {
    const user = backend.named(text('username'));
    if (user === undefined || user.password !== text('password')) return refuse(401, 'ERROR_UNAUTHENTICATED', 'username or password');
    return admit(200, user, backend.newDevice());
  }
  if (path === '/v1/refresh') {
    const name = `ringline-refresh-${text('user_id')}`;
    if (request.method === 'DELETE') {
      response.setHeader('set-cookie', `${name}=; Path=/v1/refresh; Max-Age=0`);
      return reply(response, 200, {});
    }
    const cookies = (request.headers.cookie ?? '').split('; ');
    const token = cookies.find((cookie) => cookie.startsWith(`${name}=`))?.slice(name.length + 1) ?? '';
    const known = refreshTokens.get(token);
    const user = known === undefined ? undefined : backend.users.get(known.user);
    if (known === undefined || user === undefined) return refuse(401, 'ERROR_UNAUTHENTICATED', 'refresh_token');
    refreshTokens.delete(token);
    return admit(200, user, known.device);
  }
  refuse(404, 'ERROR_NOT_FOUND', 'path');
}

async function serveFile(dist: string, path: string, response: ServerResponse): Promise<void> {
  const file = path === '/' ? '/index.html' : normalize(path);
  try {
    const content = await readFile(join(dist, file));
    response.writeHead(200, { ...HEADERS, 'content-type': TYPES[extname(file)] ?? 'application/octet-stream' }).end(content);
  } catch {
    response.writeHead(404, HEADERS).end('not found');
  }
}

async function jsonBody(request: IncomingMessage): Promise<Record<string, unknown>> {
  let text = '';
  for await (const part of request) {
    text += String(part);
    if (text.length > BODY_BYTES_MAX) throw new Error('body too large');
  }
  const body: unknown = JSON.parse(text);
  return typeof body === 'object' && body !== null ? body as Record<string, unknown> : {};
}

function reply(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { ...HEADERS, 'content-type': 'application/json' }).end(JSON.stringify(body));
}

/** People and conversations to look at; log in as `mira`, password `password`. */
export function seed(backend: Backend): void {
  const [mira, jonas, lea, tom, noor] = [
    backend.register('mira', 'Mira Okafor'), backend.register('jonas', 'Jonas Lindt'), backend.register('lea', 'Léa Martin'),
    backend.register('tom', 'Tom'), backend.register('noor', 'Noor Haddad'),
  ] as [MockUser, MockUser, MockUser, MockUser, MockUser];
  const minute = 60_000;
  const at = (daysAgo: number, hour: number, min: number) => new Date(Date.now() - daysAgo * 86_400_000).setHours(hour, min, 0, 0);
  const direct = (a: MockUser, b: MockUser) => backend.createConversation(a.id, ConversationKind.DIRECT, [b.id], '', 0n, at(30, 9, 0));

  const withTom = direct(tom, mira);
  backend.say(withTom, tom.id, 'The invoice is paid, thank you!', at(9, 16, 20));
  backend.moveCursor(withTom, mira.id, '', 2, 2);

  const withNoor = direct(mira, noor);
  backend.say(withNoor, mira.id, 'Are you still coming on Saturday?', at(2, 18, 2));
  backend.moveCursor(withNoor, noor.id, '', 2, 0);

  const trip = backend.createConversation(jonas.id, ConversationKind.GROUP, [mira.id, lea.id, tom.id], 'Lake weekend', 1n, at(1, 18, 55));
  const tripTalk: [MockUser, string][] = [
    [jonas, 'Cabin is booked: Friday to Sunday.'], [jonas, 'Arrival is after 15:00, the key is under the blue pot.'],
    [lea, 'Wonderful! I can take three people in the car.'], [tom, 'I bring the canoe 🛶'], [mira, 'And I do breakfast on both days.'],
    [lea, 'Then dinner is on Tom and me. Anything nobody eats?'], [jonas, 'No mushrooms for me, please.'],
  ];
  tripTalk.forEach(([who, what], index) => backend.say(trip, who.id, what, at(1, 19, 0) + index * 3 * minute));
  for (const user of [jonas, lea, tom]) backend.moveCursor(trip, user.id, '', trip.entries.length, trip.entries.length);
  backend.moveCursor(trip, mira.id, '', trip.entries.length, trip.entries.length);
  const todayStart = Date.now() - 50 * minute;
  backend.say(trip, tom.id, 'Weather looks good so far ☀️', todayStart);
  backend.say(trip, lea.id, 'Leaving at two. Who rides with me?', todayStart + 2 * minute);
  backend.say(trip, lea.id, 'There is room for one more bag, not for a piano.', todayStart + 2 * minute + 20_000);

  const withJonas = direct(jonas, mira);
  for (let index = 0; index < 120; index++) {
    backend.say(withJonas, index % 3 === 0 ? mira.id : jonas.id, `Earlier message ${index + 1}`, at(20 - Math.floor(index / 12), 9, index % 60));
  }
  const talk: [MockUser, string, number][] = [
    [jonas, 'Morning! Did the new build go out?', 130], [mira, 'Yes, twenty minutes ago. No errors so far.', 128],
    [mira, 'The first-load size went down by a third.', 127], [jonas, 'Impressive. How did you do that?', 60],
    [mira, 'Mostly by throwing things away:\n– two date libraries\n– a font nobody noticed\n– the carousel', 58],
    [jonas, 'Nobody will miss the carousel 😄', 57], [jonas, 'Could you write it down for the others? Something like https://ringline.example/notes/first-load would do.', 31],
    [mira, 'Will do before lunch.', 12], [jonas, '👍', 11],
  ];
  for (const [who, what, ago] of talk) backend.say(withJonas, who.id, what, Date.now() - ago * minute);
  backend.moveCursor(withJonas, jonas.id, '', withJonas.entries.length, withJonas.entries.length);
  backend.moveCursor(withJonas, mira.id, '', withJonas.entries.length, withJonas.entries.length);
}
