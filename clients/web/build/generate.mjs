// Generates src/generated (and test/generated) from the client protocol in wire-protocol/proto. Everything it runs comes from npm.
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const bin = (name) => join(root, 'node_modules', '.bin', name);
const proto = join(root, '..', '..', 'wire-protocol', 'proto');
const out = join(root, 'src', 'generated');
/** The same with JSON beside it, for comparing with the readable twins of golden frames. */
const testOut = join(root, 'test', 'generated');

// Plain functions on plain objects: what is not used is not in the bundle. 64-bit fields are bigint, since
// feed versions pass 2^53; the codec turns those that cannot (sequence numbers, times) into numbers.
const options = [
  'esModuleInterop=true',
  'env=browser',
  'forceLong=bigint',
  'oneof=unions-value',
  'enumsAsLiterals=true',
  'unrecognizedEnum=false',
  'outputPartialMethods=false',
  'outputClientImpl=false',
  'outputServices=none',
  'exportCommonSymbols=false',
  'useExactTypes=false',
];

const plugin = (folder, json) => ({
  local: bin('protoc-gen-ts_proto'),
  out: relative(process.cwd(), folder) || '.',
  opt: [...options, `outputJsonMethods=${json}`],
  include_imports: true,
});
const template = { version: 'v2', plugins: [plugin(out, false), plugin(testOut, true)] };

for (const folder of [out, testOut]) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
}
execFileSync(
  bin('buf'),
  ['generate', proto, '--template', JSON.stringify(template), '--path', join(proto, 'envelope.proto')],
  { stdio: 'inherit' },
);
