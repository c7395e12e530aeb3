import type { Plugin } from 'vite';

export declare function oneWay(folder: string): Plugin;
