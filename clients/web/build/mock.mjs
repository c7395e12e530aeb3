// `npm run mock`: serves dist/ with the server in memory on port 8090 (or PORT).
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runnerImport } from 'vite';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { module } = await runnerImport(join(root, 'test', 'mock-server.ts'), { root, configFile: false, logLevel: 'warn' });
const server = await module.startMockServer({ port: Number(process.env.PORT ?? 8090), dist: join(root, 'dist') });
module.seed(server.backend);
console.log(`mock server: http://127.0.0.1:${server.port}/  (log in as mira, password: password)`);
