// Replays the golden frames of wire-protocol: bytes against their readable twins, in both directions.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import * as plain from '../src/generated/envelope';
import * as twin from './generated/envelope';
import { decodeFrame, HandleTable } from '../src/ringline/codec';

const FOLDER = join(import.meta.dirname, '..', '..', '..', 'wire-protocol', 'golden');
/** Handles that golden frames may use although no frame here bound them. */
const HANDLES = Array.from({ length: 64 }, (_, index) => index + 1);

const names = readdirSync(FOLDER).filter((name) => name.endsWith('.bin')).map((name) => name.slice(0, -4)).sort();
const of = (side: string) => names.filter((name) => name.startsWith(`${side}-`));
const bytesOf = (name: string) => new Uint8Array(readFileSync(join(FOLDER, `${name}.bin`)));
const twinOf = (name: string): unknown => JSON.parse(readFileSync(join(FOLDER, `${name}.json`), 'utf8'));

describe.each([
  ['client', plain.ClientFrame, twin.ClientFrame] as const,
  ['server', plain.ServerFrame, twin.ServerFrame] as const,
])('golden %s frames', (side, Plain, Twin) => {
  it('are there', () => expect(of(side).length).toBeGreaterThan(5));

  it.each(of(side))('%s', (name) => {
    const bytes = bytesOf(name);
    const frame = Plain.decode(bytes);
    expect(frame.body).toBeDefined();
    // The generated code of the library reads what the code with JSON reads, and that is what the twin says.
    expect(frame).toEqual(Twin.decode(bytes));
    expect(Twin.toJSON(frame as never)).toEqual(twinOf(name));
    expect(Plain.encode(frame as never).finish()).toEqual(bytes);
    expect(Twin.encode(Twin.fromJSON(twinOf(name)) as never).finish()).toEqual(bytes);
  });
});

describe('golden server frames', () => {
  it.each(of('server'))('%s is understood by the session', (name) => {
    const handles = new HandleTable();
    const bound = new Set(plain.ServerFrame.decode(bytesOf(name)).bindings.map((binding) => binding.handle));
    for (const handle of HANDLES) if (!bound.has(handle)) handles.bind(handle, handle.toString(16).padStart(32, '0'));
    expect(decodeFrame(bytesOf(name), handles, 0).kind).toMatch(/ready|answer|event|closing/);
  });
});
