// Short notices at the edge of the page; errors may offer another try.

import { signalOf, useSignal } from './signal';

/** A notice leaves by itself after this time, in milliseconds; one with an action stays twice as long. */
const TOAST_MS = 6_000;
/** Notices at once; the oldest make room. */
const TOASTS_MAX = 3;

interface Toast { id: number; text: string; action: { label: string; run: () => void } | null }

const toasts = signalOf<readonly Toast[]>([]);
let nextId = 1;

export function toast(text: string, retry?: () => void): void {
  const id = nextId;
  nextId += 1;
  const action = retry === undefined ? null : { label: 'Try again', run: retry };
  toasts.set([...toasts.get(), { id, text, action }].slice(-TOASTS_MAX));
  setTimeout(() => dismiss(id), action === null ? TOAST_MS : 2 * TOAST_MS);
}

function dismiss(id: number): void {
  toasts.set(toasts.get().filter((other) => other.id !== id));
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {useSignal(toasts).map(({ id, text, action }) => (
        <div class="toast" key={id}>
          <span>{text}</span>
          {action !== null && (
            <button type="button" class="toast-action" onClick={() => { dismiss(id); action.run(); }}>{action.label}</button>
          )}
          <button type="button" class="toast-close" aria-label="Dismiss" onClick={() => dismiss(id)}>×</button>
        </div>
      ))}
    </div>
  );
}
