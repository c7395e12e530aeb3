// A Vite plugin: generated messages encode and decode, but the chat encodes only client frames and decodes only
// server frames. Methods that neither of the two reaches are cut from the bundle; a bundler cannot, as they are
// members of an object.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const ROOTS = ['ClientFrame.encode', 'ServerFrame.decode'];
const MESSAGE = /^export const (\w+): MessageFns<\1> = \{\n(  encode\([\s\S]*?\n  \},\n)\n(  decode\([\s\S]*?\n  \},\n)\};/gm;

export function oneWay(folder) {
  const bodies = new Map();
  for (const file of readdirSync(folder)) {
    for (const [, name, encode, decode] of readFileSync(join(folder, file), 'utf8').matchAll(MESSAGE)) {
      bodies.set(`${name}.encode`, encode).set(`${name}.decode`, decode);
    }
  }
  const reached = new Set();
  const reach = (method) => {
    if (reached.has(method) || !bodies.has(method)) return;
    reached.add(method);
    for (const [called] of bodies.get(method).matchAll(/\b\w+\.(?:encode|decode)(?=\()/g)) reach(called);
  };
  for (const root of ROOTS) {
    if (!bodies.has(root)) throw new Error(`${root} is not in ${folder}: the generator's form changed`);
    reach(root);
  }
  return {
    name: 'one-way',
    apply: 'build',
    enforce: 'pre',
    transform(code, id) {
      if (!id.startsWith(folder)) return null;
      const cut = code.replace(MESSAGE, (_, name, encode, decode) => {
        const kept = [reached.has(`${name}.encode`) ? encode : '', reached.has(`${name}.decode`) ? decode : ''].join('');
        return `export const ${name} = {\n${kept}};`;
      });
      return { code: cut, map: null };
    },
  };
}
