// The surroundings of the library in a browser: clock, randomness, sockets, stores. The only place that reaches for them.

import { LocalAccountKeeper } from './accounts';
import type { Channel, Environment } from './client';
import type { Socket, SocketEvents } from './connection';
import { IndexedDbStore } from './indexeddb';
import { restAt } from './rest';

export function browserEnvironment(): Environment {
  return {
    now: () => Date.now(),
    random: Math.random,
    freshId,
    socketBase: location.origin.replace(/^http/, 'ws'),
    clientName: 'ringline-web',
    rest: restAt(''),
    keeper: new LocalAccountKeeper(),
    openStore: (user) => IndexedDbStore.open(user),
    openSocket,
    openChannel,
  };
}

/** 8 random bytes that are not all zero. */
function freshId(): bigint {
  const [id = 0n] = crypto.getRandomValues(new BigUint64Array(1));
  return id === 0n ? 1n : id;
}

function openSocket(url: string, protocol: string, events: SocketEvents): Socket {
  const socket = new WebSocket(url, protocol);
  socket.binaryType = 'arraybuffer';
  socket.onopen = () => events.opened();
  socket.onmessage = ({ data }) => events.received(data instanceof ArrayBuffer ? new Uint8Array(data) : null);
  // An error is always followed by a close.
  socket.onclose = () => events.closed();
  return {
    send: (payload) => socket.send(payload as Uint8Array<ArrayBuffer>),
    close: () => socket.close(),
  };
}

function openChannel(name: string, received: (note: unknown) => void): Channel | null {
  if (typeof BroadcastChannel === 'undefined') return null;
  const channel = new BroadcastChannel(name);
  channel.onmessage = ({ data }: MessageEvent<unknown>) => received(data);
  return channel;
}
