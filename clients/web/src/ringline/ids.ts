// Ids are 16 bytes on the wire and 32 hexadecimal characters everywhere else: text is what maps, stores and JSON key by.

export type UserId = string;
export type DeviceId = string;
export type ConversationId = string;

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

/** Lower-case hexadecimal of any bytes. */
export function toHex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += HEX[byte];
  return text;
}

/** The bytes of an id; throws for anything but 32 hexadecimal characters, which only a bug passes here. */
export function idBytes(id: string): Uint8Array {
  if (!/^[0-9a-f]{32}$/.test(id)) throw new Error('not an id');
  const bytes = new Uint8Array(16);
  for (let i = 0; i < 16; i++) bytes[i] = Number.parseInt(id.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

/** A username in the one form under which it is unique; null if it cannot be brought into that form. */
export function normalUsername(text: string): string | null {
  const name = text.trim().toLowerCase();
  return /^[a-z0-9._-]{3,50}$/.test(name) ? name : null;
}
