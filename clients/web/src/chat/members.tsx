// Who is in a conversation.

import type { Conversation } from '../ringline';
import { Avatar } from './avatar';
import { Dialog } from './dialog';
import { nameOf, titleOf, type UserOf } from './format';

export function MembersDialog({ row, userOf, onClose }: { row: Conversation; userOf: UserOf; onClose: () => void }) {
  const count = row.members.length;
  return (
    <Dialog title={row.kind === 'group' ? titleOf(row, userOf) : 'Members'} onClose={onClose}>
      <p class="dialog-note">{count} {count === 1 ? 'member' : 'members'}</p>
      <ul class="members">
        {row.members.map((member) => {
          const user = userOf(member.user);
          return (
            <li key={member.user}>
              <Avatar id={member.user} name={nameOf(user)} size="small" />
              <span class="member-name">{nameOf(user)}{member.ordinal === row.ownOrdinal && <small> you</small>}</span>
              <span class="member-username">{user === undefined ? '' : `@${user.username}`}</span>
            </li>
          );
        })}
      </ul>
    </Dialog>
  );
}
