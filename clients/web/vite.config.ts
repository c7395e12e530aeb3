import { join } from 'node:path';
import { defineConfig } from 'vitest/config';
import { compressed } from './build/compressed.mjs';
import { oneWay } from './build/one_way.mjs';

export default defineConfig({
  base: '/',
  plugins: [oneWay(join(import.meta.dirname, 'src', 'generated')), compressed()],
  build: {
    target: 'es2022',
    // light-dark() and popovers are in all of these; older ones are not served a second, larger style.
    cssTarget: ['chrome123', 'edge123', 'firefox125', 'safari17.5'],
    outDir: 'dist',
    assetsDir: 'assets',
    // Nothing inline: the page's policy allows only its own files.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    cssCodeSplit: false,
    reportCompressedSize: true,
  },
  // `npm run dev` and `vite preview` need a gateway behind them.
  server: { proxy: { '/v1': { target: process.env.GATEWAY ?? 'http://127.0.0.1:8080', ws: true } } },
  // Their clock is their own: a real second means nothing but that the machine is busy.
  test: { include: ['test/**/*.test.ts'], environment: 'node', testTimeout: 60_000 },
});
