// How the connection is, when it is not as it should be.

import { useEffect, useState } from 'preact/hooks';
import type { Ringline } from '../ringline';

/** Short interruptions are not worth a word, in milliseconds. */
const QUIET_MS = 1_200;

export function Banner({ client }: { client: Ringline }) {
  const { status, syncing } = client;
  const away = status.state === 'connecting' || status.state === 'waiting';
  const late = useLate(away || syncing);
  const nowMs = useSeconds(late && status.state === 'waiting');
  if (!late) return <div class="banner-place" role="status" />;
  return (
    <div class="banner-place" role="status">
      <div class={away ? 'banner banner-away' : 'banner'}>
        <span class="banner-dot" aria-hidden="true" />
        <span>{text(status, nowMs)}</span>
        {status.state === 'waiting' && (
          <button type="button" onClick={() => client.reconnect()}>Try now</button>
        )}
      </div>
    </div>
  );
}

function text(status: Ringline['status'], nowMs: number): string {
  if (status.state === 'connecting') return 'Connecting…';
  if (status.state !== 'waiting') return 'Catching up…';
  const seconds = Math.ceil((status.untilMs - nowMs) / 1_000);
  return seconds > 1 ? `No connection. Trying again in ${seconds} s.` : 'No connection. Trying again…';
}

/** True once `wanted` has been true for a while. */
function useLate(wanted: boolean): boolean {
  const [late, setLate] = useState(false);
  useEffect(() => {
    if (!wanted) {
      setLate(false);
      return;
    }
    const timer = setTimeout(() => setLate(true), QUIET_MS);
    return () => clearTimeout(timer);
  }, [wanted]);
  return late && wanted;
}

function useSeconds(running: boolean): number {
  const [nowMs, setNowMs] = useState(Date.now());
  useEffect(() => {
    if (!running) return;
    setNowMs(Date.now());
    const timer = setInterval(() => setNowMs(Date.now()), 1_000);
    return () => clearInterval(timer);
  }, [running]);
  return nowMs;
}
