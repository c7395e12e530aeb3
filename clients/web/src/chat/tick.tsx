// How far an own message got.

import { AlertIcon, ClockIcon, TickIcon, TicksIcon } from './icons';

export type TickState = 'pending' | 'sent' | 'delivered' | 'read' | 'failed';

const LABELS: Record<TickState, string> = {
  pending: 'Sending', sent: 'Sent', delivered: 'Delivered', read: 'Read', failed: 'Not sent',
};

export function Tick({ state }: { state: TickState }) {
  const Icon = state === 'pending' ? ClockIcon : state === 'failed' ? AlertIcon : state === 'sent' ? TickIcon : TicksIcon;
  return (
    <span class={`tick tick-${state}`} role="img" aria-label={LABELS[state]} title={LABELS[state]} data-state={state}>
      <Icon class="tick-icon" />
    </span>
  );
}
