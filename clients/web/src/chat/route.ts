// The page's address says which conversation is open, so that back, forward and reload work.

import { useEffect, useState } from 'preact/hooks';

const PREFIX = '#/c/';
/** Steps this window went forward, so that leaving a conversation can go back instead of piling up. */
let depth = 0;

function current(): string | null {
  const id = location.hash.startsWith(PREFIX) ? location.hash.slice(PREFIX.length) : '';
  return /^[0-9a-f]{32}$/.test(id) ? id : null;
}

export function goTo(conversation: string): void {
  if (current() === conversation) return;
  // From one conversation to the next replaces: back leads to the list.
  if (current() === null) {
    depth += 1;
    location.hash = PREFIX + conversation;
  } else {
    location.replace(PREFIX + conversation);
  }
}

export function goToList(): void {
  if (depth > 0) {
    depth -= 1;
    history.back();
  } else if (current() !== null) {
    location.replace('#/');
  }
}

export function useRoute(): string | null {
  const [route, setRoute] = useState(current);
  useEffect(() => {
    const listener = () => {
      if (current() === null) depth = 0;
      setRoute(current());
    };
    addEventListener('hashchange', listener);
    return () => removeEventListener('hashchange', listener);
  }, []);
  return route;
}
