// A person or group as a coloured disc with initials.

import { hueOf, initialsOf } from './format';

export function Avatar({ id, name, size = 'medium' }: { id: string; name: string; size?: 'tiny' | 'small' | 'medium' }) {
  return <span class={`avatar avatar-${size} hue-${hueOf(id)}`} aria-hidden="true">{initialsOf(name)}</span>;
}
